"""Draws the skin of a head at rest, once per speaker: colour, light, pores, freckles, brows, lids, lips, beard.

At rest, mouth and eyes are shut. When mouth or eyes open, the texture is separated along the lines of the lips or lids
(see rig.py). Colours are RGB float32, 0..1.
"""

from __future__ import annotations

import cv2
import numpy as np

from embedded_corpus.geometry import (
    HEAD_BOX,
    both,
    brow_line,
    gauss,
    grid,
    half_width,
    height_field,
    lid_line,
    lip_edges,
    lip_line,
    mouth_centre,
    smoothstep,
)
from embedded_corpus.identity import Identity

# Colours of skin in neutral light, from light to dark skin, sRGB.
_SKIN = (
    np.array(
        [[250, 218, 198], [240, 197, 168], [223, 172, 135], [193, 138, 98], [146, 96, 64], [100, 63, 44], [66, 42, 32]],
        np.float32,
    )
    / 255
)
_IRIS = (
    np.array([[58, 34, 20], [92, 58, 30], [112, 98, 52], [88, 116, 92], [84, 124, 156], [128, 158, 178]], np.float32)
    / 255
)
LIGHT = np.array([-0.42, -0.50, 0.76], np.float32)  # the key light of all speakers, from the upper left


def ramp(colours: np.ndarray, at: float) -> np.ndarray:
    """The colour at position `at`, 0 to 1, interpolated in a table of equally spaced colours."""
    k = np.clip(at, 0, 1) * (len(colours) - 1)
    low = min(int(k), len(colours) - 2)
    return colours[low] + (k - low) * (colours[low + 1] - colours[low])


def skin_colour(person: Identity) -> np.ndarray:
    """(3,) RGB colour of the speaker's skin in neutral light."""
    tint = np.array([0.035, -0.020, -0.025], np.float32) * (person.redness - 0.4)
    return np.clip(ramp(_SKIN, person.melanin) + tint, 0.02, 1)


def iris_colour(person: Identity) -> np.ndarray:
    """(3,) RGB colour of the speaker's irises."""
    return ramp(_IRIS, person.iris)


def hair_colour(person: Identity) -> np.ndarray:
    """(3,) RGB colour of the speaker's hair."""
    dark, red = person.hair_dark, person.hair_red
    light = np.array([0.80, 0.65, 0.42], np.float32)
    brown = np.array([0.36, 0.22, 0.13], np.float32)
    black = np.array([0.055, 0.045, 0.045], np.float32)
    colour = (
        light + (brown - light) * min(dark / 0.5, 1.0) if dark < 0.5 else brown + (black - brown) * (dark - 0.5) * 2
    )
    copper = np.array([0.62, 0.26, 0.10], np.float32)
    colour = colour + (copper - colour) * 0.75 * red * (1 - max(dark - 0.6, 0) * 2)
    grey = np.array([0.74, 0.74, 0.75], np.float32)
    return np.clip(colour + (grey - colour) * 0.85 * person.hair_grey, 0, 1)


def fractal(rng: np.random.Generator, shape: tuple[int, int], cells: float, octaves: int) -> np.ndarray:
    """Smooth noise with a variance of about 1. The coarsest octave has `cells` cells over the height."""
    total = np.zeros(shape, np.float32)
    weight = 0.0
    for k in range(octaves):
        n = max(2, round(cells * 2**k))
        m = max(2, round(n * shape[1] / shape[0]))
        if n > shape[0]:
            break
        layer = rng.standard_normal((n, m)).astype(np.float32)
        total += cv2.resize(layer, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC) * 0.6**k
        weight += 0.36**k
    return total / np.sqrt(weight)


def strokes(image: np.ndarray, curves: np.ndarray, colours: np.ndarray, thickness: np.ndarray) -> None:
    """Draws N anti-aliased curves (N, K, 2), px, with colours (N, C), onto a uint8 image in the order of the array."""
    points = np.round(curves * 16).astype(np.int32)
    for curve, colour, width in zip(points, colours.tolist(), thickness.tolist(), strict=True):
        cv2.polylines(image, [curve], False, colour, int(width), cv2.LINE_AA, 4)


def _wide_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur. With a large sigma, a smaller copy is blurred: this takes a tenth of the time, error below 1 %."""
    shrink = max(1, int(sigma / 5))
    if shrink == 1:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    size = (image.shape[1] // shrink, image.shape[0] // shrink)
    small = cv2.GaussianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (0, 0), sigma / shrink)
    return cv2.resize(small, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)


def light_skin(z: np.ndarray, res: float, person: Identity) -> tuple[np.ndarray, np.ndarray]:
    """(diffuse light (H, W, 3), specular light (H, W)) on the height field `z`.

    The light model has a soft key light, a fill light, occlusion, and red light that scatters in the skin.
    """
    zs = cv2.GaussianBlur(z, (0, 0), 0.010 * res)
    gy, gx = np.gradient(zs * res)
    norm = 1 / np.sqrt(gx**2 + gy**2 + 1)
    normal = np.stack([-gx * norm, -gy * norm, norm], -1)
    key = LIGHT / np.linalg.norm(LIGHT)
    facing = normal @ key
    wrap = np.clip((facing + 0.35) / 1.35, 0, 1) ** 1.3
    fill = np.clip(normal @ np.array([0.75, -0.1, 0.65], np.float32), 0, 1)
    sky = 0.5 - 0.5 * normal[..., 1]
    hollow = sum(
        k * (_wide_blur(zs, size * res) - zs) / size for size, k in ((0.025, 0.22), (0.07, 0.45), (0.16, 0.30))
    )
    occlusion = np.clip(1 - 0.95 * np.clip(hollow, -0.1, 1), 0.50, 1.08)
    bounce = np.clip(normal @ np.array([0.0, 0.70, 0.71], np.float32), 0, 1)  # light from the clothes and the floor
    shade = (0.70 * wrap + 0.18 * fill + 0.14 * sky + 0.17 * bounce) * occlusion
    soft = [
        cv2.GaussianBlur(shade, (0, 0), s * res) for s in (0.022, 0.010, 0.006)
    ]  # red light travels farthest in skin
    diffuse = np.stack([0.35 * shade + 0.65 * s for s in soft], -1)
    half = key + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    shine = np.clip(normal @ half, 0, 1)
    specular = (0.16 * shine**18 + 0.14 * shine**70) * np.clip(occlusion, 0, 1)
    return diffuse.astype(np.float32), specular.astype(np.float32)


def bake_skin(person: Identity, res: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(RGB (H, W, 3), alpha (H, W), z (H, W)) of the bare head in HEAD_BOX at `res` pixels per unit, float32."""
    p = person
    x, y = grid(HEAD_BOX, res)
    rng = np.random.default_rng(p.seed)
    z = height_field(p, x, y)
    pores = fractal(rng, x.shape, 130, 3)
    z_lit = z + 0.0007 * pores * (0.6 + 0.8 * p.age) + 0.0007 * fractal(rng, x.shape, 25, 2)
    z_lit = z_lit - _wrinkles(p, x, y)
    diffuse, specular = light_skin(z_lit, res, p)
    albedo = _albedo(p, x, y, rng)
    lips = _lip_mask(p, x, y)
    t_zone = 0.7 + 0.6 * gauss(x, y, 0, 0.1, 0.16, 0.5) + 0.4 * gauss(x, y, 0, -0.5, 0.4, 0.2) + 1.0 * lips
    rgb = albedo * (0.10 + 1.06 * diffuse) + (specular * t_zone * (0.75 + 0.5 * p.melanin))[..., None]
    width = half_width(p, y)
    inside = (width - np.abs(x)) * res * 0.8 + 0.5
    alpha = np.clip(inside, 0, 1) * (width > 0.02)
    rim = smoothstep((width - np.abs(x)) / np.maximum(width, 0.05), 0.0, 0.10)
    rgb = rgb * (0.72 + 0.28 * rim)[..., None]
    rgb, alpha = _ears(p, x, y, rgb, alpha, res)
    rgb = _line_work(p, x, y, rgb, rng, res)
    image = np.clip(rgb * 255, 0, 255).astype(np.uint8)
    _stroke_work(p, image, rng, res)
    return image.astype(np.float32) / 255, alpha.astype(np.float32), z


def _lip_mask(p: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    upper, lower = lip_edges(p, x)
    return smoothstep(y - upper, -0.008, 0.012) * smoothstep(lower - y, -0.010, 0.014) * (np.abs(x) < p.mouth_width)


def _albedo(p: Identity, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colour of the unlit skin: red cheeks, nose and lips, dark eyelids, irregular spots, freckles, shaved beard."""
    colour = np.broadcast_to(skin_colour(p), (*x.shape, 3)).astype(np.float32).copy()
    mouth = mouth_centre(p)
    blush = 0.9 * both(x, y, 0.40, 0.22, 0.22, 0.17) + 0.8 * gauss(x, y, 0, p.nose_y - 0.08, 0.13, 0.12)
    blush = (blush + 0.35 * gauss(x, y, 0, p.chin_y - 0.1, 0.25, 0.12)) * (0.35 + 0.75 * p.redness)
    amount = 1 - 0.6 * p.melanin
    colour *= 1 - amount * blush[..., None] * np.array([0.015, 0.13, 0.11], np.float32)
    socket = both(x, y, p.eye_x, p.eye_y + 0.0, 0.17, 0.10) + 0.6 * p.age * both(
        x, y, p.eye_x - 0.02, p.eye_y + 0.12, 0.13, 0.05
    )
    colour *= 1 - socket[..., None] * np.array([0.10, 0.17, 0.14], np.float32) * (0.6 + 0.5 * p.melanin)
    if p.female:  # a little eye shadow on the lids
        lid = both(x, y, p.eye_x + 0.02, p.eye_y - 0.045, 0.15, 0.055)
        colour *= 1 - lid[..., None] * np.array([0.16, 0.22, 0.16], np.float32) * p.lip_red
    blotch = fractal(rng, x.shape, 9, 4)
    colour *= 1 + blotch[..., None] * np.array([0.012, 0.022, 0.020], np.float32)
    if p.freckles > 0.45 and p.melanin < 0.5:
        speck = cv2.GaussianBlur((rng.random(x.shape) > 0.9975).astype(np.float32), (0, 0), 1.6) * 12
        where = (
            both(x, y, 0.28, 0.12, 0.33, 0.22) + gauss(x, y, 0, 0.05, 0.15, 0.2) + 0.3 * gauss(x, y, 0, -0.5, 0.5, 0.2)
        )
        colour *= 1 - np.clip(speck * where * (p.freckles - 0.3), 0, 0.75)[..., None] * np.array(
            [0.30, 0.45, 0.50], np.float32
        )
    if p.styles["beard"] != "none" or not p.female:
        shadow = beard_region(p, x, y) * (0.55 if p.styles["beard"] == "stubble" else 0.16)
        colour *= 1 - shadow[..., None] * np.array([0.55, 0.50, 0.45], np.float32) * (0.3 + 0.7 * p.hair_dark)
    lips = _lip_mask(p, x, y)[..., None]
    natural = skin_colour(p) * np.array([0.86, 0.60, 0.58], np.float32)
    # Lips are lighter on dark skin, so that open lips are visible.
    natural = natural + 0.9 * p.melanin**2 * np.array([0.12, 0.05, 0.055], np.float32)
    rouge = np.array([0.66, 0.13, 0.20], np.float32) * (1 - 0.35 * p.melanin)
    strength = max(0.0, p.lip_red - 0.35) / 0.65 * 0.85 if p.female else 0.0
    tone = natural + (rouge - natural) * strength
    vertical = 1 + 0.05 * np.sin(x * 240 + 2.0 * np.sin(y * 30))[..., None]
    colour += (tone * vertical - colour) * lips * (0.80 if p.female else 0.55 + 0.4 * p.lip_red)
    line = np.exp(-(((y - lip_line(p, x)) / 0.011) ** 2)) * smoothstep(
        np.abs(x), p.mouth_width * 1.06, p.mouth_width * 0.9
    )
    colour *= 1 - 0.62 * line[..., None]
    corner = both(x, y, p.mouth_width * 1.0, mouth + 0.002, 0.035, 0.022)
    colour *= 1 - 0.35 * corner[..., None]
    nostril = both(x, y, p.nose_width * 0.44, p.nose_y - 0.018 - 0.12 * (np.abs(x) - 0.08), p.nose_width * 0.22, 0.017)
    colour *= 1 - 0.84 * np.clip(nostril * 1.2, 0, 1)[..., None]
    return colour


def _wrinkles(p: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Depth of the wrinkles on the forehead, next to and below the eyes, in units of geometry.py. It rises with age."""
    if p.age < 0.3:
        return np.zeros_like(x)
    deep = (p.age - 0.3) * 0.007
    rows = np.sin((y + 0.04 * np.cos(4 * x)) * 62) ** 8 * gauss(x, y, 0, (p.hairline_y - 0.3) / 2, 0.42, 0.13)
    feet = np.sin((y - p.eye_y + 0.5 * (np.abs(x) - 0.45)) * 75) ** 6 * both(
        x, y, p.eye_x + 0.24, p.eye_y + 0.02, 0.06, 0.08
    )
    bag = np.exp(-(((y - lid_line(p, x) - 0.085) / 0.014) ** 2)) * both(x, y, p.eye_x, p.eye_y + 0.1, 0.12, 0.1)
    return (deep * (rows + feet + 1.6 * bag)).astype(np.float32)


def beard_region(p: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A mask in 0..1 of the region where the beard of a man grows, including shaven parts."""
    mouth = mouth_centre(p)
    upper, lower = lip_edges(p, x)
    lip = smoothstep(y, p.nose_y + 0.01, p.nose_y + 0.05) * smoothstep(
        np.abs(x), p.mouth_width + 0.10, p.mouth_width + 0.02
    )
    lip = lip * smoothstep(y, mouth + 0.06, mouth - 0.02)
    cheek_line = mouth + 0.03 - 0.75 * np.clip(np.abs(x) - p.mouth_width - 0.02, 0, 1) ** 0.8
    jaw = smoothstep(y - cheek_line, 0.0, 0.10)
    style = p.styles["beard"]
    if style == "moustache":
        jaw = jaw * 0.10
    elif style == "goatee":
        jaw = jaw * smoothstep(np.abs(x), p.mouth_width + 0.10, p.mouth_width - 0.02)
    off_lips = 1 - smoothstep(y - upper, -0.02, 0.01) * smoothstep(lower - y, -0.02, 0.01) * (
        np.abs(x) < p.mouth_width * 1.02
    )
    return np.clip(np.maximum(lip, jaw), 0, 1) * off_lips


def _ears(
    p: Identity, x: np.ndarray, y: np.ndarray, rgb: np.ndarray, alpha: np.ndarray, res: float
) -> tuple[np.ndarray, np.ndarray]:
    """The head with ears drawn behind the outline of the face."""
    tall, deep = 0.27 * p.ear, 0.11 * p.ear
    cy = 0.10
    cx = half_width(p, np.full(1, cy, np.float32))[0] + 0.035 * p.ear
    u = (np.abs(x) - cx - 0.05 * (cy - y)) / deep
    v = (y - cy) / tall
    r = np.sqrt(u**2 + (v * (1 + 0.18 * np.clip(v, -1.2, 1.2))) ** 2)
    ear = np.clip((1 - r) * deep * res, 0, 1)
    side = np.where(x < 0, 1.02, 0.70)
    fold = 0.80 + 0.25 * np.exp(-(((r - 0.80) / 0.14) ** 2)) - 0.38 * np.exp(-(((r - 0.50) / 0.20) ** 2))
    tone = skin_colour(p) * np.array([0.94, 0.76, 0.72], np.float32)
    shade = tone * (side * fold)[..., None]
    out = shade * (1 - alpha)[..., None] + rgb * alpha[..., None]
    return np.where((ear > 0)[..., None], out, rgb), np.maximum(alpha, ear)


def _line_work(
    p: Identity, x: np.ndarray, y: np.ndarray, rgb: np.ndarray, rng: np.random.Generator, res: float
) -> np.ndarray:
    """Draws the line of the lashes, the fold above the eye, and the edge of the lower lid."""
    line = lid_line(p, x)
    across = (np.abs(x) - p.eye_x) / p.eye_width
    within = smoothstep(np.abs(across), 1.10, 0.92)
    up = line - y  # height above the line where the closed lids meet
    lash = (
        (0.95 if p.female else 0.72) * np.exp(-((np.clip(up - 0.004, -0.05, 1) / 0.010) ** 2)) * within * (up > -0.006)
    )
    wing = (
        0.8
        * p.female
        * np.exp(-(((up - 0.012 - 0.5 * np.clip(across - 1, 0, 1) * 0.1) / 0.008) ** 2))
        * smoothstep(across, 0.75, 0.95)
        * smoothstep(across, 1.28, 1.05)
    )
    fold_at = 0.040 + 0.02 * (1 - across**2)
    fold = p.lid_fold * 0.42 * np.exp(-(((up - fold_at) / 0.007) ** 2)) * smoothstep(np.abs(across), 1.15, 0.8)
    under = 0.20 * np.exp(-(((up + 0.010) / 0.006) ** 2)) * within
    rgb = rgb * (1 - np.clip(lash + wing, 0, 0.96) * 0.93)[..., None]
    rgb = rgb * (1 - (fold + under)[..., None] * np.array([0.72, 0.85, 0.88], np.float32))
    return rgb


def _stroke_work(p: Identity, image: np.ndarray, rng: np.random.Generator, res: float) -> None:
    """Draws the single hairs of brows and beard onto the uint8 image, in place."""
    colour = hair_colour(p)
    dark = np.clip(colour * (0.55 if p.hair_grey < 0.4 else 0.8), 0, 1)
    origin = np.array([HEAD_BOX[0], HEAD_BOX[1]], np.float32)
    for side in (-1, 1):
        n = int(420 * (p.brow_thick / 0.045) * p.brow_dense)
        s = rng.uniform(-1.05, 1.05, n)  # position along the brow, from the inner end to the outer end
        ax = p.eye_x + 0.01 + 0.205 * s
        thick = p.brow_thick * np.clip(1.15 - 0.55 * np.abs(s + 0.15) ** 1.6, 0.15, 1) * np.where(s > 0.5, 1.5 - s, 1)
        v = rng.uniform(-0.5, 0.5, n)
        ay = brow_line(p, ax) + v * thick
        angle = np.where(s < -0.6, -1.15, -0.35 + 0.45 * s) + 0.9 * v * (s > -0.6) + rng.normal(0, 0.16, n)
        length = rng.uniform(0.035, 0.065, n) * np.clip(p.brow_thick / 0.04, 0.7, 1.2)
        k = np.linspace(0, 1, 4)[None, :]
        cx = ax[:, None] + np.cos(angle)[:, None] * length[:, None] * k
        cy = ay[:, None] + np.sin(angle)[:, None] * length[:, None] * k + 0.008 * k**2
        curves = (np.stack([side * cx, cy], -1) - origin) * res
        tone = dark * rng.uniform(0.75, 1.45, (n, 1))
        under = image[
            np.clip(curves[:, 0, 1], 0, image.shape[0] - 1).astype(int),
            np.clip(curves[:, 0, 0], 0, image.shape[1] - 1).astype(int),
        ]
        mix = under + (np.clip(tone, 0, 1) * 255 - under) * (0.55 + 0.4 * p.brow_dense)
        strokes(image, curves, mix, np.full(n, max(1, round(res / 320))))
    if p.styles["beard"] in ("full", "goatee", "moustache", "stubble"):
        _beard(p, image, rng, res, colour)


def _beard(p: Identity, image: np.ndarray, rng: np.random.Generator, res: float, colour: np.ndarray) -> None:
    stubble = p.styles["beard"] == "stubble"
    n = 5200 if stubble else 9000
    ax = rng.uniform(-0.75, 0.75, n).astype(np.float32)
    ay = rng.uniform(p.nose_y, p.chin_y + 0.10, n).astype(np.float32)
    width = half_width(p, np.minimum(ay, p.chin_y - 0.03))
    where = beard_region(p, ax[None], ay[None])[0] * (np.abs(ax) < width - 0.01)
    keep = rng.random(n) < where
    keep &= ay < p.chin_y - (0.01 if stubble else 0.02)
    ax, ay = ax[keep], ay[keep]
    order = np.argsort(ay)
    ax, ay = ax[order], ay[order]
    n = len(ax)
    length = rng.uniform(0.008, 0.018, n) if stubble else rng.uniform(0.045, 0.10, n)
    on_lip = ay < mouth_centre(p) + 0.02
    angle = np.where(on_lip, np.pi / 2 - 0.9 * np.clip(ax / p.mouth_width, -1, 1), np.pi / 2 + 0.5 * ax) + rng.normal(
        0, 0.3, n
    )
    # Hairs end at the lip, because hair over the mouth would hide the opening of the mouth.
    room = np.maximum(lip_edges(p, ax)[0] - ay - 0.006, 0.006)
    length = np.where(on_lip, np.minimum(length, np.where(np.abs(ax) < p.mouth_width, room, 0.05)), length)
    k = np.linspace(0, 1, 4)[None, :]
    cx = ax[:, None] + np.cos(angle)[:, None] * length[:, None] * k
    cy = ay[:, None] + np.sin(angle)[:, None] * length[:, None] * k
    curves = (np.stack([cx, cy], -1) - np.array([HEAD_BOX[0], HEAD_BOX[1]])) * res
    light = np.clip(1.0 - 0.5 * ax / 0.7, 0.5, 1.4) * (1.15 - 0.5 * (ay - p.nose_y))
    tone = np.clip(colour * (light * rng.uniform(0.5, 1.15, n))[:, None], 0, 1) * 255
    strokes(image, curves, tone, np.full(n, max(1, round(res / 330))))
