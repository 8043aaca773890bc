"""Makes the tables of docs/experiments/faces.md.

Recall of faces against their height, the speaking face of two, MediaPipe's points
against dlib's in the aligned crops. On real people: GRID clips, 360x288.

    python tests/benchmarks/faces_tables.py recall|speaking|align CLIPS/*.mpg
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from talking_face.faces.align import ALIGN_MODES, find_dlib68
from talking_face.faces.crop import apply_transform, invert
from talking_face.faces.find import find_faces, main_first
from talking_face.faces.points68 import to_68
from talking_face.faces.speaking import choose_speaker
from talking_face.faces.track import FaceTrack, search_window, track_face
from talking_face.media import ArrayPicture, read_audio, read_frames
from talking_face.pretrained.dlib_models import Box, detect_faces_hog
from talking_face.pretrained.face_landmarker import FaceLandmarker
from talking_face.threads import limit_threads
from tests.models import models

WIDTH, HEIGHT = 1280, 720
HEIGHTS = (20, 24, 30, 40, 50, 60, 80, 100, 140, 180, 220, 300)
_RIGHT = 0.1  # a mesh is right whose points lie on average within a tenth of the face's height


def coloured_noise(seed: int) -> np.ndarray:
    """(720, 1280, 3) uint8 with detail of every size, so that a finder has something to be wrong about."""
    rng = np.random.default_rng(seed)
    total = np.zeros((HEIGHT, WIDTH, 3))
    for step in (4, 8, 16, 32, 64, 128):
        grain = rng.normal(size=(HEIGHT // step + 2, WIDTH // step + 2, 3)).astype(np.float32)
        total += cv2.resize(grain, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) * step**0.5
    return np.clip(120 + 45 * total / total.std(), 0, 255).astype(np.uint8)


def hog_faces(picture: ArrayPicture) -> Box | None:
    """dlib's finder at growing sizes of the picture, until it finds a face."""
    for side in (640, 1280, 1920):
        scale = side / WIDTH
        grey = cv2.cvtColor(picture.rgb(), cv2.COLOR_RGB2GRAY)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        boxes = detect_faces_hog(cv2.resize(grey, (side, round(HEIGHT * scale)), interpolation=how))
        if boxes:
            best = max(boxes, key=lambda box: box.width)
            return Box(*(value / scale for value in best[:4]))
    return None


def tile_faces(picture: ArrayPicture) -> Box | None:
    """The pipeline's finder."""
    return next(iter(main_first(find_faces(picture, files=models()), WIDTH, HEIGHT)), None)


def recall(clips: list[Path]) -> None:
    """How many of the faces get a mesh in the right place."""
    faces = []
    for clip in clips:
        frames = read_frames(clip)[:41:20]
        track = track_face(map(ArrayPicture, frames), files=models())
        faces += [(frame, points[:, :2]) for frame, points in zip(frames, track.landmarks, strict=True)]
    finders: dict[str, Callable[[ArrayPicture], Box | None] | None] = {
        "landmarker alone": None,
        "dlib's HOG, then landmarker": hog_faces,
        "squares, then landmarker": tile_faces,
    }
    rows: dict[int, list[str]] = {}
    for height in HEIGHTS:
        right, seconds, errors = Counter[str](), Counter[str](), []
        for k, (frame, mesh) in enumerate(faces):
            picture, truth = _placed(frame, mesh, height, coloured_noise(k % 6), k)
            for name, finder in finders.items():
                started = time.process_time()
                box = finder(picture) if finder else None
                seconds[name] += time.process_time() - started
                found = _mesh(picture, box) if box or not finder else None
                if found is not None and (error := _error(found, truth)) < _RIGHT:
                    right[name] += 1
                    if finder is tile_faces:
                        errors.append(error)
        row = [f"{right[name] / len(faces):.0%}" for name in finders]
        row += [f"{seconds[name] / len(faces) * 1000:.0f}" for name, finder in finders.items() if finder]
        rows[height] = [*row, f"{np.mean(errors):.1%}" if errors else ""]
        print(f"| {height} | " + " | ".join(rows[height]) + " |", flush=True)


def speaking(clips: list[Path]) -> None:
    """Two people, the main one not the one who is heard, in every order."""
    frames = [read_frames(clip) for clip in clips]
    sounds = [read_audio(clip) for clip in clips]
    pairs = list(itertools.permutations(range(len(clips)), 2))

    def tell(name: str, choices: list[tuple[bool, str]]) -> None:
        hows = Counter(how for _, how in choices)
        right = sum(ok for ok, _ in choices)
        print(f"| {name} | {right} of {len(choices)} | {hows['speaking']} | {hows['largest']} |", flush=True)

    tracks = [track_face(map(ArrayPicture, one), files=models()) for one in frames]
    rng = np.random.default_rng(0)

    def noisy(sound: np.ndarray, db: float) -> np.ndarray:
        loud = np.sqrt(np.mean(sound.astype(np.float64) ** 2)) / 10 ** (db / 20)
        return np.clip(sound + rng.normal(size=len(sound)) * loud, -32768, 32767).astype(np.int16)

    right = sum(
        _plain(tracks[speaker].landmarks, sounds[speaker]) > _plain(tracks[other].landmarks, sounds[speaker])
        for speaker, other in pairs
    )
    print(f"| (lips' opening against loudness alone) | {right} of {len(pairs)} | | |", flush=True)
    changed: dict[str, tuple[Callable[[np.ndarray], np.ndarray], slice]] = {
        "as they are": (lambda sound: sound, slice(0, 75)),
        "sound 2 frames late": (lambda sound: np.roll(sound, 2 * 640), slice(0, 75)),
        "sound 4 frames late": (lambda sound: np.roll(sound, 4 * 640), slice(0, 75)),
        "white noise 20 dB below the speech": (lambda sound: noisy(sound, 20), slice(0, 75)),
        "white noise 10 dB below the speech": (lambda sound: noisy(sound, 10), slice(0, 75)),
        "2 s": (lambda sound: sound[10 * 640 :], slice(10, 60)),
        "1 s": (lambda sound: sound[20 * 640 :], slice(20, 45)),
    }
    for name, (change, part) in changed.items():
        choices = []
        for speaker, other in pairs:
            two = (tracks[other], tracks[speaker])
            taken = choose_speaker(
                [t.landmarks[part] for t in two], [t.valid[part] for t in two], change(sounds[speaker])
            )
            choices.append((taken.index == 1, taken.how))
        tell(name, choices)
    for silent in (True, False):
        choices = []
        for speaker, other in pairs:
            beside = frames[other]
            if silent:  # the first eight frames, before anybody speaks, there and back
                beside = beside[np.abs(np.arange(len(frames[speaker])) % 14 - 7)]
            # The sound's owner on the right, at three quarters of its size, so that the other is the main face.
            both = [_side_by_side(b, a) for a, b in zip(frames[speaker], beside, strict=False)]
            track = track_face(map(ArrayPicture, both), sound=lambda: sounds[speaker], files=models())  # noqa: B023
            on_right = np.nanmean(track.landmarks[..., 0]) > both[0].shape[1] / 2
            choices.append((bool(on_right), track.choice.how))
        tell("side by side in one picture, " + ("the other silent" if silent else "both talking"), choices)


def _plain(landmarks: np.ndarray, sound: np.ndarray) -> float:
    """The obvious measure: how the inner lips' opening goes with the loudness, at the best of the same lags."""
    opening = np.linalg.norm(landmarks[:, 13, :2] - landmarks[:, 14, :2], axis=1)
    n = min(len(opening), len(sound) // 640)
    loud = np.sqrt((sound[: n * 640].reshape(n, 640).astype(np.float64) ** 2).mean(axis=1))
    lags = [(max(0, lag), max(0, -lag), n - abs(lag)) for lag in range(-5, 6)]
    return float(max(np.corrcoef(opening[a : a + m], loud[b : b + m])[0, 1] for a, b, m in lags))


def _side_by_side(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    smaller = cv2.resize(right, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    picture = np.full((left.shape[0], left.shape[1] + smaller.shape[1], 3), 90, np.uint8)
    picture[:, : left.shape[1]] = left
    picture[-smaller.shape[0] :, left.shape[1] :] = smaller
    return picture


def align(clips: list[Path]) -> None:
    """How far a mode's crop on MediaPipe's points lies from the same on dlib's, in percent of the crop's side."""
    far: dict[str, list[np.ndarray]] = {name: [] for name in ("eat-128-mp", "ffhq", "arcface-112")}
    for clip in clips:
        frames = read_frames(clip)[:41:20]
        track: FaceTrack = track_face(map(ArrayPicture, frames), files=models())
        for frame, mesh in zip(frames, track.landmarks, strict=True):
            theirs = find_dlib68(frame, files=models())
            if theirs is None:
                continue
            for name, found in far.items():
                mode = ALIGN_MODES[name]
                size = mode.size or 256
                a, b = (
                    mode.place(points[None].astype(np.float32), np.ones(1, bool), track.size, size, 1.5)[0]
                    for points in (to_68(mesh), theirs)
                )
                corners = np.array([[[0, 0], [size, 0], [0, size], [size, size], [size / 2, size / 2]]])
                moved = apply_transform(a[None], apply_transform(invert(b)[None], corners)) - corners
                found.append(np.linalg.norm(moved[0], axis=-1) / size)
    for name, values in far.items():
        table = np.stack(values)
        print(f"| {name} | {table[:, 4].mean():.1%} | {table[:, :4].mean():.1%} | {table.max():.1%} |", flush=True)


def _placed(
    frame: np.ndarray, mesh: np.ndarray, height: int, background: np.ndarray, seed: int
) -> tuple[ArrayPicture, np.ndarray]:
    scale = height / float(np.ptp(mesh[:, 1]))
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    rng = np.random.default_rng(seed)
    x, y = (int(rng.integers(0, n - m + 1)) for n, m in ((WIDTH, small.shape[1]), (HEIGHT, small.shape[0])))
    picture = background.copy()
    picture[y : y + small.shape[0], x : x + small.shape[1]] = small
    return ArrayPicture(picture), mesh * scale + (x, y)


def _mesh(picture: ArrayPicture, box: Box | None) -> np.ndarray | None:
    left, top, right, bottom = picture.snap(*search_window(box)) if box else (0, 0, WIDTH, HEIGHT)
    with FaceLandmarker("image", files=models()) as landmarker:
        found = landmarker.detect(picture.window(left, top, right, bottom))
    return None if found is None else found.landmarks[:, :2] + (left, top)


def _error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth, axis=1).mean() / np.ptp(truth[:, 1]))


if __name__ == "__main__":
    limit_threads(1)
    {"recall": recall, "speaking": speaking, "align": align}[sys.argv[1]]([Path(path) for path in sys.argv[2:]])
