"""One face through one clip: landmarks and blendshapes for every frame, with a flag where there are none.

The face is found coarsely once, then a square window around it goes to the landmarker, which tracks within it. The
window moves only when the face nears its edge, because each move costs the landmarker its lock on the face.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from talking_face.faces.find import find_face
from talking_face.media.picture import Picture
from talking_face.media.reading import FPS
from talking_face.pretrained.dlib_models import Box
from talking_face.pretrained.face_landmarker import BLENDSHAPE_NAMES, N_POINTS, FaceLandmarker, FaceMesh

# The window's side over the found face's width (HOG boxes run from brow to chin): room for hair and small moves.
_WINDOW = 2.4
# The landmarker scales its input to 256 px anyway; 384 px for the whole window keeps the face above 150 px.
_WINDOW_PX = 384
# Landmarks nearer to the window's edge than this share of its side move the window.
_MARGIN = 0.06
# With no face in sight, the coarse finder (25 to 100 ms) looks at the first frames and then at every fifth.
_EAGER, _STRIDE = 3, 5
# A face that comes out smaller than this, in px, is noise.
_MIN_FACE_PX = 16.0
# Gaps of up to 5 frames (0.2 s: a blink of the detector) are bridged in the smoothed landmarks.
MAX_GAP = 5


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """The face of a clip, in pixels of its source frames; NaN where `valid` is False."""

    landmarks: np.ndarray  # (T, 478, 3) float32
    blendshapes: np.ndarray  # (T, 52) float32
    valid: np.ndarray  # (T,) bool
    size: tuple[int, int]  # height, width of the source frames

    def __len__(self) -> int:
        return len(self.valid)


Window = tuple[int, int, int, int]  # left, top, right, bottom in source px; may reach beyond the picture


def track_face(
    pictures: Iterable[Picture], fps: float = FPS, watch: Callable[[Picture, Window | None], None] | None = None
) -> FaceTrack:
    """Follow the main face through `pictures` of one size, streamed.

    Args:
        watch: called for every picture with the window in which the face was looked for (None: no face seen yet), so
            that a caller can keep what it will need later.

    The same pictures give the same track, whatever was tracked before. Raises ValueError when there is no picture.
    """
    landmarks: list[np.ndarray] = []
    blendshapes: list[np.ndarray] = []
    size = (0, 0)
    window: Window | None = None
    missing = 0  # frames since a face was last seen
    with FaceLandmarker("video") as landmarker:
        for index, picture in enumerate(pictures):
            size = (picture.height, picture.width)
            if window is None or missing > 0:
                eager = missing < _EAGER or missing % _STRIDE == 0
                found = find_face(picture) if eager else None
                if found is not None:
                    window = search_window(found)
            points, shapes = _NO_POINTS, _NO_SHAPES
            if watch is not None:
                watch(picture, window)
            if window is not None:
                mesh = _look(landmarker, picture, window, round(index * 1000 / fps))
                if mesh is not None and np.ptp(mesh.landmarks[:, 1]) >= _MIN_FACE_PX:
                    points, shapes = mesh.landmarks, mesh.blendshapes
            seen = not np.isnan(points[0, 0])
            missing = 0 if seen else missing + 1
            if seen and window is not None and _near_edge(points, window):
                window = search_window(_box(points))
            landmarks.append(points)
            blendshapes.append(shapes)
    if not landmarks:
        raise ValueError("no frame to track")
    stacked = np.stack(landmarks)
    return FaceTrack(stacked, np.stack(blendshapes), ~np.isnan(stacked[:, 0, 0]), size)


def smooth_landmarks(landmarks: np.ndarray, valid: np.ndarray, max_gap: int = MAX_GAP) -> np.ndarray:
    """Landmarks with tracking noise removed: Savitzky-Golay, 5 frames, quadratic, no delay.

    Args:
        landmarks: (T, P, D) float32, NaN where not valid.
        valid: (T,) bool.
        max_gap: gaps of up to this many frames between valid ones are bridged linearly; longer ones stay NaN.

    Returns:
        (T, P, D) float32. Runs shorter than 5 frames are returned as they are.
    """
    from scipy.signal import savgol_filter

    out = landmarks.astype(np.float32, copy=True)
    filled = _bridge(out, valid, max_gap)
    for start, stop in _runs(filled):
        if stop - start >= 5:
            out[start:stop] = savgol_filter(out[start:stop], 5, 2, axis=0, mode="interp")
    return out


def jitter(landmarks: np.ndarray, valid: np.ndarray) -> float:
    """Frame-to-frame tracking noise in pixels: the median over frames of the mean point's distance to its own
    neighbours' average, after the face's common motion is taken out. NaN with under 3 valid frames in a row."""
    xy = landmarks[..., :2] - landmarks[..., :2].mean(axis=1, keepdims=True)
    second = xy[1:-1] - (xy[:-2] + xy[2:]) / 2
    usable = valid[1:-1] & valid[:-2] & valid[2:]
    if not usable.any():
        return float("nan")
    return float(np.median(np.linalg.norm(second[usable], axis=-1).mean(axis=-1)))


_NO_POINTS: np.ndarray = np.full((N_POINTS, 3), np.nan, np.float32)
_NO_SHAPES: np.ndarray = np.full(len(BLENDSHAPE_NAMES), np.nan, np.float32)


def search_window(box: Box) -> Window:
    """The square in which the face of a coarse box is looked for: room for the forehead, hair and small moves."""
    side = max(32, 2 * round(_WINDOW * max(box.width, box.height) / 2))
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    left, top = 2 * round((x - side / 2) / 2), 2 * round((y - side / 2) / 2)
    return left, top, left + side, top + side


def _box(points: np.ndarray) -> Box:
    """The mesh's extent; it also covers the forehead, 1.25 times a HOG box, so it is shrunk to match."""
    (left, top), (right, bottom) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    x, y, half = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2 / 1.25
    return Box(float(x - half), float(y - half), float(x + half), float(y + half))


def _near_edge(points: np.ndarray, window: Window) -> bool:
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    inner = _MARGIN * (window[2] - window[0])
    return bool((low < np.array(window[:2]) + inner).any() or (high > np.array(window[2:]) - inner).any())


def _look(landmarker: FaceLandmarker, picture: Picture, window: Window, time_ms: int) -> FaceMesh | None:
    """The face that the landmarker sees in the part of the window that lies in the picture, in source pixels."""
    left, top, right, bottom = picture.snap(*window)
    width, height = right - left, bottom - top
    if width < 2 or height < 2:
        return None
    scale = min(1.0, _WINDOW_PX / (window[2] - window[0]))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    mesh = landmarker.detect(picture.window(left, top, right, bottom, size), time_ms)
    if mesh is None:
        return None
    # Whole pixels of the view are not whole pixels of the source: each axis has its own exact scale.
    back = np.array([width / size[0], height / size[1], width / size[0]])
    return FaceMesh((mesh.landmarks * back + (left, top, 0)).astype(np.float32), mesh.blendshapes)


def _bridge(landmarks: np.ndarray, valid: np.ndarray, max_gap: int) -> np.ndarray:
    """Fill short gaps of `landmarks` in place; returns the frames that are now usable, (T,) bool."""
    usable = valid.copy()
    known = np.flatnonzero(valid)
    for before, after in itertools.pairwise(known):
        gap = after - before - 1
        if 0 < gap <= max_gap:
            for k in range(1, gap + 1):
                weight = k / (gap + 1)
                landmarks[before + k] = (1 - weight) * landmarks[before] + weight * landmarks[after]
            usable[before + 1 : after] = True
    return usable


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
