"""Paints a face: surroundings, skin, light and shadow, eyes, brows, nose and mouth, in order."""

from dataclasses import dataclass

import cv2
import numpy as np

from tasks.draw.anatomy import Eye, Face, Mouth
from tasks.draw.canvas import Canvas
from tasks.draw.curves import disc, ribbon, smooth, tapered
from tasks.draw.hair import hair_outline, paint_back_hair, paint_front_hair
from tasks.draw.identity import Colour, Identity
from tasks.draw.pose import Pose

_WHITE = (236.0, 232.0, 228.0)
_DARK = (34.0, 22.0, 22.0)


@dataclass(frozen=True)
class Scene:
    """What is around a face in one picture.

    Attributes
    ----------
    backdrop
        `(8, 8, 3)` float32 RGB, enlarged behind the head.
    light_side, light_height
        Where the light comes from, -1 (left, above) to 1.
    light_share
        How much of the light is directed, 0 to 1.
    exposure, warmth
        Brightness factor, and by how much red outshines blue.
    noise_sd
        Grain in grey levels.
    noise_seed
        Seed of the grain.
    """

    backdrop: np.ndarray
    light_side: float
    light_height: float
    light_share: float
    exposure: float
    warmth: float
    noise_sd: float
    noise_seed: int


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a picture's surroundings and light."""
    base = rng.uniform(50, 210) + rng.normal(0, 26, 3)
    to = np.clip(base + rng.normal(0, 35, 3), 20, 240)
    ramp = np.linspace(0, 1, 8)[:, None, None]
    blotches = rng.normal(0, rng.uniform(0, 14), (8, 8, 1))
    return Scene(
        backdrop=np.clip(base + (to - base) * ramp + blotches, 5, 250).astype(np.float32),
        light_side=float(rng.uniform(-0.8, 0.8)),
        light_height=float(rng.uniform(-0.9, -0.2)),
        light_share=float(rng.uniform(0.12, 0.38)),
        exposure=float(rng.uniform(0.82, 1.12)),
        warmth=float(rng.normal(0, 0.03)),
        noise_sd=float(rng.uniform(0.8, 3.5)),
        noise_seed=int(rng.integers(1 << 32)),
    )


def paint_portrait(
    who: Identity, face: Face, pose: Pose, scene: Scene, size_px: int
) -> np.ndarray:
    """Paint one picture; returns `(size_px, size_px, 3)` uint8 RGB."""
    canvas = Canvas(size_px, pose)
    side = canvas.paint.shape[0]
    backdrop = cv2.resize(scene.backdrop, (64, 64), interpolation=cv2.INTER_CUBIC)
    canvas.paint[:] = cv2.resize(
        np.clip(backdrop, 0, 255).astype(np.uint8), (side, side), interpolation=cv2.INTER_LINEAR
    )
    paint_back_hair(canvas, who)
    _paint_bust(canvas, who, face)
    canvas.fill(face.outline, who.skin)
    _shade_head(canvas, who, face)
    for eye in face.eyes:
        _paint_eye(canvas, who, eye)
    _paint_nose(canvas, who, face)
    _paint_mouth(canvas, who, face.mouth)
    _paint_brows(canvas, who, face)
    _lay_creases(canvas, face)
    paint_front_hair(canvas, who)
    if who.glasses:
        _paint_glasses(canvas, who)
    return _develop(canvas, who, face, scene)


def _paint_bust(canvas: Canvas, who: Identity, face: Face) -> None:
    """Paint ears, neck and clothing."""
    shade = _tone(who.skin, 0.86)
    for sign in (-1.0, 1.0):
        ear = disc((sign * (who.face_w + 0.02), 0.10), 0.085, who.ear)
        canvas.fill(ear, _tone(who.skin, 0.93), -0.1)
        canvas.fill(disc((sign * (who.face_w + 0.035), 0.10), 0.045, who.ear * 0.62), shade, -0.1)
    neck_w = who.jaw_w * (0.60 + 0.10 * who.maturity + 0.10 * (who.gender == "male") * who.maturity)
    shoulder_y = who.chin_y + 0.30
    neck = [(-neck_w, 0.4), (neck_w, 0.4), (neck_w * 1.05, shoulder_y), (neck_w * 1.4, shoulder_y + 0.4),
            (-neck_w * 1.4, shoulder_y + 0.4), (-neck_w * 1.05, shoulder_y)]  # fmt: skip
    canvas.fill(np.array(neck), shade, -0.2)
    with canvas.within(np.array(neck)):  # the chin's shadow
        canvas.fill(face.outline + (0, 0.13), _tone(who.skin, 0.78), -0.1)
        canvas.fill(face.outline + (0, 0.07), _tone(who.skin, 0.68), -0.1)
    wide = 1.05 + 0.35 * who.maturity
    half = [(0.0, shoulder_y + 0.14), (neck_w * 0.75, shoulder_y + 0.07), (neck_w * 1.12, shoulder_y - 0.06),
            (wide * 0.8, shoulder_y + 0.14), (wide * 1.20, shoulder_y + 0.50)]  # fmt: skip
    right = smooth(np.array(half))
    cloth = np.concatenate((right, [(wide * 1.6, 3.0), (-wide * 1.6, 3.0)], (right * (-1, 1))[::-1]))
    canvas.fill(cloth, who.cloth, -0.2)
    collar = smooth(np.array([(-neck_w * 1.12, shoulder_y - 0.06), (-neck_w * 0.75, shoulder_y + 0.07),
                              (0.0, shoulder_y + 0.14), (neck_w * 0.75, shoulder_y + 0.07),
                              (neck_w * 1.12, shoulder_y - 0.06)]))  # fmt: skip
    canvas.fill(ribbon(collar, 0.05), _tone(who.cloth, 0.75), -0.2)


def _shade_head(canvas: Canvas, who: Identity, face: Face) -> None:
    """Lay the shadows and lights that a face has at rest."""
    chin = face.outline[:, 1].max()
    for sign in (-1.0, 1.0):
        side = np.array((sign, 1.0))
        socket = disc((who.eye_x - 0.02, -0.10), who.eye_w * 0.95, 0.07) * side
        canvas.shadow(socket, 0.20 + 0.06 * who.maturity, "form")
        inner = disc((0.135, -0.03), 0.045, 0.09) * side
        canvas.shadow(inner, 0.22, "fold")
        temple = disc((who.face_w * 0.98, 0.05), 0.10, 0.55) * side
        canvas.shadow(temple, 0.22, "form")
        jaw = smooth(np.array([(who.face_w * 0.96, 0.25), (who.jaw_w * 1.02, chin * 0.75),
                               (who.chin_w * 1.2, chin * 0.985)])) * side  # fmt: skip
        canvas.shadow(ribbon(jaw, 0.10), 0.20, "fold")
        cheek = disc((who.eye_x + 0.08, who.nose_y + 0.02), 0.15, 0.12) * side
        canvas.blush(cheek, 0.28 - 0.10 * who.maturity)
        canvas.glow(disc((who.eye_x + 0.05, who.nose_y * 0.55), 0.11, 0.06) * side, 0.14, "form")
    canvas.glow(disc((0.0, -0.46), 0.26, 0.12), 0.12, "form")
    canvas.glow(disc((0.0, chin * 0.93), 0.09, 0.045), 0.12, "form")
    if who.stubble:
        beard = smooth(np.array([(-who.jaw_w, 0.5), (0.0, who.nose_y + 0.10), (who.jaw_w, 0.5),
                                 (who.jaw_w * 0.9, chin * 0.86), (0.0, chin), (-who.jaw_w * 0.9, chin * 0.86)]),
                       closed=True)  # fmt: skip
        canvas.shadow(beard, who.stubble * 0.8, "fold")


def _paint_eye(canvas: Canvas, who: Identity, eye: Eye) -> None:
    """Paint eyeball, iris, lids and lashes."""
    lid = _tone(who.skin, 0.80)
    opening = eye.opening
    with canvas.within(opening):
        canvas.fill(opening, _WHITE)
        x, y = eye.iris
        canvas.fill(disc((x, y), who.iris_r * 1.06, who.iris_r * 1.06), _tone(who.iris, 0.55), 0.02)
        canvas.fill(disc((x, y), who.iris_r * 0.90, who.iris_r * 0.90), who.iris, 0.02)
        canvas.fill(disc((x, y + 0.022), who.iris_r * 0.6, who.iris_r * 0.5), _tone(who.iris, 1.35), 0.02)
        canvas.fill(disc((x, y), who.iris_r * 0.45, who.iris_r * 0.45), (14, 12, 14), 0.02)
        canvas.fill(disc((x - 0.022, y - 0.026), 0.018, 0.018), (252, 252, 252), 0.04)
        canvas.line(eye.upper + (0, 0.012), (150, 138, 134), 0.026)  # the lid's own shadow
    canvas.line(eye.lower, lid, 0.012)
    lash = 0.030 if who.gender == "female" and who.maturity > 0.5 else 0.024
    share = np.linspace(0, 1, len(eye.upper))
    canvas.fill(ribbon(eye.upper, lash * (0.45 + 0.75 * share)), _tone(who.brow, 0.38))
    canvas.shadow(tapered(eye.crease, 0.022), 0.42, "line")
    canvas.shadow(ribbon(eye.lower + (0, 0.018), 0.025), 0.16, "fold")


def _paint_brows(canvas: Canvas, who: Identity, face: Face) -> None:
    for brow, line in zip(face.brows, face.brow_lines, strict=True):
        with canvas.within(brow, 0.90):
            canvas.fill(brow, who.brow)
            for share in (0.12, 0.3, 0.48, 0.66, 0.84):
                place = line[int(share * (len(line) - 1))]
                out = np.sign(place[0])
                hair = np.array([place + (-0.02 * out, 0.035), place + (0.035 * out, -0.035)])
                canvas.line(hair, _tone(who.brow, 0.78), 0.010)
        canvas.shadow(brow + (0, 0.035), 0.16, "fold")


def _paint_nose(canvas: Canvas, who: Identity, face: Face) -> None:
    tip_y = face.nose_tip[1]
    lift = 0.05
    for sign, wing in zip((-1.0, 1.0), face.wings, strict=True):
        side = np.array((sign, 1.0))
        flank = smooth(np.array([(0.075, 0.02), (0.075, tip_y * 0.6), (who.nose_w * 0.9, tip_y)]))
        canvas.shadow(ribbon(flank * side, 0.05), 0.20, "fold", lift)
        canvas.shadow(tapered(wing, 0.032), 0.50, "line", lift)
        nostril = disc((who.nose_w * 0.46 * sign, tip_y + 0.042), who.nose_w * 0.24, 0.017)
        canvas.fill(nostril, _tone(who.skin, 0.36), lift)
    shade = [(-who.nose_w, tip_y + 0.045), (0.0, tip_y + 0.03), (who.nose_w, tip_y + 0.045),
             (who.nose_w * 0.6, tip_y + 0.085), (-who.nose_w * 0.6, tip_y + 0.085)]  # fmt: skip
    canvas.shadow(np.array(shade), 0.36, "fold", lift)
    canvas.glow(disc((0.0, tip_y - 0.015), 0.040, 0.030), 0.30, "fold", 0.10)
    canvas.glow(ribbon(np.array([(0.0, 0.0), (0.0, tip_y - 0.05)]), 0.035), 0.20, "fold", 0.08)


def _paint_mouth(canvas: Canvas, who: Identity, mouth: Mouth) -> None:
    lips_up = np.concatenate((mouth.upper_outer, mouth.upper_inner[::-1]))
    lips_low = np.concatenate((mouth.lower_inner, mouth.lower_outer[::-1]))
    if mouth.gap > 0.012:
        _paint_inside(canvas, mouth)
    canvas.fill(lips_up, _tone(who.lip, 0.88))
    canvas.fill(lips_low, who.lip)
    if mouth.gap <= 0.03:
        canvas.fill(tapered(mouth.upper_inner, 0.024), _tone(who.lip, 0.36))
    low_middle = mouth.lower_outer[len(mouth.lower_outer) // 2]
    inner_middle = mouth.lower_inner[len(mouth.lower_inner) // 2]
    shine = disc((float(low_middle[0]), float((low_middle[1] + inner_middle[1]) / 2)), 0.07, 0.012)
    canvas.glow(shine, 0.22, "fold")
    below = disc((0.0, float(low_middle[1]) + 0.040), 0.11, 0.020)
    canvas.shadow(below, 0.30, "fold")
    top = mouth.upper_outer[len(mouth.upper_outer) // 2]
    philtrum = np.array([(0.0, who.nose_y + 0.04), (0.0, float(top[1]) - 0.01)])
    canvas.shadow(ribbon(philtrum, 0.035), 0.16, "fold")


def _paint_inside(canvas: Canvas, mouth: Mouth) -> None:
    """Paint teeth and tongue between the lips."""
    inside = np.concatenate((mouth.upper_inner, mouth.lower_inner[::-1]))
    with canvas.within(inside):
        canvas.fill(inside, (62, 20, 24))
        floor = mouth.lower_inner[len(mouth.lower_inner) // 2]
        canvas.fill(disc((0.0, float(floor[1])), 0.12, mouth.gap * 0.32), (158, 74, 78))
        teeth = min(0.085, mouth.gap * 0.62)
        band = np.concatenate((mouth.upper_inner - (0, 0.02), (mouth.upper_inner + (0, teeth))[::-1]))
        canvas.fill(band, (232, 226, 214))


def _lay_creases(canvas: Canvas, face: Face) -> None:
    for furrow in face.furrows.values():
        canvas.shadow(furrow.outline, 0.46 * furrow.strength, "line")
        canvas.shadow(furrow.outline, 0.30 * furrow.strength, "fold")
    for bulge in face.bulges.values():
        canvas.glow(bulge.outline - (0, 0.02), 0.26 * bulge.strength, "form")
        canvas.blush(bulge.outline, 0.30 * bulge.strength)


def _paint_glasses(canvas: Canvas, who: Identity) -> None:
    colour = _tone(who.hair, 0.45) if who.parting > 0 else _DARK
    lenses = []
    angles = np.linspace(0, 2 * np.pi, 40)
    for sign in (-1.0, 1.0):
        round_x = np.sign(np.cos(angles)) * np.abs(np.cos(angles)) ** 0.75
        round_y = np.sign(np.sin(angles)) * np.abs(np.sin(angles)) ** 0.75
        rim = np.stack(
            (sign * who.eye_x + 0.245 * who.glasses * round_x, 0.01 + 0.165 * round_y), axis=1
        )
        lenses.append(rim)
        canvas.line(rim, colour, 0.026)
        temple = np.array([(sign * (who.eye_x + 0.235 * who.glasses), -0.05),
                           (sign * who.face_w * 0.99, -0.06)])  # fmt: skip
        canvas.line(temple, colour, 0.030)
        gleam = np.array([(-0.14, -0.11), (-0.06, -0.11), (-0.13, 0.08), (-0.19, 0.06)])
        with canvas.within(gleam + (sign * who.eye_x, 0.0), 0.16):
            canvas.fill(rim, (255, 255, 255))
    bridge = smooth(np.array([(-who.eye_x + 0.24, -0.02), (0.0, -0.055), (who.eye_x - 0.24, -0.02)]))
    canvas.line(bridge, colour, 0.026)


def _develop(canvas: Canvas, who: Identity, face: Face, scene: Scene) -> np.ndarray:
    """Light the painting and expose it like a photograph."""
    skin = cv2.GaussianBlur(canvas.mask(face.outline), (0, 0), 0.8).astype(np.float32) / 255
    hair = cv2.GaussianBlur(canvas.mask(hair_outline(who)), (0, 0), 0.8).astype(np.float32) / 255
    picture = canvas.finish(skin * (1 - hair))
    picture *= _lambert(canvas, scene)[:, :, None]
    picture *= scene.exposure * np.array((1 + scene.warmth, 1.0, 1 - scene.warmth), np.float32)
    grain = np.random.Generator(np.random.SFC64(scene.noise_seed))
    side = canvas.size_px
    picture += grain.standard_normal((side, side, 1), np.float32) * scene.noise_sd
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _lambert(canvas: Canvas, scene: Scene) -> np.ndarray:
    """Return the light that falls on a head-like ellipsoid, `(H, W)` float32 around 1."""
    coarse = 48
    ticks = (np.arange(coarse) + 0.5) * canvas.size_px / coarse
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    place = canvas.pose.face_units(grid) / (1.05, 1.45)
    normal = 0.9 * place / np.sqrt(1 + (place**2).sum(axis=1))[:, None]  # flattens out far away
    front = np.sqrt(np.maximum(1 - (normal**2).sum(axis=1), 0))
    light = np.array((scene.light_side, scene.light_height, 1.0))
    light = light / np.linalg.norm(light)
    lit = normal[:, 0] * light[0] + normal[:, 1] * light[1] + front * light[2]
    share = 1 - scene.light_share + scene.light_share * 1.25 * np.maximum(lit, 0)
    small = share.reshape(coarse, coarse).astype(np.float32)
    side = (canvas.size_px, canvas.size_px)
    return np.asarray(cv2.resize(small, side, interpolation=cv2.INTER_LINEAR), np.float32)


def _tone(colour: Colour, share: float) -> Colour:
    red, green, blue = (min(value * share, 255.0) for value in colour)
    return red, green, blue
