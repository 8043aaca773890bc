"""Draws hair, glasses and clothes once per speaker, as layers in front of, behind and below the bare head.

The hair is a shaded shape with thousands of anti-aliased strands. The direction of the strands depends on the style of
the hair. One unit of length is 100 mm (see identity.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from embedded_corpus.geometry import HEAD_BOX, gauss, grid, half_width, smoothstep
from embedded_corpus.identity import Identity
from embedded_corpus.skin import fractal, hair_colour, skin_colour, strokes

# Extent of two textures, units: the body (neck and shoulders), and the hair behind the body.
BODY_BOX = (-2.6, -1.6, 2.6, 2.7)


@dataclass(frozen=True)
class _Style:
    volume: float  # hair beyond the skull at the top
    side: float  # hair beyond the skull at the sides
    bottom: float  # y of the lower end of the hair at the sides
    back: float  # y of the lower end of the hair behind the head; below -1: no hair behind


_STYLES = {
    "bald": _Style(0.0, 0.0, -0.2, -2.0),
    "crop": _Style(0.035, 0.015, 0.02, -2.0),
    "short": _Style(0.13, 0.05, 0.10, -2.0),
    "swept": _Style(0.22, 0.07, 0.08, -2.0),
    "curly": _Style(0.30, 0.26, 0.25, 0.55),
    "long": _Style(0.12, 0.13, 1.46, 2.3),
    "bob": _Style(0.13, 0.17, 0.92, 0.95),
    "fringe": _Style(0.12, 0.13, 1.40, 1.75),
    "bun": _Style(0.06, 0.02, -0.10, -2.0),
}


def hairline(p: Identity, x: np.ndarray) -> np.ndarray:
    """y of the lower edge of the hair on the forehead."""
    style = p.styles["hair"]
    t = np.abs(x) / p.face_width
    line = p.hairline_y + 0.05 * np.cos(9 * x)
    if style == "fringe":
        return np.full_like(x, p.eye_y - p.brow_gap - 0.055) + 0.05 * (t - 0.3) ** 2 + 0.012 * np.sin(31 * x)
    if style in ("long", "bob"):  # the hair falls to both sides of a parting
        part = 0.18 * (1 if p.seed % 2 else -1)
        far = np.abs(x - part) / p.face_width
        return p.hairline_y - 0.10 + 0.95 * np.clip(far - 0.05, 0, 2) ** 1.7
    if style == "swept":
        return line - 0.04 + 0.55 * np.clip(t - 0.45, 0, 1) ** 1.2 + 0.05 * x / p.face_width
    return line + 0.55 * np.clip(t - 0.55, 0, 1) ** 1.1


def hair_mask(p: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Approximate signed distance, units, to the edge of the hair in front of the head. Positive inside the hair."""
    s = _STYLES[p.styles["hair"]]
    if p.styles["hair"] == "bald":
        return np.full_like(x, -1.0)
    high = np.clip((-0.2 - y) / 0.9, 0, 1)
    # The hair has the outline of an enlarged skull. So the width of the hair at a height y is the width of the skull at
    # a height that is nearer to `centre`.
    grow = s.side + (s.volume - s.side) * high
    scale = 1 + grow / 0.9
    centre = -0.25
    skull = half_width(p, np.where(y < centre, centre + (y - centre) / scale, np.minimum(y, 0.1)))
    outer = skull + s.side * smoothstep(skull, 0.0, 0.35)
    if p.styles["hair"] in ("long", "fringe", "bob"):
        outer = np.where(y > 0, outer * (1 + (0.10 if p.styles["hair"] != "bob" else 0.14) * np.clip(y, 0, 0.9)), outer)
    inside = outer - np.abs(x) - 0.05 * (skull <= 0)
    face_side = half_width(p, np.minimum(y, 0.55)) - 0.055 - 0.03 * np.clip(y, 0, 1)
    front = np.maximum(hairline(p, x) - y, np.abs(x) - face_side)
    if p.styles["hair"] in ("crop", "short", "swept", "bun"):  # sideburns in front of the ears only
        front = np.maximum(hairline(p, x) - y, np.abs(x) - half_width(p, y) + 0.075)
    return np.minimum(np.minimum(inside, front), s.bottom - y)


def bake_hair(p: Identity, res: float) -> tuple[np.ndarray, np.ndarray]:
    """(RGB (H, W, 3), alpha (H, W)) float32 of the hair in front of the head. The pictures cover HEAD_BOX."""
    x, y = grid(HEAD_BOX, res)
    style = p.styles["hair"]
    rng = np.random.default_rng(p.seed + 1)
    if style == "bald":
        return np.zeros((*x.shape, 3), np.float32), np.zeros(x.shape, np.float32)
    inside = hair_mask(p, x, y)
    ragged = 0.012 * fractal(rng, x.shape, 60, 3) * (3.0 if style == "curly" else 1.0)
    alpha = smoothstep(inside + ragged, -0.004, {"crop": 0.10, "short": 0.035}.get(style, 0.022))
    if style == "crop":
        alpha = alpha * 0.92
    if style == "bun":
        top = np.sqrt((x / 0.30) ** 2 + ((y + 1.36) / 0.24) ** 2)
        alpha = np.maximum(alpha, smoothstep(top + 0.4 * ragged, 1.02, 0.96))
    colour = hair_colour(p)
    light = 0.62 + 0.40 * smoothstep(x, 0.9, -0.7) - 0.25 * smoothstep(y, -0.5, 1.2)
    ring = np.exp(-(((y + 0.98 - 0.25 * x**2 + 0.02 * np.sin(17 * x)) / 0.11) ** 2))
    edge = smoothstep(inside, 0.0, 0.13)
    shade = light * (0.55 + 0.45 * edge) + 0.34 * ring
    rgb = np.clip(colour[None, None] * shade[..., None] + 0.05 * ring[..., None], 0, 1).astype(np.float32)
    image = np.dstack([rgb * 255, alpha * 255]).astype(np.uint8)
    curves, keep = _strands(p, rng)
    pixels = (curves - np.array([HEAD_BOX[0], HEAD_BOX[1]])) * res
    h, w = alpha.shape
    at = np.clip(pixels.astype(int), 0, [w - 1, h - 1])
    mid = at[:, at.shape[1] // 2]
    spread = 0.18 if style == "crop" else 0.47
    tone = shade[mid[:, 1], mid[:, 0]] * (1.0 + spread * rng.uniform(-1, 1.05, len(curves)))
    colours = np.clip(colour[None] * tone[:, None] + 0.05 * np.clip(tone - 0.8, 0, 1)[:, None], 0, 1) * 255
    cover = alpha[at[..., 1], at[..., 0]].mean(1)
    colours = np.column_stack([colours, np.full(len(curves), 255.0)])
    good = keep & (cover > (0.25 if style == "crop" else 0.55))
    width = np.where(rng.random(len(curves)) < 0.3, 2, 1) * max(1, round(res / 380))
    strokes(image, pixels[good], colours[good], width[good])
    soft = image[..., 3].astype(np.float32) / 255
    if style == "crop":
        soft = np.minimum(soft, alpha * 0.95 + 0.03)
    return image[..., :3].astype(np.float32) / 255, soft


def _strands(p: Identity, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(strands as curves (N, K, 2), units; keep (N,) bool, True for strands that start in the hair).

    Each hair style has a formula for the direction of the strands.
    """
    style = p.styles["hair"]
    n, steps = (7000, 9) if style != "crop" else (14000, 3)
    x0 = rng.uniform(-1.15, 1.15, n)
    y0 = rng.uniform(-1.62, 1.46, n)
    keep = hair_mask(p, x0.astype(np.float32), y0.astype(np.float32)) > -0.01
    if style == "bun":
        keep |= (x0 / 0.30) ** 2 + ((y0 + 1.36) / 0.24) ** 2 < 1
    step = {"crop": 0.010, "curly": 0.020, "short": 0.022}.get(style, 0.035)
    step_n = step * rng.uniform(0.7, 1.3, n)
    turn = rng.choice([-1.0, 1.0], n) * rng.uniform(0.4, 0.9, n)
    start = rng.uniform(0, 2 * np.pi, n)
    wob = rng.normal(0, 0.12, n)
    part = 0.18 * (1 if p.seed % 2 else -1)
    lean = 0.7 * (1 if p.seed % 2 else -1)
    points = [np.stack([x0, y0], -1)]
    for k in range(steps):
        x, y = points[-1].T
        if style == "curly":
            angle = start + turn * k
        elif style in ("crop", "short"):
            angle = np.arctan2(-1.0 + 1.1 * np.clip(y + 0.6, 0, 2), 0.9 * x + 0.25 * lean) + 2 * wob
        elif style == "swept":
            angle = np.arctan2(-0.75 - 0.3 * x * lean + 0.9 * np.clip(y + 0.7, 0, 2), lean + 0.4 * x) + wob
        elif style == "bun":
            angle = np.arctan2(-1.30 - y, -x + 1e-3) + wob * 0.5
            angle = np.where((x / 0.30) ** 2 + ((y + 1.36) / 0.24) ** 2 < 1, np.arctan2(-x, y + 1.36) + wob, angle)
        elif style == "fringe":
            angle = np.arctan2(1.0, 0.55 * x + 0.03 * np.sin(8 * x)) + wob * 0.7
        else:
            far = x - part
            fall = np.clip((y + 1.15) / 0.55, 0.05, 1.0) + np.clip(np.abs(far) - 0.45, 0, 1)
            wave = 0.16 * np.sin(7 * y + 3 * np.sign(far)) * (y > -0.4)
            angle = np.arctan2(fall, np.sign(far) * (1.15 - np.clip(fall, 0, 1.15)) + wave) + wob * 0.6
        points.append(points[-1] + step_n[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1))
    return np.stack(points, 1), keep


def bake_body(p: Identity, res: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(RGB of the body, alpha of the body, RGB of the hair behind the body, alpha of the hair): float32 in BODY_BOX."""
    x, y = grid(BODY_BOX, res)
    rng = np.random.default_rng(p.seed + 2)
    neck = (0.40 if p.female else 0.53) * (p.face_width / 0.68) ** 0.8
    flare = 0.035 / np.maximum(0.05, 1.52 - y) ** 1.0
    half = neck + np.where(y > 0.9, np.clip(flare - 0.055, 0, 0.30), 0)
    shoulder = (
        1.34 + 0.30 * np.abs(x) ** 1.6 * (0.55 if p.female else 0.45) + 0.9 * np.clip(np.abs(x) - 1.45, 0, 1) ** 2
    )
    alpha = np.maximum(
        smoothstep(half - np.abs(x), -1 / res, 1 / res) * (y > 0.25), smoothstep(y - shoulder, -1 / res, 1 / res)
    )
    alpha *= smoothstep((2.10 if not p.female else 1.85) - np.abs(x) + 0.12 * (y - 1.6) ** 2, -0.02, 0.02)
    u = np.clip(x / np.maximum(half, 0.1), -1, 1)
    shade = 0.50 + 0.36 * np.sqrt(np.clip(1 - u**2, 0, 1)) - 0.16 * u
    shade *= 0.50 + 0.50 * smoothstep(y - 0.50 * x**2, p.chin_y - 0.02, p.chin_y + 0.62)  # the chin's shadow
    for side in (-1, 1):  # the two muscles at the sides of the neck
        cord = np.exp(-(((x - side * (0.30 - 0.20 * (y - 0.9))) / 0.06) ** 2)) * smoothstep(y, 0.95, 1.25)
        shade *= 1 + 0.10 * cord * (1 if side < 0 else 0.7)
    tone = skin_colour(p) * np.array([0.96, 0.90, 0.88], np.float32)
    rgb = tone * shade[..., None]
    # Clothes: a round or V-shaped collar, folds and the texture of the cloth.
    hue = np.array(
        [[int(p.clothes * 179), 110 + int(90 * ((p.clothes * 7) % 1)), 60 + int(130 * ((p.clothes * 13) % 1))]],
        np.uint8,
    )
    cloth = cv2.cvtColor(hue[None], cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32) / 255
    collar = (
        1.40
        + (0.20 if not p.female else 0.34) * np.exp(-((x / 0.42) ** 2))
        + (0.25 * np.clip(0.30 - np.abs(x), 0, 1) if p.seed % 3 else 0)
    )
    on = smoothstep(y - collar, -0.008, 0.008)
    folds = fractal(rng, x.shape, 5, 4)
    lit = (
        0.80
        + 0.10 * folds
        - 0.20 * x / 1.8
        - 0.22 * smoothstep(np.abs(x), 0.9, 2.0)
        + 0.02 * rng.standard_normal(x.shape)
    )
    hem = np.exp(-(((y - collar - 0.045) / 0.022) ** 2))
    shadow = 1 - 0.35 * np.exp(-(np.clip(y - collar, 0, 2) / 0.05)) * (y > collar)
    wear = cloth * np.clip(lit * shadow - 0.18 * hem, 0.05, 1.4)[..., None]
    rgb = rgb * (1 - on)[..., None] + wear * on[..., None]
    behind, cover = _hair_behind(p, x, y, rng)
    return np.clip(rgb, 0, 1).astype(np.float32), alpha.astype(np.float32), behind, cover


def _hair_behind(p: Identity, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    s = _STYLES[p.styles["hair"]]
    if s.back < -1:
        return np.zeros((*x.shape, 3), np.float32), np.zeros(x.shape, np.float32)
    wide = p.face_width + s.side + 0.02
    limit = wide * (1 + 0.12 * np.clip(y, 0, 1.2)) * np.sqrt(np.clip(1 - np.clip((-0.2 - y) / 1.0, 0, 1) ** 2, 0, 1))
    inside = np.minimum(limit - np.abs(x), s.back - 0.25 * np.abs(x) - y) + 0.02 * fractal(rng, x.shape, 40, 3)
    wisps = fractal(rng, (8, x.shape[1]), 8, 1)[:1] + 0.35 * rng.standard_normal((1, x.shape[1])).astype(np.float32)
    shade = np.clip(0.42 + 0.10 * wisps - 0.10 * smoothstep(np.abs(x), 0.8, 0.3), 0.12, 0.8) * np.ones_like(y)
    return (hair_colour(p) * shade[..., None]).astype(np.float32), smoothstep(inside, 0.0, 0.03).astype(np.float32)


def bake_glasses(p: Identity, res: float) -> tuple[np.ndarray, np.ndarray] | None:
    """(RGB, alpha) float32 in HEAD_BOX: the frame, and a weak reflection on the lenses. None without glasses."""
    style = p.styles["glasses"]
    if style == "none":
        return None
    x, y = grid(HEAD_BOX, res)
    u = (np.abs(x) - p.eye_x - 0.015) / (0.225 if style == "round" else 0.245)
    v = (y - p.eye_y - 0.03) / (0.20 if style == "round" else 0.165)
    power = 2.1 if style == "round" else 4.5
    r = (np.abs(u) ** power + np.abs(v) ** power) ** (1 / power)
    thick = 0.055 if style == "round" else 0.13
    edge = 1 / (0.2 * res)
    rim = smoothstep(r, 1 - edge, 1 + edge) * smoothstep(r, 1 + thick + edge, 1 + thick - edge)
    bridge = smoothstep(
        np.abs(y - p.eye_y + 0.01 + 0.06 * np.cos(np.pi * x / 0.2)), thick * 0.16 + 0.008, thick * 0.16
    ) * (np.abs(x) < p.eye_x - 0.19)
    arm = (
        smoothstep(np.abs(y - p.eye_y + 0.035), 0.030, 0.020)
        * (np.abs(x) > p.eye_x + 0.24)
        * (np.abs(x) < p.face_width)
    )
    frame = np.clip(np.maximum.reduce([rim, bridge * (r > 1), arm * (r > 1)]), 0, 1)
    colour = (
        np.array([0.62, 0.50, 0.26], np.float32) if style == "round" else np.array([0.055, 0.045, 0.05], np.float32)
    )
    shine = (
        0.65
        + 0.5 * smoothstep(y, p.eye_y + 0.2, p.eye_y - 0.2)
        + 0.4 * np.exp(-(((r - 1 - thick / 2) / (thick / 4)) ** 2))
    )
    gleam = 0.10 * np.exp(-(((u + 0.6 * v + 0.55) / 0.16) ** 2)) * (r < 1)
    gleam = gleam + 0.035 * (r < 1) * gauss(u, v, -0.2, -0.6, 1.0, 0.5)
    alpha = np.maximum(frame, gleam)
    tone = np.where((frame > gleam)[..., None], colour * shine[..., None], np.float32(0.95))
    return np.clip(tone, 0, 1).astype(np.float32), alpha.astype(np.float32)
