"""Crops faces in the same way as published code. A mode computes a transform per frame from the landmarks of a clip.

The mode `none` does not crop: it returns each picture at its own size, and its transforms are the identity.

Coordinates are continuous: 0 is the left or top edge of the picture, and the centre of the first pixel is at 0.5.
Therefore crop = transform @ (x, y, 1) holds at every size. In some published code, the centre of the first pixel is at
0; `_between_edges` converts transforms of such code.

Most modes are named after published code. With the same points, a mode gives crops with the same position, scale and
rotation as the published code. `AlignMode.points` names the detector of the points. If the published code uses a
different detector, docs/reference/faces.md states how much the crops differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from talking_face.faces import eat
from talking_face.faces.crop import CropBox, crop_picture, invert, stable_box
from talking_face.faces.eat import similarity
from talking_face.faces.points68 import to_68
from talking_face.media.picture import Picture
from talking_face.names import did_you_mean
from talking_face.pretrained.model_files import ModelFiles

Region = tuple[int, int, int, int]  # left, top, right, bottom, whole source px

WHOLE = 0  # the size of a mode that returns whole pictures

# Five points in ArcFace's 112 px crop: left eye, right eye, nose tip, left mouth corner and right mouth corner. "Left"
# and "right" are the sides of the picture.
# Source: deepinsight/insightface, python-package/insightface/utils/face_align.py (`arcface_src`).
ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)

# The 131 points of IP_LAP. Source: Weizhi-Zhong/IP_LAP, preprocess/preprocess_video.py (the FACEMESH_ contours).
# fmt: off
IP_LAP_POINTS: tuple[int, ...] = (
    162, 127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152,             # jaw, from the image's left to the chin
    377, 400, 378, 379, 365, 397, 288, 361, 323, 454, 356, 389,                # jaw, from the chin to the right
    70, 63, 105, 66, 107, 55, 65, 52, 53, 46,                                  # brow, image left
    336, 296, 334, 293, 300, 276, 283, 282, 295, 285,                          # brow, image right
    168, 6, 197, 195, 5, 48, 115, 220, 45, 4, 275, 440, 344, 278,              # nose
    33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7,         # eye, image left
    362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382,      # eye, image right
    61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146,      # outer lip
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95,      # inner lip
)
# fmt: on
_IP_LAP_MARGIN = 5  # px added on each side, as in preprocess_video.py (inference_single.py adds 25)

# Source: joonson/syncnet_python, run_pipeline.py (crop_scale, kernel size of medfilt, grey level of the padding).
_SYNCNET_SCALE, _SYNCNET_MEDIAN, _SYNCNET_GREY = 0.40, 13, 110

# Source: NVlabs/ffhq-dataset, download_ffhq.py. Half the crop's side is the larger of two values: 2.0 times the
# distance between the eyes, and 1.8 times the distance from eyes to mouth. The crop's centre is below the eyes by 0.1
# of the distance from eyes to mouth.
_FFHQ_EYES, _FFHQ_MOUTH, _FFHQ_DOWN = 2.0, 1.8, 0.1


@dataclass(frozen=True)
class AlignMode:
    """One method to crop the face from each frame of a clip.

    If `warp` is None, the mode has no warp of its own: `box` scales its square with `crop_picture`, and a mode whose
    size is `WHOLE` returns the whole picture.
    """

    name: str
    size: int | None  # side of the square crop, px; None: the caller chooses the side; WHOLE: the picture is not cut
    points: str  # mp478 (landmarks of the track) or dlib68 (detected in every frame)
    place: Callable[[np.ndarray, np.ndarray, tuple[int, int], int, float], np.ndarray]
    warp: Callable[[np.ndarray, np.ndarray, int], np.ndarray] | None
    source: str

    @property
    def whole(self) -> bool:
        """Whether the mode returns whole pictures, each at its own size, and no square crops."""
        return self.size == WHOLE


def transforms(
    mode: AlignMode,
    points: np.ndarray,
    valid: np.ndarray,
    picture: tuple[int, int],
    size: int,
    enlarge: float,
) -> np.ndarray:
    """Transforms from source pixels to crop pixels, one per frame of a clip.

    Args:
        points: landmarks in source pixels, (T, 478, 2 or 3), or (T, 68, 2) for a mode that uses dlib's points. Points
            of frames that are not valid are ignored.
        valid: (T,) bool, True for frames with a face. In frames without a face, the points are interpolated between the
            nearest valid frames. Frames before the first valid frame have the points of the first valid frame, and
            frames after the last valid frame have the points of the last valid frame.
        picture: (height, width) of the source, px.
        size: side of the crop, px; a mode with a fixed size, or with whole pictures, ignores this argument.
        enlarge: ratio of the crop's side to the size of the face; only the mode `box` uses this argument.

    Returns:
        (T, 2, 3) float64. Raises ValueError if no frame is valid.
    """
    if not valid.any():
        raise ValueError("no valid frame to place a crop on")
    return mode.place(points, valid, picture, mode.size or size, enlarge)


def source_region(transform: np.ndarray, size: int, picture: tuple[int, int]) -> Region:
    """The rectangle of a picture that a crop of `size` px needs. `picture` is (height, width) of the picture.

    The rectangle has even coordinates, except at the edge of the picture, and a size of at least 2x2 px.
    """
    height, width = picture
    corners = np.array([[0, 0, size, size], [0, size, 0, size], [1, 1, 1, 1]])
    x, y = invert(transform).astype(np.float64) @ corners
    # Two pixels are added on each side. Bilinear interpolation reads one more pixel, and rounding can require a second
    # pixel.
    low, high = (math.floor(x.min()) - 2, math.floor(y.min()) - 2), (math.ceil(x.max()) + 2, math.ceil(y.max()) + 2)
    left, top = (max(0, min(v, n - 2)) // 2 * 2 for v, n in zip(low, (width, height), strict=True))
    right, bottom = (min(n, max(v, 2) + v % 2) for v, n in zip(high, (width, height), strict=True))
    return left, top, max(right, min(left + 2, width)), max(bottom, min(top + 2, height))


def cut(
    mode: AlignMode, picture: Picture, transform: np.ndarray, size: int, offset: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Crop a picture with the (2, 3) transform of its frame. Returns (size, size, 3) uint8 RGB.

    A mode with whole pictures returns (H, W, 3): all pixels of the picture, unchanged. If the picture is only a part of
    the source frame, `offset` is the position of the picture's left and top edge in the source frame.
    """
    if mode.whole:
        return picture.rgb()
    if mode.warp is None:
        return crop_picture(picture, _box_of(transform, size), size, offset)
    transform = np.array(transform, np.float64)
    transform[:, 2] += transform[:, :2] @ np.array(offset, np.float64)
    region = source_region(transform, size, (picture.height, picture.width))
    left, top, right, bottom = region
    view = picture.window(*region) if picture.snap(*region) == region else picture.rgb()[top:bottom, left:right]
    transform[:, 2] += transform[:, :2] @ np.array([left, top], np.float64)
    return mode.warp(np.ascontiguousarray(view), transform, size)


def region_of(mode: AlignMode, transform: np.ndarray, size: int, picture: tuple[int, int]) -> Region:
    """The rectangle of a picture that `cut` reads. `picture` is (height, width) of the picture."""
    if mode.whole:
        return 0, 0, picture[1], picture[0]
    if mode.warp is not None:
        return source_region(transform, size, picture)
    box, (height, width) = _box_of(transform, size), picture
    return max(0, box.left), max(0, box.top), min(width, box.left + box.side), min(height, box.top + box.side)


def find_dlib68(frame: np.ndarray, files: ModelFiles) -> np.ndarray | None:
    """The 68 points, (68, 2) float32, of the face with the highest score in an (H, W, 3) uint8 RGB frame, or None.

    As in EAT's evaluation, the points must be found in the whole frame, not in a part of the frame.
    """
    points = eat.find_points(eat.to_grey(frame), eat.FIND_UPSAMPLE, files)
    return None if points is None else points + np.float32(0.5)


# -- place functions: compute the transforms (T, 2, 3) from points and valid frames ------------------------------------


def _place_box(
    points: np.ndarray, valid: np.ndarray, picture: tuple[int, int], size: int, enlarge: float
) -> np.ndarray:
    one = stable_box(points, valid, enlarge, picture).transform(size)
    return np.repeat(one[None].astype(np.float64), len(points), axis=0)


def _place_none(points: np.ndarray, _v: np.ndarray, _p: tuple[int, int], _s: int, _e: float) -> np.ndarray:
    return np.repeat(np.eye(2, 3)[None], len(points), axis=0)


def _place_eat(points: np.ndarray, valid: np.ndarray, _p: tuple[int, int], _s: int, _e: float) -> np.ndarray:
    target = eat.template()[eat.ALIGN_POINTS]
    out = []
    for frame in _bridged(_as_68(points), valid)[:, eat.ALIGN_POINTS].astype(np.float32) - np.float32(0.5):
        inverse = np.linalg.inv(similarity(target, frame))[:2]
        inverse[:, 2] -= eat.CROP.start
        out.append(_between_edges(inverse))
    return np.stack(out)


def _place_ffhq(points: np.ndarray, valid: np.ndarray, _p: tuple[int, int], size: int, _e: float) -> np.ndarray:
    p = _bridged(_as_68(points), valid)
    left_eye, right_eye = p[:, 36:42].mean(axis=1), p[:, 42:48].mean(axis=1)
    eyes = (left_eye + right_eye) / 2
    across, down = right_eye - left_eye, (p[:, 48] + p[:, 54]) / 2 - eyes
    # The tilt of the head is the mean of two directions: the direction from eye to eye, and the direction from the eyes
    # to the mouth, rotated by 90 degrees.
    tilt = across + np.stack([down[:, 1], -down[:, 0]], axis=1)
    x = tilt / np.linalg.norm(tilt, axis=1, keepdims=True)
    y = np.stack([-x[:, 1], x[:, 0]], axis=1)
    half = np.maximum(
        _FFHQ_EYES * np.linalg.norm(across, axis=1, keepdims=True),
        _FFHQ_MOUTH * np.linalg.norm(down, axis=1, keepdims=True),
    )
    corner = eyes + _FFHQ_DOWN * down - half * (x + y)
    rows = np.stack([x, y], axis=1) * (size / 2 / half)[:, None]  # (T, 2, 2)
    return np.concatenate([rows, -np.einsum("tij,tj->ti", rows, corner)[..., None]], axis=2)


def _place_arcface(points: np.ndarray, valid: np.ndarray, _p: tuple[int, int], _s: int, _e: float) -> np.ndarray:
    p = _bridged(five_points(_as_68(points)), valid)
    return np.stack([_between_edges(similarity(frame - 0.5, ARCFACE_POINTS)[:2]) for frame in p])


def _place_ip_lap(points: np.ndarray, valid: np.ndarray, picture: tuple[int, int], size: int, _e: float) -> np.ndarray:
    p = _bridged(points[:, list(IP_LAP_POINTS), :2], valid)
    end = np.array(picture[::-1], np.float64)
    low = np.floor(np.clip(p.min(axis=1) - _IP_LAP_MARGIN, 0, end - 1))
    high = np.floor(np.clip(p.max(axis=1) + _IP_LAP_MARGIN, 1, end))
    return _slices(low, np.maximum(high, low + 1), size)


def _place_syncnet(points: np.ndarray, valid: np.ndarray, _p: tuple[int, int], size: int, _e: float) -> np.ndarray:
    p = _bridged(points[..., :2], valid)
    low, high = p.min(axis=1), p.max(axis=1)
    half, centre = (high - low).max(axis=1) / 2, (low + high) / 2
    track = np.stack([half, centre[:, 0], centre[:, 1]])
    # As in `scipy.signal.medfilt`, zeros are added at both ends. In a clip of fewer than seven frames, the median would
    # be one of the added zeros.
    if len(p) > _SYNCNET_MEDIAN // 2:
        padded = np.pad(track, ((0, 0), (_SYNCNET_MEDIAN // 2,) * 2))
        bs, mx, my = np.median(sliding_window_view(padded, _SYNCNET_MEDIAN, axis=1), axis=2)
    else:
        bs, mx, my = (np.full(len(p), np.median(row)) for row in track)
    wide, cs = bs * (1 + _SYNCNET_SCALE), _SYNCNET_SCALE
    top_left = np.floor(np.stack([mx - wide, my - bs], axis=1))
    bottom_right = np.floor(np.stack([mx + wide, my + bs * (1 + 2 * cs)], axis=1))
    return _slices(top_left, np.maximum(bottom_right, top_left + 1), size)


def five_points(points: np.ndarray) -> np.ndarray:
    """The eye centres, the nose tip and the mouth corners, (T, 5, 2), computed from the 68 iBUG points, (T, 68, 2)."""
    eyes = [points[:, start : start + 6].mean(axis=1) for start in (36, 42)]
    return np.stack([*eyes, points[:, 30], points[:, 48], points[:, 54]], axis=1)


def _as_68(points: np.ndarray) -> np.ndarray:
    return points if points.shape[1] == 68 else to_68(points)


def _bridged(points: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Points, (T, P, 2) float64. In frames that are not valid, points are interpolated as in `transforms`."""
    points = points.astype(np.float64)
    if valid.all():
        return points
    known, frames = np.flatnonzero(valid), np.arange(len(valid))
    after = np.searchsorted(known, frames).clip(0, len(known) - 1)
    before = np.maximum(after - (known[after] > frames), 0)
    gap = np.maximum(known[after] - known[before], 1)
    weight = ((frames - known[before]) / gap).clip(0, 1)[:, None, None]
    return points[known[before]] * (1 - weight) + points[known[after]] * weight


def _slices(low: np.ndarray, high: np.ndarray, size: int) -> np.ndarray:
    """Transforms, (T, 2, 3), that map rectangles to the square crop.

    `low` and `high` are the top left and bottom right corners of the rectangles, (T, 2) in whole px.
    """
    out = np.zeros((len(low), 2, 3))
    scale = size / (high - low)
    out[:, 0, 0], out[:, 1, 1] = scale[:, 0], scale[:, 1]
    out[:, :, 2] = -low * scale
    return out


def _between_edges(matrix: np.ndarray) -> np.ndarray:
    """Converts a (2, 3) transform from coordinates with the first pixel's centre at 0 to continuous coordinates."""
    out = np.array(matrix, np.float64)
    out[:, 2] += 0.5 - out[:, :2] @ [0.5, 0.5]
    return out


def _between_centres(transform: np.ndarray) -> np.ndarray:
    """The inverse of `_between_edges`: returns the transform in the coordinates that cv2.warpAffine expects."""
    out = np.array(transform, np.float64)
    out[:, 2] += out[:, :2] @ [0.5, 0.5] - 0.5
    return out


# -- warp functions: apply a (2, 3) transform to (H, W, 3) uint8 RGB; return (size, size, 3) uint8 RGB -----------------


def _warp_bilinear(view: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    """Warp in the same way as insightface's norm_crop: bilinear without averaging, black outside the picture."""
    return cv2.warpAffine(view, _between_centres(transform), (size, size), flags=cv2.INTER_LINEAR)


def _warp_eat(view: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    matrix = np.eye(3)
    matrix[:2] = _between_centres(transform)
    matrix[:2, 2] += eat.CROP.start
    return eat.warp_crop(view, np.linalg.inv(matrix))


def _warp_mirror(view: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    """Warp with bilinear supersampling. Outside the picture, the content of the picture is mirrored.

    The code of FFHQ also uses supersampling, but with a Lanczos filter and from 4096 px. That code also blurs the
    mirrored border; `_warp_mirror` does not.
    """
    over = max(1, math.ceil(1 / math.hypot(transform[0, 0], transform[1, 0]) - 1e-6))
    large = cv2.warpAffine(
        view,
        _between_centres(transform * over),
        (size * over, size * over),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return large if over == 1 else cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)


def _warp_slice(view: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    """Crop a rectangle of whole pixels and scale the rectangle with cv2.resize (bilinear); grey outside the picture."""
    scale = np.array([transform[0, 0], transform[1, 1]])
    left, top = (int(v) for v in np.rint(-transform[:, 2] / scale))
    right, bottom = (int(a + b) for a, b in zip((left, top), np.rint(size / scale), strict=True))
    height, width = view.shape[:2]
    out = (max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width))
    if any(out):
        grey = (_SYNCNET_GREY,) * 3
        view = cv2.copyMakeBorder(view, *out, borderType=cv2.BORDER_CONSTANT, value=grey)
    part = view[top + out[0] : bottom + out[0], left + out[2] : right + out[2]]
    return cv2.resize(part, (size, size))


def _box_of(transform: np.ndarray, size: int) -> CropBox:
    scale = float(transform[0, 0])
    return CropBox(round(-float(transform[0, 2]) / scale), round(-float(transform[1, 2]) / scale), round(size / scale))


ALIGN_MODES: dict[str, AlignMode] = {
    mode.name: mode
    for mode in (
        AlignMode("box", None, "mp478", _place_box, None, "one square for the whole clip, whole source pixels"),
        AlignMode("none", WHOLE, "mp478", _place_none, None, "the whole picture at its own size"),
        AlignMode("eat-128", 128, "dlib68", _place_eat, _warp_eat, "yuangan/evaluation_eat, code/utils_crop.py"),
        AlignMode("eat-128-mp", 128, "mp478", _place_eat, _warp_eat, "eat-128 on MediaPipe's points"),
        AlignMode("ffhq", None, "mp478", _place_ffhq, _warp_mirror, "NVlabs/ffhq-dataset, download_ffhq.py"),
        AlignMode(
            "ip-lap-128-mp", 128, "mp478", _place_ip_lap, _warp_slice, "Weizhi-Zhong/IP_LAP, preprocess_video.py"
        ),
        AlignMode("arcface-112", 112, "mp478", _place_arcface, _warp_bilinear, "insightface, utils/face_align.py"),
        AlignMode("syncnet-224", 224, "mp478", _place_syncnet, _warp_slice, "joonson/syncnet_python, run_pipeline.py"),
    )
}


def align_mode(name: str) -> AlignMode:
    """The mode with the given name. Raises ValueError, whose message lists the known names."""
    if name not in ALIGN_MODES:
        raise ValueError(
            f"no align mode {name!r}{did_you_mean(name, ALIGN_MODES)}; known modes: {', '.join(ALIGN_MODES)}"
        )
    return ALIGN_MODES[name]
