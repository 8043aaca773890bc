"""Defines the rig of a face: one displacement field per action, and the inverse of a displacement.

An action is a movement of the face such as "jaw" or "brow_down". The slits are the lines of the shut mouth and of the
shut eyes. Each action has two displacement fields: one field for the skin above a slit and one field for the skin below
the slit. Far from the slits, the two fields are equal. Along a slit, the two fields differ, so the skin opens at the
slit, and eyeballs, teeth or tongue become visible. Displacements are in units of 100 mm for a weight of 1.
"""

from __future__ import annotations

import cv2
import numpy as np

from embedded_corpus.geometry import both, brow_line, gauss, lid_line, lip_line, mouth_centre, smoothstep
from embedded_corpus.identity import Identity

FACE_BOX = (-0.82, -0.80, 0.82, 1.34)  # extent of everything that moves, units
ACTIONS = (
    "jaw", "open", "wide", "round", "press", "upper_raise", "lower_drop", "tuck", "chin_raise",
    "corner_up_l", "corner_up_r", "corner_down_l", "corner_down_r",
    "nose_wrinkle", "cheek_raise",
    "brow_inner_up", "brow_outer_up_l", "brow_outer_up_r", "brow_down",
    "eye_l", "eye_r", "lid_low",
)  # fmt: skip
ACTION_INDEX = {name: k for k, name in enumerate(ACTIONS)}
# Names of the light and dark lines that actions cause; see shade_maps.
SHADES = ("forehead", "frown", "fold", "crow", "bunny", "chin", "cheek")


Field = tuple[np.ndarray | float, np.ndarray | float]  # displacement (dx, dy) of an action with weight 1


def fields(p: Identity, x: np.ndarray, y: np.ndarray, above: bool) -> np.ndarray:
    """(len(ACTIONS), 2, ...) displacements (dx, dy) of the points x, y by each action.

    `above` selects the field: True for the skin above the nearest slit, False for the skin below it.
    """
    out = np.zeros((len(ACTIONS), 2, *x.shape), np.float32)
    parts = (_lips(p, x, y, above), _sides(p, x, y), _lids(p, x, y, above), _cheeks_and_nose(p, x, y), _brows(p, x, y))
    for part in parts:
        for name, (dx, dy) in part.items():
            out[ACTION_INDEX[name], 0] = dx
            out[ACTION_INDEX[name], 1] = dy
    return out


def _lips(p: Identity, x: np.ndarray, y: np.ndarray, above: bool) -> dict[str, Field]:
    """The actions of jaw, chin and lips. `_sides` has the actions of the lip corners."""
    mw, my, sub, chin = p.mouth_width, mouth_centre(p), p.nose_y, p.chin_y
    line = lip_line(p, x)
    t = np.abs(x) / mw
    slit = np.clip(1 - t**2, 0, 1) ** 0.75
    lip_zone = np.exp(-(((y - my) / 0.17) ** 2)) * np.exp(-((t / 1.45) ** 4))
    # follow_up is the share by which the skin above the mouth follows the upper lip. follow_low is the share by which
    # the skin below the mouth follows the lower lip. On the other side of the slit, each share decreases slowly, so
    # that the field can be inverted. The decrease ends before the next slit.
    follow_up = smoothstep(y, sub - 0.03, my - 0.06) * smoothstep(y, my + 0.28, my + 0.04)
    follow_low = smoothstep(y, chin - 0.02, my + p.lip_lower) * smoothstep(y, my - 0.38, my - 0.02)
    mouth = slit * (follow_up if above else follow_low)
    drop = smoothstep(y, sub - 0.02, chin - 0.10) * np.exp(-((np.abs(x) / 0.75) ** 4))
    roll = np.clip((y - line) / 0.09, -1.4, 1.4) * np.exp(-(((y - line) / 0.13) ** 2)) * np.exp(-((t / 0.9) ** 4))
    raised = -0.045 * np.exp(-((t / 0.75) ** 4)) * follow_up * above - 0.012 * both(x, y, 0.18, sub - 0.04, 0.09, 0.07)
    lowered = 0.045 * np.exp(-((t / 0.85) ** 4)) * follow_low * (not above)
    tucked = -0.030 * roll * (y > line) - 0.020 * gauss(x, y, 0, my + 0.09, 0.2, 0.08) * (not above)
    chin_up = -0.035 * gauss(x, y, 0, my + 0.5 * (chin - my), 0.22, 0.13) - 0.016 * gauss(x, y, 0, my, 0.18, 0.09)
    return {
        "jaw": (-0.06 * 0.1 * x * drop, 0.1 * drop),
        "open": (0.0, (-0.025 if above else 0.075) * mouth),
        "wide": (0.20 * x * lip_zone, -0.010 * both(x, y, mw, my, 0.1, 0.1)),
        "round": (-0.30 * x * lip_zone, 0.006 * roll),
        "press": (0.0, -0.034 * roll * (1 + 0.4 * (p.lip_lower - 0.08) / 0.05)),
        "upper_raise": (0.0, raised),
        "lower_drop": (0.0, lowered),
        "tuck": (0.0, tucked),
        "chin_raise": (0.0, chin_up),
    }


def _sides(p: Identity, x: np.ndarray, y: np.ndarray) -> dict[str, Field]:
    """Actions that move one side of the face: the lip corners and the outer brows."""
    mw, my = p.mouth_width, mouth_centre(p)
    brow_y = float(brow_line(p, np.array([0.36]))[0])
    out: dict[str, Field] = {}
    for name, sign in (("l", -1), ("r", 1)):
        at = gauss(x, y, sign * mw * 1.02, my, 0.12, 0.115)
        cheek = gauss(x, y, sign * 0.37, my - 0.24, 0.17, 0.15)
        down = 0.062 * gauss(x, y, sign * mw * 1.0, my + 0.01, 0.11, 0.10)
        out[f"corner_up_{name}"] = (sign * (0.042 * at + 0.012 * cheek), -0.074 * at - 0.030 * cheek)
        out[f"corner_down_{name}"] = (sign * 0.008 * at, down)
        out[f"brow_outer_up_{name}"] = (0.0, -0.070 * gauss(x, y, sign * 0.36, brow_y, 0.17, 0.125))
    return out


def _lids(p: Identity, x: np.ndarray, y: np.ndarray, above: bool) -> dict[str, Field]:
    """The actions of the eyelids: the opening of each eye, and the movement of the lower lids."""
    lid = lid_line(p, x)
    out: dict[str, Field] = {}
    for name, sign in (("l", -1), ("r", 1)):
        on = x * sign > 0
        across = (np.abs(x) - p.eye_x) / p.eye_width
        shape = np.clip(1 - (across + 0.07 * (1 - across**2)) ** 2, 0, 1) ** 0.62 * on
        if above:
            near, far = smoothstep(y, lid - 0.165, lid - 0.030), smoothstep(y, lid + 0.25, lid + 0.02)
            move = -0.88 * p.eye_open * shape * near * far
        else:
            move = 0.12 * p.eye_open * shape * smoothstep(y, lid + 0.10, lid) * smoothstep(y, lid - 0.20, lid - 0.02)
        out[f"eye_{name}"] = (0.0, move)
    low = -0.26 * p.eye_open * both(x, y, p.eye_x, p.eye_y + 0.05, 0.15, 0.075) * (0.0 if above else 1.0)
    out["lid_low"] = (0.0, low - 0.010 * both(x, y, p.eye_x, p.eye_y + 0.13, 0.15, 0.05))
    return out


def _cheeks_and_nose(p: Identity, x: np.ndarray, y: np.ndarray) -> dict[str, Field]:
    side, sub = np.sign(x), p.nose_y
    cheek = (
        0.006 * side * both(x, y, 0.36, p.eye_y + 0.24, 0.18, 0.11),
        -0.036 * both(x, y, 0.34, p.eye_y + 0.26, 0.20, 0.11),
    )
    sneer = -0.034 * both(x, y, 0.13, sub - 0.07, 0.13, 0.12) + 0.012 * both(x, y, 0.10, p.eye_y - 0.12, 0.10, 0.08)
    return {
        "cheek_raise": cheek,
        "nose_wrinkle": (0.010 * side * both(x, y, p.nose_width, sub - 0.05, 0.07, 0.08), sneer),
    }


def _brows(p: Identity, x: np.ndarray, y: np.ndarray) -> dict[str, Field]:
    """The actions of the brows: the inner brows are raised, or both brows are lowered."""
    side = np.sign(x)
    inner = float(brow_line(p, np.array([0.14]))[0])
    down = 0.052 * both(x, y, 0.14, inner, 0.17, 0.095) + 0.022 * both(x, y, 0.36, inner, 0.16, 0.09)
    return {
        "brow_inner_up": (
            -0.008 * side * both(x, y, 0.13, inner, 0.10, 0.10),
            -0.072 * both(x, y, 0.115, inner, 0.125, 0.13),
        ),
        "brow_down": (-0.026 * side * both(x, y, 0.16, inner, 0.13, 0.09), down),
    }


def shade_maps(p: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(len(SHADES), H, W) float32: change of brightness (-1..1) by each crease or shade at a weight of 1."""
    my, mw, ey = mouth_centre(p), p.mouth_width, p.eye_y
    brow = float(brow_line(p, np.array([0.2]))[0])

    def crease(at: np.ndarray, width: float) -> np.ndarray:
        """A dark line with a light edge on its far side."""
        return -np.exp(-((at / width) ** 2)) + 0.45 * np.exp(-(((at - 1.7 * width) / width) ** 2))

    rows = [crease(y - (brow - 0.11 - 0.085 * k) + 0.10 * x**2 + 0.006 * np.sin(23 * x + k), 0.012) for k in range(3)]
    forehead = 0.30 * sum(rows) * gauss(x, y, 0, brow - 0.2, 0.33, 0.17)
    frown = 0.42 * crease(np.abs(x) - 0.045 - 0.05 * (y - brow), 0.013) * gauss(x, y, 0, brow + 0.01, 0.11, 0.085)
    frown = frown - 0.16 * both(x, y, 0.13, brow + 0.075, 0.12, 0.04)
    top, low = p.nose_y - 0.08, my + 0.07
    t = np.clip((y - top) / (low - top), -0.2, 1.2)
    at = np.abs(x) - ((p.nose_width + 0.03) * (1 - t) + (mw + 0.10) * t + 0.05 * np.sin(np.pi * np.clip(t, 0, 1)))
    fold = 0.42 * crease(at, 0.022) * smoothstep(t, -0.05, 0.2) * smoothstep(t, 1.15, 0.75)
    out = np.abs(x) - p.eye_x - p.eye_width - 0.03
    rays = sum(crease(y - ey - k * 0.03 - (0.15 + 0.5 * k) * out * 0.6, 0.007) for k in (-1, 0, 1))
    crow = 0.26 * rays * smoothstep(out, 0.0, 0.03) * smoothstep(out, 0.13, 0.04)
    under = 0.22 * crease(y - lid_line(p, x) - 0.055, 0.011) * smoothstep(np.abs(np.abs(x) - p.eye_x), 0.16, 0.08)
    bunny = (
        0.32
        * sum(crease(y - ey - 0.05 - 0.035 * k + 0.5 * (np.abs(x) - 0.06), 0.008) for k in (0, 1))
        * both(x, y, 0.065, ey + 0.07, 0.04, 0.06)
    )
    dimple = np.sin(x * 120 + 3 * np.sin(y * 90)) * np.sin(y * 130) * gauss(x, y, 0, p.chin_y - 0.16, 0.11, 0.07)
    chin = 0.16 * dimple + 0.28 * crease(y - (my + p.lip_lower + 0.045) + 0.3 * x**2, 0.02) * gauss(
        x, y, 0, my + 0.15, 0.16, 0.1
    )
    cheek = 0.12 * both(x, y, 0.37, my - 0.30, 0.13, 0.09) - 0.10 * both(x, y, 0.44, my - 0.10, 0.10, 0.12)
    return np.stack([forehead, frown, fold, crow + under, bunny, chin, cheek]).astype(np.float32)


def shade_weights(w: np.ndarray) -> np.ndarray:
    """Weights of SHADES from the weights of ACTIONS."""
    a = {name: float(w[k]) for name, k in ACTION_INDEX.items()}
    up = (a["corner_up_l"] + a["corner_up_r"]) / 2
    brows = (a["brow_inner_up"] + 0.5 * (a["brow_outer_up_l"] + a["brow_outer_up_r"])) / 2
    values = (
        brows - 0.7 * a["brow_down"],
        a["brow_down"] + 0.25 * a["brow_inner_up"],
        up + 0.8 * a["nose_wrinkle"] + 0.5 * a["upper_raise"],
        a["cheek_raise"] + 0.4 * up + 0.3 * a["lid_low"],
        a["nose_wrinkle"],
        a["chin_raise"] + 0.3 * (a["corner_down_l"] + a["corner_down_r"]),
        up + 0.5 * a["cheek_raise"],
    )
    return np.clip(np.array(values, np.float32), 0, 1.6)


def invert(
    field: np.ndarray, gx: np.ndarray, gy: np.ndarray, box: tuple[float, float, float, float], rounds: int
) -> np.ndarray:
    """Texture coordinates (h, w, 2) of the points (gx, gy) of the moved face: solves c + field(c) = (gx, gy) for c.

    `field` is (h, w, 2) on the same regular grid over `box`. The equation is solved by fixed-point iteration: each step
    sets c to (gx, gy) - field(c). Every other step is damped, because the iteration without damping does not converge
    where the skin is stretched most, for example at the corners of an open smile.
    """
    h, w = gx.shape
    sx, sy = w / (box[2] - box[0]), h / (box[3] - box[1])
    target = np.dstack([gx, gy])
    at = target
    for k in range(rounds):
        mx = (at[..., 0] - box[0]) * sx - 0.5
        my = (at[..., 1] - box[1]) * sy - 0.5
        moved = cv2.remap(field, mx, my, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        at = target - moved if k % 2 else at + np.float32(0.55) * (target - moved - at)
    return at


def above_mask(p: Identity, x: np.ndarray, y: np.ndarray, res: float) -> np.ndarray:
    """A mask in 0..1: 1 for skin above the slit of an eye or of the mouth, 0 for skin below the slit.

    Above a certain height, the slits of the eyes count, and below this height, the slit of the mouth counts. At this
    height, the fields of the skin above and below a slit are equal.
    """
    split = p.eye_y + 0.16
    eyes = np.clip((lid_line(p, x) - y) * res + 0.5, 0, 1)
    mouth = np.clip((lip_line(p, x) - y) * res + 0.5, 0, 1)
    return np.where(y < split, eyes, mouth).astype(np.float32)


def landmarks(p: Identity) -> tuple[np.ndarray, np.ndarray]:
    """(points (5, 2) at rest; above (5,) bool, True for points above a slit).

    The points are the middle of the upper and of the lower inner lip, the left and the right lip corner, and the chin.
    """
    mid = float(lip_line(p, np.zeros(1))[0])
    at = float(lip_line(p, np.array([p.mouth_width]))[0])
    points = np.array([[0, mid], [0, mid], [-p.mouth_width, at], [p.mouth_width, at], [0, p.chin_y]], np.float32)
    return points, np.array([True, False, True, True, False])
