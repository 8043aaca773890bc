"""Runs PD-FGC: calls its `Tester` on aligned frames, and puts the face back into the crop of the case."""

from __future__ import annotations

import compat
import cv2
import numpy as np

_SIDE = 224  # px, of all its pictures
_WINDOW = np.array([[_SIDE / 192, 0, -16 * _SIDE / 192], [0, _SIDE / 192, 0]])  # its dataset enlarges [:192, 16:208]
# Where scripts/align_68.py of PC-AVS puts the middles of the eyes and of the inner lips, px.
_PLACES = np.array([[87.0, 59.0], [137.0, 59.0], [112.0, 120.0]])
_POINTS = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380), (78, 82, 13, 312, 308, 317, 14, 87))
# Its output begins with the third frame of the sound and ends two before the end; the sound has 3/4 of a frame more.
_BEFORE, _BEHIND = 2, 1  # frames of silence
_MODELS = ("appearance_model.pth", "motion_model.pth", "audio_model.pth", "generator_model.pth")


class Runner:
    """`Tester(cfg).inference` of lib/inferencer.py of Dorniwang/PD-FGC-inference, with `--all`."""

    def __init__(self, setup) -> None:  # type: ignore[no-untyped-def]
        if setup.device == "cpu":
            compat.cpu()
        compat.torchvision_operators()
        compat.numpy_names()
        compat.mel()
        compat.stub("lws", lws=_Lws)
        for name in _MODELS:
            compat.link(setup.work / "checkpoints" / name, setup.weights[name])
        with compat.arguments("inference.py", "--cfg_file", str(setup.checkout / "configs/inference.yaml"), "--all"):
            from lib.config.config import cfg
            from lib.inferencer import Tester
        self._setup, self._tester = setup, Tester(cfg)
        self._tester.reset_cfg(cfg)

    def generate(self, case) -> np.ndarray:  # type: ignore[no-untyped-def]
        """(T, H, W, 3) uint8 RGB, 25 frames/s."""
        compat.seed(case.seed)
        work = self._setup.work
        count = min(case.n_frames, self._setup.options.get("frames", case.n_frames))
        place = _alignments(case.reference_landmarks[:1])[0]
        picture = compat.warped(case.reference_frames[:1], place, (_SIDE, _SIDE))
        (path,) = compat.write_frames(work / "picture", picture)
        motion = _aligned(case.source_frames, _alignments(case.source_landmarks))
        case.note(f"pose of the source video ({len(motion)} frames), which begins again where it is shorter")
        folders = [_write(work / "pose", motion, count)]
        if self._setup.variant:
            motion = compat.warped(case.other_take_frames, place, (_SIDE, _SIDE))
            case.note("expression and eyes of another clip of the speaker with the target emotion")
        else:
            case.note("expression and eyes of the source video, because no other clip may be seen")
        folders += [_write(work / name, motion, count) for name in ("expression", "eyes")]
        silence = np.zeros(_BEFORE * 640, np.int16)
        sound = np.concatenate([silence, case.driving_audio[: count * 640]])
        sound = compat.write_wav(work / "sound.wav", compat.with_silence(sound, _BEHIND * 640))
        strips = self._tester.inference(str(sound), str(path), folders)
        faces = np.stack([strip[:, _SIDE : 2 * _SIDE, ::-1] for strip in strips])
        case.note("three points aligned as PC-AVS's align_68.py does; the output is put back by one similarity")
        case.note(f"silence of {_BEFORE} frames before and {_BEHIND} behind the sound, which is {len(faces)} frames")
        back = cv2.invertAffineTransform(_after(_WINDOW, place))
        frames = compat.warped(faces, back, case.size, border=1)
        if count < case.n_frames:
            case.note(f"test-only limit: {count} frames drawn, repeated in turn")
            return compat.repeated(frames, case.n_frames)
        return frames


def _alignments(landmarks: np.ndarray) -> np.ndarray:
    """(T, 2, 3): one similarity for all frames, moved in each frame so that the mouth stays at its place."""
    points = np.stack([landmarks[:, index, :2].mean(1) for index in _POINTS], 1)
    common = _similarity(points.mean(0), _PLACES)
    mouths = points[:, 2] @ common[:, :2].T + common[:, 2]
    shifts = _PLACES[2] - mouths
    for i in range(1, len(shifts)):
        shifts[i] = 0.2 * shifts[i - 1] + 0.8 * shifts[i]
    matrices = np.repeat(common[None], len(points), 0)
    matrices[:, :, 2] += shifts
    return matrices


def _similarity(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(2, 3): rotation, scale and shift with the least squared distances from `points` to `places`."""
    ones, zeros = np.ones(len(points)), np.zeros(len(points))
    x, y = points.T
    rows = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
    a, b, right, down = np.linalg.lstsq(rows, places.T.ravel(), rcond=None)[0]
    return np.array([[a, -b, right], [b, a, down]])


def _after(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(2, 3): the matrix of `first`, then `second`."""
    return second @ np.vstack([first, [0, 0, 1]])


def _aligned(frames: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    return np.concatenate([compat.warped(frames[i : i + 1], m, (_SIDE, _SIDE)) for i, m in enumerate(matrices)])


def _write(folder, frames: np.ndarray, count: int) -> str:  # type: ignore[no-untyped-def]
    """Writes the frames that drive `count` frames. Two are put before them, because `Tester` drops the first two."""
    compat.write_frames(folder, np.concatenate([frames[:1], frames[:1], frames[:count]]))
    return str(folder)


class _Lws:
    """The one function of the package lws that is used; lws 1.2.7 does not build on Python 3.11."""

    def __init__(self, size: int, hop: int, mode: str) -> None:
        self._size, self._hop = size, hop
        self._window = 0.5 * np.sin(np.pi * (np.arange(size) + 0.5) / size)

    def stft(self, wave: np.ndarray) -> np.ndarray:
        """(N,) to (frames, size / 2 + 1) complex; the wave is padded by size - hop zeros on both sides."""
        wave = np.pad(wave.astype(np.float64), self._size - self._hop)
        starts = range(0, len(wave) - self._size + 1, self._hop)
        return np.stack([np.fft.rfft(self._window * wave[start : start + self._size]) for start in starts])
