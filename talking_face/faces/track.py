"""Tracks one face through a clip. The result is landmarks and blendshapes per frame, and a flag for each valid frame.

A coarse detector finds the face once. Then the landmarker tracks the face in a square window of the picture. The window
moves only when the face comes near the edge of the window, because after each move the landmarker has to find the face
again. If several people are found, each person is tracked with a separate landmarker until the speaker is chosen.
People are searched for in the first picture with a face, and again after 1, 2, 4 and 8 s.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from talking_face.faces.find import centre_distance, find_faces, main_first
from talking_face.faces.speaking import Choice, choose_speaker
from talking_face.media.picture import Picture
from talking_face.media.reading import FPS
from talking_face.pretrained.dlib_models import Box
from talking_face.pretrained.face_landmarker import BLENDSHAPE_NAMES, N_POINTS, FaceLandmarker, FaceMesh
from talking_face.pretrained.model_files import ModelFiles

# Ratio of the window's side to the width of the face's box, which extends from brows to chin. The ratio _WINDOW leaves
# room for hair and small movements. Near another face the ratio is smaller, down to _MIN_WINDOW, so that the window
# does not contain the centre of the other face.
_WINDOW, _MIN_WINDOW = 2.4, 1.5
# The window is scaled to at most 384 px, so that the face is larger than 150 px. The landmarker then scales its input
# to 256 px.
_WINDOW_PX = 384
# The window moves when the distance from a landmark to the window's edge is below this share of the window's side.
_MARGIN = 0.06
# While no face is found, the coarse detector (25 to 230 ms per run) runs on the first three frames, then on every fifth
# frame, and after two seconds on every 25th frame.
_EAGER, _STRIDE, _LONG, _LONG_STRIDE = 3, 5, 50, 25
# The smallest height of a face, in px; a smaller face is treated as noise.
_MIN_FACE_PX = 16.0
# Smoothed landmarks are interpolated over gaps of up to 5 frames (0.2 s).
MAX_GAP = 5
# If there are several people, at most four people are tracked, for at most 10 s, before the speaker is chosen. A face
# narrower than 0.4 of the widest face is ignored.
_MAX_FACES, _MIN_SHARE, DECIDE_S = 4, 0.4, 10.0
# s after the first picture with a face. At these times, the coarse detector searches for people who came later.
_LATER = (1.0, 2.0, 4.0, 8.0)
# A lost face is searched for within _REACH face widths of its last position. If the distance of two tracks is below
# _SAME face heights, the two tracks follow the same face.
_REACH, _SAME = 1.5, 0.3


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """The tracked face of a clip. Coordinates are in pixels of the source frames, and NaN where `valid` is False."""

    landmarks: np.ndarray  # (T, 478, 3) float32
    blendshapes: np.ndarray  # (T, 52) float32
    valid: np.ndarray  # (T,) bool
    size: tuple[int, int]  # height, width of the source frames
    n_faces: int = 1  # number of people who can be tracked, from the first picture with a face or soon after
    choice: Choice = Choice(0, "only", None)  # noqa: RUF009 - frozen

    def __len__(self) -> int:
        return len(self.valid)


Window = tuple[int, int, int, int]  # left, top, right, bottom in source px; can extend beyond the picture


def track_face(
    pictures: Iterable[Picture],
    fps: float = FPS,
    on_picture: Callable[[Picture, Window | None], None] | None = None,
    sound: Callable[[], np.ndarray | None] | None = None,
    *,
    files: ModelFiles,
) -> FaceTrack:
    """Track one face through pictures of one size. If no face clearly speaks, the main face is tracked.

    Args:
        on_picture: function that is called for every picture with the window in which the face is searched for, so that
            the caller can keep pixels for later use. The window is None while several faces are tracked.
        sound: function that returns the clip's sound, (N,) int16 mono at 16 kHz from the first picture on, or None. It
            is called only if there are several faces. Without sound, the main face is tracked.

    The same pictures always give the same track, because no state of an earlier clip is used. Raises ValueError if
    there is no picture.
    """
    size = (0, 0)
    count = 0
    faces: list[_Follower] = []
    n_faces, choice = 1, Choice(0, "only", None)
    decide_at = round((DECIDE_S if sound is not None else 0.2) * fps)
    later = {round(seconds * fps) for seconds in _LATER} if sound is not None else set()

    def decide() -> None:
        nonlocal n_faces, choice
        later.clear()
        faces[:] = _distinct(faces)
        seen = [np.array(face.seen) for face in faces]
        choice = choose_speaker(
            [np.stack(f.landmarks) for f in faces], seen, sound() if sound is not None else None, fps
        )
        n_faces = max(1, sum(bool(flags.mean() >= 0.5) for flags in seen))
        faces[:] = [faces[choice.index]]

    with ExitStack() as stack:
        for picture in pictures:
            size = (picture.height, picture.width)
            boxes = _people_to_add(faces, count, later, picture, files)
            faces += [stack.enter_context(_Follower(box, boxes, count, files)) for box in boxes]
            if any(_is_search_frame(face.missing) for face in faces if face.missing):
                _search_lost(faces, picture, files)
            if on_picture is not None:
                on_picture(picture, faces[0].window if len(faces) == 1 else None)
            for face in faces:
                face.step(picture, round(count * 1000 / fps))
            count += 1
            if len(faces) > 1 and count - faces[0].start >= decide_at:
                decide()
        if not count:
            raise ValueError("no frame to track")
        if len(faces) > 1:
            decide()
    if not faces:
        blank = np.repeat(_NO_POINTS[None], count, axis=0)
        return FaceTrack(blank, np.repeat(_NO_SHAPES[None], count, axis=0), np.zeros(count, bool), size)
    face = faces[0]
    return FaceTrack(np.stack(face.landmarks), np.stack(face.blendshapes), np.array(face.seen), size, n_faces, choice)


class _Follower:
    """Tracks one face with its own landmarker. A context manager."""

    def __init__(self, box: Box, others: list[Box], start: int, files: ModelFiles) -> None:
        self._landmarker = FaceLandmarker("video", files=files)
        self.start = start
        self.box = box
        self.window = search_window(box, others)
        self.landmarks = [_NO_POINTS] * start
        self.blendshapes = [_NO_SHAPES] * start
        self.seen = [False] * start
        self.missing = 0  # number of frames since the face was last found

    def step(self, picture: Picture, time_ms: int) -> None:
        """Tracks the face in the next picture; `time_ms` must increase."""
        points, shapes = _NO_POINTS, _NO_SHAPES
        mesh = _look(self._landmarker, picture, self.window, time_ms)
        seen = mesh is not None and float(np.ptp(mesh.landmarks[:, 1])) >= _MIN_FACE_PX
        if mesh is not None and seen:
            points, shapes = mesh.landmarks, mesh.blendshapes
            self.box = face_box(points)
            if _near_edge(points, self.window):
                self.window = search_window(self.box)
        self.missing = 0 if seen else self.missing + 1
        self.landmarks.append(points)
        self.blendshapes.append(shapes)
        self.seen.append(seen)

    def __enter__(self) -> _Follower:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._landmarker.close()


def _is_search_frame(missing: int) -> bool:
    stride = _LONG_STRIDE if missing > _LONG else _STRIDE
    return missing < _EAGER or missing % stride == 0


def _candidates(boxes: list[Box], picture: Picture) -> list[Box]:
    """The boxes of the faces to track; the main face is the first."""
    ordered = main_first(boxes, picture.width, picture.height)
    return [box for box in ordered if box.width >= _MIN_SHARE * max(b.width for b in boxes)][:_MAX_FACES]


def _people_to_add(
    faces: list[_Follower], count: int, later: set[int], picture: Picture, files: ModelFiles
) -> list[Box]:
    """The boxes of people to track from the picture with the index `count` on.

    `later`: numbers of pictures after the first picture with a face, at which people who came later are searched for.
    """
    if not faces:
        return _candidates(find_faces(picture, files), picture) if _is_search_frame(count) else []
    if count - faces[0].start in later and len(faces) < _MAX_FACES and not faces[0].missing:
        return _newcomers(faces, picture, files)
    return []


def _newcomers(faces: list[_Follower], picture: Picture, files: ModelFiles) -> list[Box]:
    """The boxes of faces that are not tracked yet and are not much smaller than the first tracked face."""
    boxes = [
        box
        for box in find_faces(picture, files)
        if box.width >= _MIN_SHARE * faces[0].box.width and not any(_near(box, face.box, 0.5) for face in faces)
    ]
    return main_first(boxes, picture.width, picture.height)[: _MAX_FACES - len(faces)] if boxes else []


def _search_lost(faces: list[_Follower], picture: Picture, files: ModelFiles) -> None:
    """Moves the window of each lost face to a detected face near the last position of the lost face.

    If only one face is tracked, its window can move to any detected face.
    """
    boxes = main_first(find_faces(picture, files), picture.width, picture.height)
    free = [box for box in boxes if all(face.missing or not _near(box, face.box, 0.5) for face in faces)]
    for face in faces:
        if not face.missing:
            continue
        near = [box for box in free if _near(box, face.box, _REACH)]
        if near:
            face.window = search_window(min(near, key=lambda box: centre_distance(box, face.box)))
        elif free and len(faces) == 1:
            face.window = search_window(free[0])


def _distinct(faces: list[_Follower]) -> list[_Follower]:
    """The tracks without duplicates. If several tracks follow the same face, only the first of these tracks is kept."""
    kept: list[_Follower] = []
    for face in faces:
        points = np.stack(face.landmarks)[..., :2]
        for other in kept:
            both = np.array(face.seen) & np.array(other.seen)
            if not both.any():
                continue
            theirs = np.stack(other.landmarks)[both][..., :2]
            gap = np.linalg.norm(points[both].mean(axis=1) - theirs.mean(axis=1), axis=1)
            if np.median(gap / np.ptp(theirs[..., 1], axis=1)) < _SAME:
                break
        else:
            kept.append(face)
    return kept


def _near(a: Box, b: Box, widths: float) -> bool:
    return centre_distance(a, b) <= widths * max(a.width, b.width)


def smooth_landmarks(landmarks: np.ndarray, valid: np.ndarray, max_gap: int = MAX_GAP) -> np.ndarray:
    """Removes tracking noise from landmarks with a quadratic Savitzky-Golay filter over 5 frames, without delay.

    Args:
        landmarks: (T, P, D) float32, NaN where not valid.
        valid: (T,) bool.
        max_gap: largest number of consecutive frames without a face for which landmarks are interpolated linearly. In
            longer gaps, landmarks stay NaN.

    Returns:
        (T, P, D) float32. A run of fewer than 5 usable frames is not filtered.
    """
    from scipy.signal import savgol_filter

    out = landmarks.astype(np.float32, copy=True)
    filled = _bridge(out, valid, max_gap)
    for start, stop in _runs(filled):
        if stop - start >= 5:
            out[start:stop] = savgol_filter(out[start:stop], 5, 2, axis=0, mode="interp")
    return out


def jitter(landmarks: np.ndarray, valid: np.ndarray) -> float:
    """The tracking noise from frame to frame, in pixels.

    To remove the motion of the whole face, the mean of all points is subtracted in each frame. Then the distance is
    computed between each point and the average of the point's positions in the previous and the next frame. The
    distances are averaged over the points. The result is the median over the frames, or NaN if no three consecutive
    frames are valid.
    """
    xy = landmarks[..., :2] - landmarks[..., :2].mean(axis=1, keepdims=True)
    second = xy[1:-1] - (xy[:-2] + xy[2:]) / 2
    usable = valid[1:-1] & valid[:-2] & valid[2:]
    if not usable.any():
        return float("nan")
    return float(np.median(np.linalg.norm(second[usable], axis=-1).mean(axis=-1)))


_NO_POINTS: np.ndarray = np.full((N_POINTS, 3), np.nan, np.float32)
_NO_SHAPES: np.ndarray = np.full(len(BLENDSHAPE_NAMES), np.nan, np.float32)


def search_window(box: Box, others: Iterable[Box] = ()) -> Window:
    """The square in which the landmarker searches for the face of `box`.

    The square leaves room for forehead, hair and small movements. If possible, the square does not contain the centre
    of any box in `others`.
    """
    width = max(box.width, box.height)
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    gaps = [
        max(abs((o.left + o.right) / 2 - x), abs((o.top + o.bottom) / 2 - y))
        for o in others
        if centre_distance(o, box) > 0
    ]
    factor = max(_MIN_WINDOW, min([_WINDOW, *(1.8 * gap / width for gap in gaps)]))
    side = max(32, 2 * round(factor * width / 2))
    left, top = 2 * round((x - side / 2) / 2), 2 * round((y - side / 2) / 2)
    return left, top, left + side, top + side


def face_box(points: np.ndarray) -> Box:
    """The box that dlib's HOG detector would return for the face with the mesh points `points`, (478, 2 or 3).

    The mesh includes the forehead; the size of the mesh is 1.25 times the side of dlib's box.
    """
    (left, top), (right, bottom) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    x, y, half = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2 / 1.25
    return Box(float(x - half), float(y - half), float(x + half), float(y + half))


def _near_edge(points: np.ndarray, window: Window) -> bool:
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    inner = _MARGIN * (window[2] - window[0])
    return bool((low < np.array(window[:2]) + inner).any() or (high > np.array(window[2:]) - inner).any())


def _look(landmarker: FaceLandmarker, picture: Picture, window: Window, time_ms: int) -> FaceMesh | None:
    """Searches for the face in the part of the window that is inside the picture. The mesh is in source pixels."""
    left, top, right, bottom = picture.snap(*window)
    width, height = right - left, bottom - top
    if width < 2 or height < 2:
        return None
    scale = min(1.0, _WINDOW_PX / (window[2] - window[0]))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    mesh = landmarker.detect(picture.window(left, top, right, bottom, size), time_ms)
    if mesh is None:
        return None
    # The width and the height of the view are rounded to whole pixels, so that the scales of x and y can differ.
    back = np.array([width / size[0], height / size[1], width / size[0]])
    return FaceMesh((mesh.landmarks * back + (left, top, 0)).astype(np.float32), mesh.blendshapes)


def _bridge(landmarks: np.ndarray, valid: np.ndarray, max_gap: int) -> np.ndarray:
    """Fill short gaps of `landmarks` in place. Returns (T,) bool, True for valid frames and filled frames."""
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
