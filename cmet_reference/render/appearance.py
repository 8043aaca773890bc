"""What landmarks leave out of an expression: how much further the picture moves than they say, and its creases.

Both are linear in the displacement of the points in the head's frame and are fitted in closed form on a training split.

*Response.* A detector that knows how faces usually look says less than it is shown: a picture whose brows were moved by
1 shows them moved by 0.7 to it. So a picture that was moved by what was detected in another falls short of it, and is
moved further instead: the response is measured on pictures that the mesh drew, and inverted.

*Creases.* The ratio of two pictures of one skin, one with an expression and one without, is the change of its light,
whatever the skin's colour (Liu, Shan, Zhang 2001, Expressive Expression Mapping with Ratio Images, sec. 3). It carries
over to other people. Its logarithm is kept on a square in which all faces lie on one another. What is one person's own
is corrected by a network that sees the skin (`skin`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Protocol

import cv2
import numpy as np

from cmet_reference.geometry import EYES, fit_pose, to_head, to_picture
from cmet_reference.render.triangles import N_SKIN, back_to_front, drawn_ids, mapped, sampled

SIDE = 128  # of the square, px
_SCALE, _DOWN = 52.0, 0.40  # px an eye distance; where the eyes' middle lies below the square's upper edge
_FINEST = 2.5 * _SCALE  # px an eye distance that the square is still sampled from; 256 px crops have 74 to 112
_SLOW = 13  # frames over which an expression's displacement is averaged for its creases: speech makes none
DARKEST = 0.6  # of the logarithm of a ratio
_LOOK = (-5, 0, 5)  # frames about one whose skin is looked at; their mean
_STEP = 6  # frames from one look to the next; the light between is interpolated
_HALF = np.array([0.5, 0.5, 0], np.float32)  # pixel centres at whole numbers
_DARK = 8.0  # grey levels added before a logarithm: noise in black is no crease


class Correction(Protocol):
    """What `skin.Skin` does."""

    def change(self, skin: np.ndarray, creases: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray: ...


class Appearance:
    """A fitted model. Implements `cmet_reference.render.mesh.Expression`."""

    def __init__(
        self, arrays: Mapping[str, np.ndarray], correction: Correction | None = None, revision: str = ""
    ) -> None:
        """Args:
        arrays: `template` (478, 3) of the head's frame; `unit` (468,), eye distances: a point's usual displacement;
            `axes` (K, 936), orthonormal, of displacements (x, y) in those units; `further` (K, K): coordinates on
            these to those the mesh must be moved by; `creases` (K, 128, 128): log ratio for each.
        correction: of the creases, from the skin at hand; without it they are everyone's.
        revision: of the files they came from.
        """
        self.template, self.unit, self.axes, self.further, self.creases = (
            np.asarray(arrays[name], np.float32) for name in ("template", "unit", "axes", "further", "creases")
        )
        self.correction, self.revision = correction, revision

    @cached_property
    def square(self) -> Square:
        """Where the creases' pixels lie on a face."""
        return Square(self.template)

    def coordinates(self, displacement: np.ndarray) -> np.ndarray:
        """(T, 468, 2 or 3) in the head's frame to (T, K)."""
        flat = displacement[..., :2] / self.unit[:, None]
        return np.asarray(flat.reshape(len(flat), -1) @ self.axes.T)

    def expression(self, head: np.ndarray) -> np.ndarray:
        """(T, 478, 3) in the head's frame to (T, K), coordinates from the template, averaged over half a second."""
        return _slow(self.coordinates((head - self.template)[:, :N_SKIN]))

    def ratio(self, way: np.ndarray) -> np.ndarray:
        """Everyone's creases, the light's log ratio: (N, K), from one expression to another, to (N, 128, 128)."""
        return np.asarray(np.tensordot(way, self.creases, 1).clip(-DARKEST, DARKEST))

    def look(self, frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """The mean skin of some frames, (128, 128): (N, H, W, 3) uint8 RGB and (N, 478, 3) px."""
        return self.square.image(self.square.skin(frames, landmarks))

    def moved(self, target: np.ndarray, base: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Expression`; the square has 128 px."""
        pose = fit_pose(target, self.template)
        points, before = to_head(target, pose), to_head(base, fit_pose(base, self.template))
        source, wanted = self.expression(before), self.expression(points)
        if self.correction:
            keys = np.unique([*range(0, len(target), _STEP), len(target) - 1])
            skins = np.stack([self.look(frames[at], base[at]) for at in (about(t, len(base)) for t in keys)])
            creases = self.ratio((wanted - source)[keys])
            light = _between(self.correction.change(skins, creases, source[keys], wanted[keys]), keys)
        else:
            light = self.ratio(wanted - source)
        z = self.coordinates((points - before)[:, :N_SKIN])
        more = (z @ self.further - z) @ self.axes
        points[:, :N_SKIN, :2] += more.reshape(len(z), N_SKIN, 2) * self.unit[:, None]
        return to_picture(points, pose), np.exp(light)

    def lit(self, picture: np.ndarray, points: np.ndarray, light: np.ndarray) -> np.ndarray:
        """See `Expression`."""
        order = back_to_front(points)
        height, width = picture.shape[:2]
        ids = drawn_ids(points[order][..., :2], height, width)
        y, x = np.nonzero(ids)
        where = order[ids[y, x] - 1]
        place = mapped(np.stack([x, y], 1).astype(np.float32), points[where][..., :2], self.square.points[where])
        at = np.full((height, width, 2), -2 * SIDE, np.float32)
        at[y, x] = place
        change = cv2.remap(light - 1, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return np.asarray(np.clip(np.round(picture * (1 + change[..., None])), 0, 255).astype(np.uint8))


def about(t: int, n: int) -> np.ndarray:
    """(3,): the frames whose skin is looked at for frame t of n."""
    return np.clip(t + np.array(_LOOK), 0, n - 1)


def _slow(track: np.ndarray) -> np.ndarray:
    """(T, K) averaged over half a second; the ends are held."""
    held = np.pad(track, ((_SLOW // 2, _SLOW // 2), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(held, _SLOW, axis=0).mean(-1)


def _between(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(N, ...) at the indices `keys`, the first 0, to (T, ...), T one more than the last: straight from key to key."""
    t = np.arange(keys[-1] + 1)
    after = np.searchsorted(keys, t).clip(1) if len(keys) > 1 else np.zeros(1, int)
    share = ((t - keys[after - 1]) / np.maximum(keys[after] - keys[after - 1], 1)).astype(np.float32)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(values[after - 1] * (1 - share) + values[after] * share)


class Square:
    """The square that all faces are laid on: the template's face, seen from the front."""

    def __init__(self, template: np.ndarray) -> None:
        self.points = (template[:N_SKIN, :2] * _SCALE + SIDE * np.array([0.5, _DOWN])).astype(np.float32)
        order = back_to_front(template)
        ids = drawn_ids(self.points[order], SIDE, SIDE)
        self.y, self.x = np.nonzero(ids)
        self._where = order[ids[self.y, self.x] - 1]
        self._at = np.stack([self.x, self.y], 1).astype(np.float32)
        inside = cv2.erode((ids > 0).astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.float32)
        soft = cv2.GaussianBlur(inside, (0, 0), 2.0) * (ids > 0)
        self.edge = soft[self.y, self.x]  # (P,) 1 on the face, 0 at its edge and at the openings

    def __len__(self) -> int:
        return len(self.x)

    def image(self, values: np.ndarray) -> np.ndarray:
        """(P,) to (128, 128), 0 off the face."""
        out = np.zeros((SIDE, SIDE), np.float32)
        out[self.y, self.x] = values
        return out

    def skin(self, frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """(P,) mean `brightness` of some frames: (N, H, W, 3) uint8 RGB and (N, 478, 3) px."""
        points = landmarks[:, :N_SKIN] - _HALF
        return np.asarray(np.mean([self.brightness(p, q) for p, q in zip(frames, points, strict=True)], axis=0))

    def brightness(self, picture: np.ndarray, points: np.ndarray) -> np.ndarray:
        """(P,) natural logarithm of a picture's grey (H, W, 3 uint8 RGB), the face's points (468, 2 or 3) in px whose
        centres are whole numbers."""
        points = points[:, :2]
        eyes = float(np.linalg.norm(points[EYES[0]] - points[EYES[1]]))
        if eyes > _FINEST:  # every third pixel alone would be noise
            old = np.array(picture.shape[1::-1])
            new = np.maximum(1, np.round(old * (_FINEST / eyes)).astype(int))
            picture = cv2.resize(picture, (int(new[0]), int(new[1])), interpolation=cv2.INTER_AREA)
            points = (points + 0.5) * (new / old) - 0.5
        corners = points[self._where].astype(np.float32)
        grid = np.zeros((SIDE, SIDE, 2), np.float32)
        grid[self.y, self.x] = mapped(self._at, self.points[self._where], corners)
        grey = cv2.cvtColor(sampled(picture, grid, cv2.INTER_LINEAR), cv2.COLOR_RGB2GRAY)
        return np.log(grey[self.y, self.x].astype(np.float32) + _DARK)
