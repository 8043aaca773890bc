"""Defines the shape of a face at rest: the outline, the lines of lips and lids, and a height field z(x, y).

The height field is used to light the skin and to rotate the head. Arrays are (H, W) float32 on a grid in units of
100 mm (see identity.py). z points to the viewer.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator

from embedded_corpus.identity import Identity

# Extent of the head texture, units. It includes the hair above and the beard below.
HEAD_BOX = (-1.30, -1.66, 1.30, 1.50)


def grid(box: tuple[float, float, float, float], res: float) -> tuple[np.ndarray, np.ndarray]:
    """(X, Y), each (H, W) float32: coordinates of the pixel centres of a box at `res` pixels per unit."""
    x0, y0, x1, y1 = box
    xs = x0 + (np.arange(round((x1 - x0) * res), dtype=np.float32) + 0.5) / res
    ys = y0 + (np.arange(round((y1 - y0) * res), dtype=np.float32) + 0.5) / res
    gx, gy = np.meshgrid(xs, ys)
    return gx.astype(np.float32), gy.astype(np.float32)


def smoothstep(value: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, and a smooth step between. If low > high, the step falls from 1 to 0."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def gauss(x: np.ndarray, y: np.ndarray, x0: float, y0: float, sx: float, sy: float) -> np.ndarray:
    """A Gaussian bump of height 1 at (x0, y0), with the standard deviations sx and sy."""
    return np.exp(-(((x - x0) / sx) ** 2) - ((y - y0) / sy) ** 2)


def both(x: np.ndarray, y: np.ndarray, x0: float, y0: float, sx: float, sy: float) -> np.ndarray:
    """A bump of height 1 at (x0, y0), and the same bump at (-x0, y0) on the other side of the face."""
    return gauss(np.abs(x), y, x0, y0, sx, sy)


def half_width(person: Identity, y: np.ndarray) -> np.ndarray:
    """Half the width of the skull and face at height y. 0 above the crown and below the chin."""
    w, crown, mid = person.face_width, -1.24, 0.06
    at = np.linspace(crown, person.chin_y, 2048)
    # The upper part is a rounded skull. The lower part is a superellipse (w / W)^b + s^a = 1, where s is 1 at the chin.
    # The exponent a is chosen so that the width at s = 0.62 is the width of the jaw.
    knots = [(-1.0, 0.0), (-0.985, 0.22), (-0.90, 0.55), (-0.74, 0.82), (-0.55, 0.965), (-0.36, 1.015), (0.0, 1.0)]
    skull = PchipInterpolator(*zip(*knots, strict=True))
    temple = 1 + (person.temple - 1) * np.exp(-(((at + 0.50) / 0.30) ** 2))
    up = w * skull(np.clip((at - mid) / (mid - crown), -1, 0)) * temple
    s = np.clip((at - mid) / (person.chin_y - mid), 0, 1)
    b = 1.45 + 2.2 * (person.chin_width - 0.17)
    a = np.log(1 - min(person.jaw_width, 0.94) ** b) / np.log(0.62)
    low = w * np.clip(1 - s**a, 0, 1) ** (1 / b)
    return np.interp(y, at, np.where(at < mid, up, low), 0.0, 0.0).astype(np.float32)


def lip_line(person: Identity, x: np.ndarray) -> np.ndarray:
    """y of the line of the closed mouth. The line has the shape of a soft M; the upper lip is lowest in the middle."""
    t = np.clip(np.abs(x) / person.mouth_width, 0, 1.3)
    return mouth_centre(person) + 0.012 * np.exp(-((t / 0.22) ** 2)) - 0.008 * np.exp(-(((t - 0.5) / 0.3) ** 2))


def mouth_centre(person: Identity) -> float:
    """y of the middle of the mouth."""
    return person.nose_y + person.mouth_y


def lip_edges(person: Identity, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(y of the upper edge of the upper lip, with Cupid's bow; y of the lower edge of the lower lip)."""
    t = np.clip(np.abs(x) / person.mouth_width, 0.0, 1.0)
    line = lip_line(person, x)
    bow = (1 - t**1.35) * (1.0 - 0.24 * np.exp(-((t / 0.15) ** 2))) + 0.10 * np.exp(-(((t - 0.24) / 0.14) ** 2))
    low = (1 - t**2.4) ** 0.9 * (1 - 0.10 * t)
    return line - person.lip_upper * bow, line + person.lip_lower * low


def lid_line(person: Identity, x: np.ndarray) -> np.ndarray:
    """y of the line of the closed eye at |x|: the arc of the lower lid, with the outer corner raised by `eye_tilt`."""
    u = np.abs(x) - person.eye_x
    t = np.clip(u / person.eye_width, -1.25, 1.25)
    return person.eye_y - person.eye_tilt * u + 0.028 * (1 - t**2)


def brow_line(person: Identity, x: np.ndarray) -> np.ndarray:
    """y of the middle line of the brow at |x|."""
    u = (np.abs(x) - person.eye_x) / 0.22
    y = person.eye_y - person.brow_gap - person.brow_tilt * 0.22 * u
    return y - person.brow_arch * (1 - (u - 0.25) ** 2)


def height_field(person: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """z of the head with nose, lips and other features, units. z is 0 at the forehead and negative towards the ears."""
    p = person
    width = np.maximum(half_width(p, y), 0.02)
    u = np.clip(np.abs(x) / width, 0, 1)
    ends = np.sqrt(np.clip(1 - np.clip((y + 0.12) / 1.16, -1, 1) ** 4, 0, 1))  # rounds the crown and the chin
    z = 0.80 * (np.sqrt(np.clip(1 - u**2.5, 0, 1)) * (0.25 + 0.75 * ends) - 1.0)
    z += 0.045 * p.brow_ridge * both(x, y, 0.27, p.eye_y - 0.13, 0.18, 0.055)
    z -= 0.095 * both(x, y, p.eye_x * 0.96, p.eye_y - 0.015, 0.185, 0.105)
    z -= 0.050 * both(x, y, 0.125, p.eye_y - 0.01, 0.055, 0.085)
    z += 0.062 * both(x, y, p.eye_x, p.eye_y + 0.002, 0.115, 0.075)
    # Nose: a ridge that rises from the root to the tip, a ball at the tip, and two wings.
    root, sub = p.eye_y - 0.10, p.nose_y
    tip = sub - 0.085
    t = np.clip((y - root) / (tip - root), 0, 1)
    rise = (0.035 + (p.nose_height - 0.035) * t**1.25) * smoothstep(y, root - 0.12, root + 0.06)
    rise *= smoothstep(y, sub + 0.030, tip + 0.002)
    side = p.nose_bridge + (0.50 * p.nose_width - 0.5 * p.nose_bridge) * t**2
    z += rise * np.exp(-((np.abs(x) / side) ** 2.2))
    z += 0.050 * gauss(x, y, 0.0, tip + 0.01, 0.075, 0.060)
    wing = smoothstep(y, sub + 0.015, sub - 0.03)
    z += 0.095 * both(x, y, 0.74 * p.nose_width, sub - 0.050, 0.058, 0.060) * wing
    # Cheeks, the area around the mouth, and the chin.
    z += 0.055 * p.cheek * both(x, y, 0.40, p.eye_y + 0.24, 0.20, 0.14)
    z -= 0.045 * p.hollow * both(x, y, 0.46, mouth_centre(p) - 0.10, 0.15, 0.20)
    mouth = mouth_centre(p)
    z += 0.070 * gauss(x, y, 0.0, mouth, 0.30, 0.22)
    z -= 0.018 * gauss(x, y, 0.0, (sub + mouth - p.lip_upper) / 2, 0.028, 0.07)
    z -= 0.045 * gauss(x, y, 0.0, mouth + p.lip_lower + 0.05, 0.15, 0.038)
    z += 0.075 * gauss(x, y, 0.0, p.chin_y - 0.13, 0.16, 0.11)
    # Lips: two rolls and the line between them.
    upper, lower = lip_edges(p, x)
    line = lip_line(p, x)
    inside = smoothstep(np.abs(x), p.mouth_width * 1.04, p.mouth_width * 0.80)
    a = np.clip((line - y) / np.maximum(line - upper, 1e-3), 0, 1)
    b = np.clip((y - line) / np.maximum(lower - line, 1e-3), 0, 1)
    z += inside * np.where(y < line, 0.040 * np.sin(np.pi * a**0.8), 0.055 * np.sin(np.pi * b**0.75))
    z -= inside * 0.030 * np.exp(-(((y - line) / 0.012) ** 2))
    # The nasolabial fold, from the wing of the nose past the corner of the mouth. The fold is deeper in older people.
    fold = fold_distance(p, x, y)
    z -= (
        (0.010 + 0.028 * p.age)
        * np.exp(-((fold / 0.030) ** 2))
        * smoothstep(y, sub - 0.11, sub)
        * smoothstep(y, mouth + 0.10, mouth - 0.05)
    )
    return z.astype(np.float32)


def fold_distance(person: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Horizontal distance to the nasolabial fold, which is a slightly curved line. Negative on the inner side."""
    top, low = person.nose_y - 0.08, mouth_centre(person) + 0.06
    t = np.clip((y - top) / (low - top), -0.2, 1.2)
    at = (
        (person.nose_width + 0.035) * (1 - t)
        + (person.mouth_width + 0.075) * t
        + 0.035 * np.sin(np.pi * np.clip(t, 0, 1))
    )
    return np.abs(x) - at
