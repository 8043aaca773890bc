"""Crops faces with the mode `box`: all frames of a clip are cropped with the same square, then scaled to a fixed size.

The edges of the square are at whole source pixels. Coordinates are continuous, as in MediaPipe: 0 is the left or top
edge of the picture, and the centre of the first pixel is at 0.5. Therefore crop_xy = transform @ (x, y, 1) gives
exact crop coordinates for every crop size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from talking_face.media.picture import Picture

# Ratio of the crop's side to the size of the face, which is the larger of its height (hairline to chin) and its width.
# The face fills two thirds of the crop, as in the usual 256 px crops.
ENLARGE = 1.5


@dataclass(frozen=True, slots=True)
class CropBox:
    """A square of source pixels. Where the square extends beyond the picture, the edge pixels are repeated."""

    left: int
    top: int
    side: int

    def transform(self, size: int) -> np.ndarray:
        """The transform, (2, 3) float32, from source coordinates to coordinates of the `size` x `size` crop."""
        scale = size / self.side
        return np.array([[scale, 0, -self.left * scale], [0, scale, -self.top * scale]], np.float32)


def stable_box(
    landmarks: np.ndarray, valid: np.ndarray, enlarge: float = ENLARGE, picture: tuple[int, int] | None = None
) -> CropBox:
    """The crop box of a clip.

    The side of the box is proportional to the median size of the face, so that a mouth that is wide open in a few
    frames does not change the box. The side is increased only if the face would be inside the box in fewer than
    98% of the frames.

    Args:
        landmarks: (T, P, 2 or 3) in source pixels.
        valid: (T,) bool, True for frames with a face.
        enlarge: ratio of the box's side to the size of the face.
        picture: (height, width) of the source, or None. With a size, a box that is not larger than the picture is moved
            inside the picture, so that no edge pixel is repeated.

    Raises ValueError if no frame is valid.
    """
    if not valid.any():
        raise ValueError("no valid frame to place a crop on")
    points = landmarks[valid][..., :2]
    low, high = points.min(axis=1), points.max(axis=1)  # (V, 2)
    side = enlarge * float(np.median((high - low).max(axis=1)))
    reach_low, reach_high = np.percentile(low, 1, axis=0), np.percentile(high, 99, axis=0)
    side = max(side, 1.05 * float((reach_high - reach_low).max()))
    centre = np.median((low + high) / 2, axis=0)
    # If the head moves, shift the box so that it contains the face at all positions. The median position of the face
    # need not be at the centre of the box.
    centre = np.clip(centre, reach_high - side / 2, reach_low + side / 2)
    # The edges of the box have even coordinates. In 4:2:0 video, such edges do not split a chroma sample. Therefore a
    # crop before the colour conversion gives the same pixels as a crop after the conversion.
    side_px = max(2, 2 * round(side / 2))
    left, top = (2 * round((float(middle) - side_px / 2) / 2) for middle in centre)
    if picture is not None:
        height, width = picture
        top = min(max(top, 0), (height - side_px) // 2 * 2) if side_px <= height else top
        left = min(max(left, 0), (width - side_px) // 2 * 2) if side_px <= width else left
    return CropBox(left, top, side_px)


def crop_picture(picture: Picture, box: CropBox, size: int, offset: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Crop `box` from a picture and scale the crop to (size, size, 3) uint8 RGB, C-contiguous.

    A smaller size is computed by averaging pixels, a larger size by cubic interpolation. `offset` is the left and
    top edge of the picture, in the source coordinates in which `box` is given.
    """
    left, top = box.left - offset[0], box.top - offset[1]
    right, bottom = left + box.side, top + box.side
    inside = picture.snap(left, top, right, bottom)
    if inside == (left, top, right, bottom):
        return picture.window(*inside, (size, size))
    # The box is partly outside the picture. Therefore crop without scaling, repeat the edge pixels, then scale.
    x0, y0 = min(max(left, 0), picture.width - 1), min(max(top, 0), picture.height - 1)
    x1, y1 = max(min(right, picture.width), x0 + 1), max(min(bottom, picture.height), y0 + 1)
    view = picture.rgb()[y0:y1, x0:x1]
    view = cv2.copyMakeBorder(
        view, max(0, -top), max(0, bottom - picture.height), max(0, -left), max(0, right - picture.width),
        borderType=cv2.BORDER_REPLICATE,
    )[: box.side, : box.side]  # fmt: skip
    if view.shape[:2] == (size, size):
        return np.ascontiguousarray(view)
    return cv2.resize(view, (size, size), interpolation=cv2.INTER_AREA if size < box.side else cv2.INTER_CUBIC)


def apply_transform(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a transform, (2, 3) or broadcastable (..., 2, 3), to points, (..., 2 or 3). z is scaled like x."""
    linear, shift = transform[..., :2], transform[..., 2]
    xy = np.einsum("...ij,...pj->...pi", linear, points[..., :2]) + shift[..., None, :]
    if points.shape[-1] == 2:
        return xy.astype(np.float32)
    scale = np.linalg.norm(linear[..., 0], axis=-1)[..., None]
    return np.concatenate([xy, (points[..., 2] * scale)[..., None]], axis=-1).astype(np.float32)


def invert(transform: np.ndarray) -> np.ndarray:
    """The inverse of a (2, 3) affine transform; it maps crop coordinates to source coordinates."""
    return cv2.invertAffineTransform(np.asarray(transform, np.float64)).astype(np.float32)
