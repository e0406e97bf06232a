"""What is around a face, the light on it, and how the finished painting is exposed."""

from dataclasses import dataclass

import cv2
import numpy as np

from tasks.draw.canvas import Canvas

_COARSE = 48  # light changes slowly: it is computed on this grid and enlarged


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
    base = rng.uniform(50, 210) + rng.normal(0, 17, 3)
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


def paint_backdrop(canvas: Canvas, scene: Scene) -> None:
    """Paint an even or blotchy wall, out of focus."""
    side = canvas.paint.shape[0]
    small = cv2.resize(scene.backdrop, (64, 64), interpolation=cv2.INTER_CUBIC)
    small = np.clip(small, 0, 255).astype(np.uint8)
    canvas.paint[:] = cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)


def develop(
    canvas: Canvas, scene: Scene, face_outline: np.ndarray, hair_outline: np.ndarray
) -> np.ndarray:
    """Light the painting and expose it like a photograph.

    Parameters
    ----------
    canvas
        The painting with its soft light and shadow.
    scene
        Light, exposure and grain.
    face_outline, hair_outline
        `(n, 2)` in face units; soft light and shadow show on the face where no hair covers it.

    Returns
    -------
    numpy.ndarray
        `(H, W, 3)` uint8 RGB.
    """
    skin, hair = (
        cv2.GaussianBlur(canvas.mask(outline), (0, 0), 0.8).astype(np.float32) / 255
        for outline in (face_outline, hair_outline)
    )
    picture = canvas.finish(skin * (1 - hair))
    balance = np.array((1 + scene.warmth, 1.0, 1 - scene.warmth), np.float32)
    picture *= _fallen_light(canvas, scene)[:, :, None] * (scene.exposure * balance)
    grain = np.random.Generator(np.random.SFC64(scene.noise_seed))
    noise = grain.standard_normal(picture.shape[:2], np.float32) * np.float32(scene.noise_sd)
    picture += noise[:, :, None]
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _fallen_light(canvas: Canvas, scene: Scene) -> np.ndarray:
    """Return the light that falls on a head-like ellipsoid, `(H, W)` float32 around 1."""
    ticks = (np.arange(_COARSE) + 0.5) * canvas.size_px / _COARSE
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    place = canvas.pose.face_units(grid) / (1.05, 1.45)
    normal = 0.9 * place / np.sqrt(1 + (place**2).sum(axis=1))[:, None]  # flattens out far away
    front = np.sqrt(np.maximum(1 - (normal**2).sum(axis=1), 0))
    light = np.array((scene.light_side, scene.light_height, 1.0))
    light = light / np.linalg.norm(light)
    lit = np.maximum(normal @ light[:2] + front * light[2], 0)
    share = 1 - scene.light_share + scene.light_share * 1.25 * lit
    small = share.reshape(_COARSE, _COARSE).astype(np.float32)
    side = (canvas.size_px, canvas.size_px)
    return np.asarray(cv2.resize(small, side, interpolation=cv2.INTER_LINEAR), np.float32)
