"""Background, light and exposure of an image."""

from dataclasses import dataclass

import cv2
import numpy as np

from tasks.draw.canvas import Canvas

_GRID = 48  # the light varies slowly, so it is computed on this grid and enlarged


@dataclass(frozen=True)
class Scene:
    """Background, light and exposure of one image.

    Attributes
    ----------
    backdrop
        `(8, 8, 3)` float32 RGB, enlarged behind the head.
    light_side, light_height
        Direction of the light, from -1 (left, above) to 1.
    light_share
        Share of directed light, 0 to 1.
    exposure, warmth
        Brightness factor, and relative excess of red over green and of green over blue.
    noise_sd
        Grain in gray levels.
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
    """Sample the background, light and exposure of an image."""
    base = rng.uniform(50, 210) + rng.normal(0, 17, 3)
    end = np.clip(base + rng.normal(0, 35, 3), 20, 240)
    ramp = np.linspace(0, 1, 8)[:, None, None]
    blotches = rng.normal(0, rng.uniform(0, 14), (8, 8, 1))
    return Scene(
        backdrop=np.clip(base + (end - base) * ramp + blotches, 5, 250).astype(np.float32),
        light_side=float(rng.uniform(-0.8, 0.8)),
        light_height=float(rng.uniform(-0.9, -0.2)),
        light_share=float(rng.uniform(0.12, 0.38)),
        exposure=float(rng.uniform(0.82, 1.12)),
        warmth=float(rng.normal(0, 0.03)),
        noise_sd=float(rng.uniform(0.8, 3.5)),
        noise_seed=int(rng.integers(1 << 32)),
    )


def paint_backdrop(canvas: Canvas, scene: Scene) -> None:
    """Paint a blurred wall, plain or blotchy."""
    side = canvas.paint.shape[0]
    small = cv2.resize(scene.backdrop, (64, 64), interpolation=cv2.INTER_CUBIC)
    small = np.clip(small, 0, 255).astype(np.uint8)
    canvas.paint[:] = cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)


def develop(
    canvas: Canvas, scene: Scene, face_outline: np.ndarray, hair_outline: np.ndarray
) -> np.ndarray:
    """Apply light, exposure and grain; return `(H, W, 3)` uint8 RGB.

    Soft light and shadow apply to the face where no hair covers it. The outlines are `(n, 2)`
    points in face units.
    """
    skin, hair = (
        cv2.GaussianBlur(canvas.mask(outline), (0, 0), 0.8).astype(np.float32) / 255
        for outline in (face_outline, hair_outline)
    )
    image = canvas.finish(skin * (1 - hair))
    balance = np.array((1 + scene.warmth, 1.0, 1 - scene.warmth), np.float32)
    image *= _illumination(canvas, scene)[:, :, None] * (scene.exposure * balance)
    rng = np.random.Generator(np.random.SFC64(scene.noise_seed))
    noise = rng.standard_normal(image.shape[:2], np.float32) * np.float32(scene.noise_sd)
    image += noise[:, :, None]
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _illumination(canvas: Canvas, scene: Scene) -> np.ndarray:
    """Return the illumination of a head-like ellipsoid, `(H, W)` float32 around 1."""
    ticks = (np.arange(_GRID) + 0.5) * canvas.size_px / _GRID
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    points = canvas.pose.face_units(grid) / (1.05, 1.45)
    normal = 0.9 * points / np.sqrt(1 + (points**2).sum(axis=1))[:, None]  # flattens out far away
    front = np.sqrt(np.maximum(1 - (normal**2).sum(axis=1), 0))
    light = np.array((scene.light_side, scene.light_height, 1.0))
    light = light / np.linalg.norm(light)
    lit = np.maximum(normal @ light[:2] + front * light[2], 0)
    share = 1 - scene.light_share + scene.light_share * 1.25 * lit
    small = share.reshape(_GRID, _GRID).astype(np.float32)
    side = (canvas.size_px, canvas.size_px)
    return np.asarray(cv2.resize(small, side, interpolation=cv2.INTER_LINEAR), np.float32)
