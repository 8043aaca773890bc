"""The appearance model of the mesh renderer corrects two effects of an expression that landmarks do not describe.

The first effect is the response of the landmark detector, and the second effect is the creases of the skin. The model
of each effect is linear in the displacement of the points in the head's frame. The models are fitted in closed form on
a training split.

*Response.* A landmark detector expects typical faces and underestimates motion. For example, if the brows in a picture
move by 1 px, the detector finds a motion of 0.7 px. Therefore a picture that is warped by the difference of detected
landmarks moves too little. The response is measured on pictures that the mesh renderer drew. The inverse of the
response enlarges the motion.

*Creases.* The ratio of two pictures of the same skin, with and without an expression, is the change of the light on the
skin. This ratio does not depend on the colour of the skin and can be transferred to other people (Liu, Shan, Zhang
2001, Expressive Expression Mapping with Ratio Images, sec. 3). The logarithm of the ratio is stored on a square, onto
which all faces are aligned. The module `skin` has a network that corrects the creases for the skin of one person.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Protocol

import cv2
import numpy as np

from cmet_reference.geometry import EYES, fit_pose, to_head, to_picture
from cmet_reference.render.triangles import N_SKIN, Drawn, back_to_front, draw, sampled

SIDE = 128  # side of the square, px
_SCALE, _DOWN = (
    52.0,
    0.40,
)  # px per eye distance; distance of the eyes from the upper edge of the square, as a share of the side
# Pictures with more px per eye distance are scaled down before sampling. Crops of 256 px have 74 to 112.
_FINEST = 2.5 * _SCALE
_SLOW = 13  # frames over which a displacement is averaged for the creases; this removes speech, which causes no creases
DARKEST = 0.6  # greatest absolute log ratio
_LOOK = (-5, 0, 5)  # the skin of a frame is the mean over three frames at these offsets from the frame
_STEP = 6  # the light is computed for every sixth frame, and interpolated between these frames
_HALF = np.array([0.5, 0.5, 0], np.float32)  # subtracted from landmarks, so that pixel centres are whole numbers
_DARK = 8.0  # grey levels that are added before the logarithm, against noise in black regions


class Correction(Protocol):
    """The interface of `skin.Skin`."""

    def change(self, skin: np.ndarray, creases: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray: ...


class Appearance:
    """A fitted appearance model. Implements `cmet_reference.render.mesh.Expression`."""

    def __init__(
        self, arrays: Mapping[str, np.ndarray], correction: Correction | None = None, revision: str = ""
    ) -> None:
        """Args:
        arrays: the fitted arrays:
            `template` (478, 3): mean face in the head's frame.
            `unit` (468,): typical size of each point's displacement, in eye distances.
            `axes` (K, 936): orthonormal axes of displacements (x, y), which are divided by `unit`.
            `further` (K, K): the map from coordinates on these axes to the coordinates by which the mesh must move.
            `creases` (K, 128, 128): log ratio of the light per unit of each coordinate.
        correction: corrects the creases for the skin in the picture; None: use the mean creases of all people.
        revision: revision of the checkpoints.
        """
        self.template, self.unit, self.axes, self.further, self.creases = (
            np.asarray(arrays[name], np.float32) for name in ("template", "unit", "axes", "further", "creases")
        )
        self.correction, self.revision = correction, revision

    @cached_property
    def square(self) -> Square:
        """The square onto which faces are aligned."""
        return Square(self.template)

    def coordinates(self, displacement: np.ndarray) -> np.ndarray:
        """The coordinates of displacements on the axes, (T, K), from (T, 468, 2 or 3) in the head's frame."""
        flat = displacement[..., :2] / self.unit[:, None]
        return np.asarray(flat.reshape(len(flat), -1) @ self.axes.T)

    def expression(self, head: np.ndarray) -> np.ndarray:
        """The expression of a face in each frame, (T, K): its coordinates, averaged over half a second.

        Args:
            head: (T, 478, 3), landmarks in the head's frame.
        """
        return _slow(self.coordinates((head - self.template)[:, :N_SKIN]))

    def ratio(self, change: np.ndarray) -> np.ndarray:
        """The mean creases of all people for N changes of expression, (N, K). Returns log ratios, (N, 128, 128)."""
        return np.asarray(np.tensordot(change, self.creases, 1).clip(-DARKEST, DARKEST))

    def mean_skin(self, frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """The mean skin of N frames on the square, (128, 128) log brightness.

        Args:
            frames: (N, H, W, 3) uint8 RGB.
            landmarks: (N, 478, 3) px.
        """
        return self.square.image(self.square.skin(frames, landmarks))

    def moved(self, target: np.ndarray, base: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Expression.moved`. The side S of the square is 128."""
        pose = fit_pose(target, self.template)
        points, before = to_head(target, pose), to_head(base, fit_pose(base, self.template))
        source, wanted = self.expression(before), self.expression(points)
        if self.correction:
            keys = np.unique([*range(0, len(target), _STEP), len(target) - 1])
            skins = np.stack(
                [self.mean_skin(frames[at], base[at]) for at in (frames_around(t, len(base)) for t in keys)]
            )
            creases = self.ratio((wanted - source)[keys])
            light = interpolated_between(self.correction.change(skins, creases, source[keys], wanted[keys]), keys)
        else:
            light = self.ratio(wanted - source)
        z = self.coordinates((points - before)[:, :N_SKIN])
        more = (z @ self.further - z) @ self.axes
        points[:, :N_SKIN, :2] += more.reshape(len(z), N_SKIN, 2) * self.unit[:, None]
        return to_picture(points, pose), np.exp(light)

    def lit(self, picture: np.ndarray, points: np.ndarray, light: np.ndarray, skin: Drawn) -> np.ndarray:
        """See `Expression.lit`."""
        out = picture.copy()
        if not len(skin.y):
            return out
        (top, left), (bottom, right) = ((f(skin.y), f(skin.x)) for f in (np.min, np.max))
        at = np.full((2, bottom - top + 1, right - left + 1), -2 * SIDE, np.float32)
        at[:, skin.y - top, skin.x - left] = skin.mapped(points[:, :2], self.square.points)
        change = cv2.remap(light - 1, at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        part = out[top : bottom + 1, left : right + 1]
        brighter = part * (1 + change[..., None])
        np.round(brighter, out=brighter)
        part[:] = np.clip(brighter, 0, 255, out=brighter)
        return out


def frames_around(t: int, n: int) -> np.ndarray:
    """The indices, (3,), of the frames whose mean is the skin at frame t of a clip with n frames."""
    return np.clip(t + np.array(_LOOK), 0, n - 1)


def _slow(track: np.ndarray) -> np.ndarray:
    """Averages (T, K) over half a second around each frame. At the ends, the first and the last value are repeated."""
    held = np.pad(track, ((_SLOW // 2, _SLOW // 2), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(held, _SLOW, axis=0).mean(-1)


def interpolated_between(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Interpolates values (N, ...) linearly to all T frames, (T, ...).

    Args:
        keys: (N,), the frames of the values; the first is 0, the last is T - 1.
    """
    t = np.arange(keys[-1] + 1)
    after = np.searchsorted(keys, t).clip(1) if len(keys) > 1 else np.zeros(1, int)
    share = ((t - keys[after - 1]) / np.maximum(keys[after] - keys[after - 1], 1)).astype(np.float32)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(values[after - 1] * (1 - share) + values[after] * share)


class Square:
    """The square onto which all faces are aligned: it contains the template's face, seen from the front.

    P is the number of its pixels that are on the face.
    """

    def __init__(self, template: np.ndarray) -> None:
        self.points = (template[:N_SKIN, :2] * _SCALE + SIDE * np.array([0.5, _DOWN])).astype(np.float32)
        drawn = draw(self.points, back_to_front(template), SIDE, SIDE)
        self.y, self.x, self._triangles = drawn.y, drawn.x, drawn.triangles
        self._inside = drawn.in_mesh(self.points)
        seen = np.zeros((SIDE, SIDE), np.uint8)
        seen[self.y, self.x] = 1
        inside = cv2.erode(seen, np.ones((5, 5), np.uint8)).astype(np.float32)
        soft = cv2.GaussianBlur(inside, (0, 0), 2.0) * (seen > 0)
        self.edge = soft[self.y, self.x]  # (P,): 1 on the face, falling to 0 at the edge and the openings

    def __len__(self) -> int:
        return len(self.x)

    def image(self, values: np.ndarray) -> np.ndarray:
        """Puts the values of the face's pixels, (P,), into a picture, (128, 128). Pixels outside of the face are 0."""
        out = np.zeros((SIDE, SIDE), np.float32)
        out[self.y, self.x] = values
        return out

    def skin(self, frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """The mean `brightness` of N frames, (P,), from (N, H, W, 3) uint8 RGB and landmarks, (N, 478, 3) px."""
        points = landmarks[:, :N_SKIN] - _HALF
        return np.asarray(np.mean([self.brightness(p, q) for p, q in zip(frames, points, strict=True)], axis=0))

    def brightness(self, picture: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The natural logarithm of a picture's grey level at the square's pixels on the face, (P,).

        Args:
            picture: (H, W, 3) uint8 RGB.
            points: (468, 2 or 3) px of the face in the picture; pixel centres are whole numbers.
        """
        points = points[:, :2]
        eyes = float(np.linalg.norm(points[EYES[0]] - points[EYES[1]]))
        if eyes > _FINEST:  # scale down first, because reading only every third pixel would be noisy
            old = np.array(picture.shape[1::-1])
            new = np.maximum(1, np.round(old * (_FINEST / eyes)).astype(int))
            picture = cv2.resize(picture, (int(new[0]), int(new[1])), interpolation=cv2.INTER_AREA)
            points = (points + 0.5) * (new / old) - 0.5
        grid = np.zeros((2, SIDE, SIDE), np.float32)
        grid[:, self.y, self.x] = self._inside.placed(points.astype(np.float32)[self._triangles])
        grey = cv2.cvtColor(sampled(picture, grid, cv2.INTER_LINEAR), cv2.COLOR_RGB2GRAY)
        return np.log(grey[self.y, self.x].astype(np.float32) + _DARK)
