"""Draws the parts that are visible when eyes and mouth are open: eyeballs, irises, mouth cavity, teeth and tongue.

The parts are drawn once per speaker. Colours are RGB float32, 0..1. RGBA layers are premultiplied.
"""

from __future__ import annotations

import numpy as np

from embedded_corpus.geometry import gauss, lip_line, mouth_centre, smoothstep
from embedded_corpus.identity import Identity
from embedded_corpus.skin import iris_colour

IRIS_RADIUS = 0.060  # units; the diameter is 12 mm, as in all adults


def bake_behind(p: Identity, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3): the eyeballs without irises, and the cavity of the mouth with the upper teeth."""
    r = np.hypot((np.abs(x) - p.eye_x) / 0.155, (y - p.eye_y) / 0.125)
    white = np.array([0.90, 0.87, 0.85], np.float32) * (1 - 0.06 * p.melanin)
    far_side = 0.10 * (x > 0) * np.clip((np.abs(x) - p.eye_x) / 0.155, 0, 1)
    ball = white * (1.03 - 0.50 * np.clip(r, 0, 1.3) ** 2.2 - far_side)[..., None]
    corner = np.exp(-(((np.abs(x) - p.eye_x + p.eye_width) / 0.026) ** 2))
    ball = ball * (1 - corner[..., None] * np.array([0.10, 0.40, 0.38], np.float32))
    depth = 0.85 - 0.5 * gauss(x, y, 0, mouth_centre(p) + 0.06, 0.20, 0.12)
    cavity = np.array([0.30, 0.085, 0.075], np.float32) * depth[..., None]
    out = np.where((y > p.eye_y + 0.2)[..., None], cavity, ball)
    line = float(lip_line(p, np.zeros(1))[0])
    teeth, cover = _teeth(x, y - (line + 0.008), rng, upper=True)
    cover = (cover * (y > p.eye_y + 0.3))[..., None]
    return out * (1 - cover) + teeth * cover


def bake_tongue(p: Identity, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 4): the tongue and the lower teeth, at the positions that they have when the mouth is shut."""
    y = y - float(lip_line(p, np.zeros(1))[0])
    bulge = gauss(x, y, 0, 0.125, 0.17, 0.085) ** 0.5
    cover = smoothstep(bulge, 0.50, 0.60)
    tone = 0.45 + 0.75 * bulge - 0.18 * np.exp(-((x / 0.016) ** 2))
    colour = np.array([0.66, 0.29, 0.28], np.float32) * tone[..., None]
    teeth, teeth_cover = _teeth(x, y - 0.070, rng, upper=False)
    keep = cover * (1 - teeth_cover)
    rgb = colour * keep[..., None] + 0.86 * teeth * teeth_cover[..., None]
    return np.dstack([rgb, keep + teeth_cover])


def bake_iris(p: Identity, res: float, rng: np.random.Generator) -> np.ndarray:
    """(2k+1, 2k+1, 4): an iris with fibres, a dark edge and the pupil, at `res` pixels per unit."""
    k = round(1.25 * IRIS_RADIUS * res)
    y, x = np.mgrid[-k : k + 1, -k : k + 1].astype(np.float32) / res
    r, angle = np.hypot(x, y) / IRIS_RADIUS, np.arctan2(y, x)
    fibre = sum(np.sin(angle * n + rng.uniform(0, 6.3)) * rng.uniform(0.3, 1) for n in (9, 17, 23, 31, 43))
    tone = 0.80 + 0.10 * fibre * smoothstep(r, 0.3, 0.6) + 0.45 * np.clip(y / IRIS_RADIUS, -0.5, 1)
    tone = tone * (1 - 0.70 * smoothstep(r, 0.78, 1.0)) * smoothstep(r, 0.36, 0.44)
    edge = 1.0 / (IRIS_RADIUS * res)
    cover = smoothstep(r, 1 + edge, 1 - edge)
    return np.dstack([iris_colour(p) * (tone * cover)[..., None], cover])


def _teeth(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, upper: bool) -> tuple[np.ndarray, np.ndarray]:
    """(RGB, alpha) of a row of teeth whose biting edge is at y = 0."""
    wide, height = (0.085 if upper else 0.058), 0.105
    place = np.abs(x) / wide
    tooth = place - np.floor(place)
    v = -(y + 0.16 * x**2) * (1 if upper else -1)
    edge = 0.006 * (np.floor(place) == 1) + 0.012 * np.clip(np.abs(tooth - 0.5) - 0.30, 0, 1)
    gap = 1 - 0.55 * np.exp(-((np.minimum(tooth, 1 - tooth) / 0.06) ** 2))
    tone = np.array([0.93, 0.90, 0.83], np.float32) * rng.uniform(0.95, 1.02)
    shade = gap * (1.0 - 1.9 * np.abs(x) ** 1.3) * (0.86 + 0.14 * smoothstep(v, 0.0, 0.05))
    gum = smoothstep(v, height - 0.012, height + 0.002)[..., None]
    rgb = tone * shade[..., None] * (1 - gum) + np.array([0.62, 0.30, 0.30], np.float32) * gum
    alpha = smoothstep(v, edge - 0.006, edge + 0.006) * smoothstep(v, height + 0.06, height + 0.03)
    return rgb.astype(np.float32), (alpha * smoothstep(np.abs(x), 0.30, 0.25)).astype(np.float32)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Converts an image of floats in 0..1 to contiguous uint8."""
    return np.ascontiguousarray(np.clip(np.rint(image * 255), 0, 255).astype(np.uint8))
