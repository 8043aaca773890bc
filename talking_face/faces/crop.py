"""The `box` crop: one square of whole source pixels, the same for every frame of a clip, scaled to a fixed size.

Coordinates are continuous with 0 at the left or top edge of the picture (a pixel's centre is at +0.5), as MediaPipe
gives them, so that crop = transform @ (x, y, 1) is exact at every size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

# The crop's side over the face's height or width (mesh extent: hairline to chin), whichever is larger: the face fills
# about two thirds of the picture, as in the field's 256 px crops.
ENLARGE = 1.5


@dataclass(frozen=True, slots=True)
class CropBox:
    """A square of source pixels; it may reach beyond the picture, which is then continued by its edge pixels."""

    left: int
    top: int
    side: int

    def transform(self, size: int) -> np.ndarray:
        """(2, 3) float32: source coordinates to coordinates of the `size` x `size` crop."""
        scale = size / self.side
        return np.array([[scale, 0, -self.left * scale], [0, scale, -self.top * scale]], np.float32)


def stable_box(
    landmarks: np.ndarray, valid: np.ndarray, enlarge: float = ENLARGE, picture: tuple[int, int] | None = None
) -> CropBox:
    """The clip's crop box from its track: (T, P, 2 or 3) landmarks in source pixels and (T,) bool.

    With `picture`, its (height, width), the box is moved inside where it fits, so that no made-up pixels enter.

    The side follows the median face size, so a single wide-open mouth does not shrink a whole clip, and grows only so
    far that the face stays inside in 98% of frames. Raises ValueError without a valid frame.
    """
    if not valid.any():
        raise ValueError("no valid frame to place a crop on")
    points = landmarks[valid][..., :2]
    low, high = points.min(axis=1), points.max(axis=1)  # (V, 2)
    side = enlarge * float(np.median((high - low).max(axis=1)))
    reach_low, reach_high = np.percentile(low, 1, axis=0), np.percentile(high, 99, axis=0)
    side = max(side, 1.05 * float((reach_high - reach_low).max()))
    centre = np.median((low + high) / 2, axis=0)
    # Where the head wanders, keep the whole path inside rather than the median position central.
    centre = np.clip(centre, reach_high - side / 2, reach_low + side / 2)
    side_px = max(2, round(side))
    left, top = round(float(centre[0]) - side_px / 2), round(float(centre[1]) - side_px / 2)
    if picture is not None:
        height, width = picture
        top = min(max(top, 0), height - side_px) if side_px <= height else top
        left = min(max(left, 0), width - side_px) if side_px <= width else left
    return CropBox(left, top, side_px)


def crop_frame(frame: np.ndarray, box: CropBox, size: int) -> np.ndarray:
    """(size, size, 3) uint8 RGB, C-contiguous: area average where it shrinks, cubic where it enlarges."""
    height, width = frame.shape[:2]
    x0, y0 = max(0, box.left), max(0, box.top)
    x1, y1 = min(width, box.left + box.side), min(height, box.top + box.side)
    view = frame[max(0, min(y0, height - 1)) : max(y1, 1), max(0, min(x0, width - 1)) : max(x1, 1)]
    if view.shape[:2] != (box.side, box.side):
        top, left = max(0, -box.top), max(0, -box.left)
        view = cv2.copyMakeBorder(
            view,
            top,
            max(0, box.side - view.shape[0] - top),
            left,
            max(0, box.side - view.shape[1] - left),
            borderType=cv2.BORDER_REPLICATE,
        )[: box.side, : box.side]
    if box.side == size:
        return np.ascontiguousarray(view)
    method = cv2.INTER_AREA if size < box.side else cv2.INTER_CUBIC
    return cv2.resize(view, (size, size), interpolation=method)


def apply_transform(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map (..., 2 or 3) points by a (2, 3) or broadcastable (..., 2, 3) similarity; z is scaled with x."""
    linear, shift = transform[..., :2], transform[..., 2]
    xy = np.einsum("...ij,...pj->...pi", linear, points[..., :2]) + shift[..., None, :]
    if points.shape[-1] == 2:
        return xy.astype(np.float32)
    scale = np.sqrt(np.abs(np.linalg.det(linear)))[..., None]
    return np.concatenate([xy, (points[..., 2] * scale)[..., None]], axis=-1).astype(np.float32)


def invert(transform: np.ndarray) -> np.ndarray:
    """The inverse of a (2, 3) affine transform: crop coordinates to source coordinates."""
    return cv2.invertAffineTransform(np.asarray(transform, np.float64)).astype(np.float32)
