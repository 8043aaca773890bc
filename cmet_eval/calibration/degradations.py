"""Known ways to degrade a video. Each way is a pure function of a clip and a step. DEGRADATIONS lists all ways.

Step 0 changes nothing. In `scale_mouth`, step 1 changes nothing. Pictures are (T, H, W, 3) uint8 RGB at 25
frames/s; sound is (N,) int16 mono at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import cv2
import numpy as np

from cmet_eval.runs.generate import WRITER
from cmet_metrics.base import Labels
from cmet_metrics.landmarks import RIGID, eye_distance
from talking_face.faces.eat import similarity
from talking_face.faces.points68 import MOUTH
from talking_face.media.reading import AUDIO_RATE, FPS, read_frames
from talking_face.media.writing import Encoding, write_video
from talking_face.scratch import scratch_folder

Step = float | str
SAMPLES = round(AUDIO_RATE / FPS)  # audio samples per frame


class Video(NamedTuple):
    """A degraded clip."""

    frames: np.ndarray  # (T, H, W, 3) uint8 RGB
    audio: np.ndarray  # (N,) int16


@dataclass(frozen=True)
class CalibrationClip:
    """A clip to degrade. Its functions return (T, H, W, 3) pictures; None: this change is impossible for the clip."""

    name: str
    group: str  # "embedded" for a clip of the embedded corpus, else "real"
    frames: np.ndarray
    audio: np.ndarray
    points: np.ndarray  # (T, 68, 2) px, NaN without a face
    labels: Labels = field(default_factory=Labels)
    with_mouth: Callable[[float], np.ndarray] | None = None  # scales only the mouth's movement, by a factor
    with_other_face: Callable[[], np.ndarray] | None = None  # shows another speaker
    with_other_emotion: Callable[[], np.ndarray] | None = None  # shows labels.reference_emotion
    mesh: tuple[np.ndarray, np.ndarray] | None = None  # (T, 478, 3) points and (T, 52) blendshapes, if they are known


class NotMakeable(Exception):
    """The degradation is impossible for the clip, for example because the clip cannot be drawn again."""


def encoded(frames: np.ndarray, encoding: Encoding, suffix: str = ".mkv") -> np.ndarray:
    """The frames after encoding and decoding. `suffix` determines the container; the default is Matroska."""
    with scratch_folder() as folder:
        path = folder / f"clip{suffix}"
        write_video(path, frames, FPS, encoding=encoding)
        return read_frames(path, None)


def as_written(frames: np.ndarray) -> np.ndarray:
    """The frames after encoding and decoding with the settings that this suite uses for every generated video."""
    return encoded(frames, Encoding(**WRITER))


def stand_in(frames: np.ndarray) -> np.ndarray:
    """Frames similar to the output of a method: the clip's frames, blurred (sigma 2 px) and two frames late.

    Noise bands are measured on the stand-in and not on the ground truth. The reason is that the same change lowers the
    PSNR of a method by less than 1 dB and the PSNR of the ground truth by 10 dB.
    """
    late = frames[np.maximum(np.arange(len(frames)) - 2, 0)]
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 2.0) for frame in late])


def reencode(clip: CalibrationClip, crf: Step) -> Video:
    """Encodes the pictures as H.264 4:2:0 with the quality `crf`; 0: no change."""
    if crf == 0:
        return Video(clip.frames, clip.audio)
    return Video(encoded(clip.frames, Encoding(crf=int(crf), pix_fmt="yuv420p")), clip.audio)


def move(clip: CalibrationClip, px: Step) -> Video:
    """Moves the pictures `px` pixels to the right. The gap on the left is filled with the pixels of the left edge."""
    k = int(px)
    padded = np.pad(clip.frames, ((0, 0), (0, 0), (k, 0), (0, 0)), mode="edge")
    return Video(np.ascontiguousarray(padded[:, :, : clip.frames.shape[2]]), clip.audio)


def blur(clip: CalibrationClip, sigma: Step) -> Video:
    """Gaussian blur with `sigma` px; 0: no change."""
    if sigma == 0:
        return Video(clip.frames, clip.audio)
    return Video(np.stack([cv2.GaussianBlur(f, (0, 0), float(sigma)) for f in clip.frames]), clip.audio)


def jpeg(clip: CalibrationClip, quality: Step) -> Video:
    """Encodes each frame as JPEG with this quality; 0: no change."""
    if quality == 0:
        return Video(clip.frames, clip.audio)
    flags = [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
    bgr = [cv2.imdecode(cv2.imencode(".jpg", f[..., ::-1], flags)[1], cv2.IMREAD_COLOR) for f in clip.frames]
    return Video(np.ascontiguousarray(np.array(bgr)[..., ::-1]), clip.audio)


def change_codec(clip: CalibrationClip, name: Step) -> Video:
    """Encodes the pictures with the codec `name` in _CODECS; 0: no change."""
    if name == 0:
        return Video(clip.frames, clip.audio)
    return Video(encoded(clip.frames, *_CODECS[str(name)]), clip.audio)


_CODECS: dict[str, tuple[Encoding, str]] = {
    "vp8": (
        Encoding(codec="libvpx", pix_fmt="yuv420p", options={"b": "2000000", "deadline": "realtime"}),
        ".mkv",
    ),
    "mpeg4": (Encoding(codec="mpeg4", pix_fmt="yuv420p", options={"b": "2000000"}), ".avi"),
    "mpeg1": (Encoding(codec="mpeg1video", pix_fmt="yuv420p", options={"b": "2000000"}), ".mkv"),
}


def hold(clip: CalibrationClip, n: Step) -> Video:
    """Replaces every n-th frame by the frame before it, like a player that skips frames; 0: no change."""
    index = np.arange(len(clip.frames))
    if n:
        index[int(n) - 1 :: int(n)] -= 1
    return Video(clip.frames[np.maximum(index, 0)], clip.audio)


def remove(clip: CalibrationClip, k: Step) -> Video:
    """Removes `k` evenly spread frames, so that the clip is shorter than its ground truth."""
    count = int(k)
    gone = ((np.arange(count) + 0.5) * len(clip.frames) / max(count, 1)).astype(int)
    return Video(np.delete(clip.frames, gone, axis=0) if count else clip.frames, clip.audio)


def shift_sound(clip: CalibrationClip, k: Step) -> Video:
    """Moves the sound `k` frames earlier, or later if `k` is negative. The gap is silent.

    The offset that SyncNet measures grows by k.
    """
    n = int(k) * SAMPLES
    out = np.zeros_like(clip.audio)
    if n >= 0:
        out[: len(out) - n] = clip.audio[n:]
    else:
        out[-n:] = clip.audio[:n]
    return Video(clip.frames, out)


def freeze_mouth(clip: CalibrationClip, share: Step) -> Video:
    """Draws the mouth of the first frame with a face over the mouth in all frames. `share`: opacity, 1 is opaque.

    The position of the drawn mouth follows those landmarks that do not move with the expression. The drawn area is the
    convex hull of the drawn mouth and the frame's mouth, widened by 0.2 of the distance between the eyes. Its edge is
    soft.
    """
    out = clip.frames.copy()
    seen = np.flatnonzero(np.isfinite(clip.points).all(axis=(1, 2)))
    if not share or not len(seen):
        return Video(out, clip.audio)
    first, eyes = seen[0], float(np.median(eye_distance(clip.points[seen])))
    h, w = out.shape[1:3]
    for t in seen:
        matrix = similarity(clip.points[first, RIGID].astype(float), clip.points[t, RIGID].astype(float))[:2]
        held = clip.points[first, MOUTH] @ matrix[:, :2].T + matrix[:, 2]
        hull = cv2.convexHull(np.concatenate([held, clip.points[t, MOUTH]]).astype(np.float32)).round().astype(np.int32)
        mask: np.ndarray = np.zeros((h, w), np.float32)
        cv2.fillConvexPoly(mask, hull, 1.0)
        width = 2 * round(0.2 * eyes) + 1
        mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
        mask = cv2.GaussianBlur(mask, (0, 0), 0.05 * eyes)[..., None] * float(share)
        patch = cv2.warpAffine(clip.frames[first], matrix, (w, h), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        out[t] = np.clip(patch * mask + out[t] * (1 - mask), 0, 255).round()
    return Video(out, clip.audio)


def scale_mouth(clip: CalibrationClip, factor: Step) -> Video:
    """Draws the clip again with the mouth's movement times `factor`. The control, factor 1, changes nothing."""
    if clip.with_mouth is None:
        raise NotMakeable
    return Video(clip.with_mouth(float(factor)), clip.audio)


def swap_identity(clip: CalibrationClip, _: Step) -> Video:
    """Shows another speaker.

    A clip of the embedded corpus is drawn again with another face and the same movements. A real clip is replaced by
    the frames of another clip, so the sentence differs too.
    """
    if clip.with_other_face is None:
        raise NotMakeable
    return Video(clip.with_other_face(), clip.audio)


def swap_emotion(clip: CalibrationClip, _: Step) -> Video:
    """Shows the emotion `labels.reference_emotion` on the same face, with the same movement of mouth and head."""
    if clip.with_other_emotion is None:
        raise NotMakeable
    return Video(clip.with_other_emotion(), clip.audio)


@dataclass(frozen=True)
class Degradation:
    """One way to degrade a clip. The record of a metric states how the metric should react."""

    name: str
    unit: str  # unit of the steps
    steps: tuple[Step, ...]  # weak to strong
    apply: Callable[[CalibrationClip, Step], Video]
    sound_only: bool = False  # only the sound changes, so only metrics that need the sound are computed


_REENCODE = Degradation("reencode", "crf", (18, 23, 33), reencode)
_MOVE = Degradation("move", "px", (1, 2), move)
# The changes of a metric by these degradations of the stand-in are noise; NOT_IN_BAND in noise.py lists changes that do
# not count for the noise band. Crf 33 is left out, because it is real damage and not only noise.
NOISE: tuple[Degradation, ...] = (replace(_REENCODE, steps=(18, 23)), _MOVE)
DEGRADATIONS: tuple[Degradation, ...] = (
    _REENCODE,
    _MOVE,
    Degradation("blur", "sigma, px", (1, 2, 4), blur),
    Degradation("jpeg", "quality", (50, 20, 5), jpeg),
    Degradation("codec", "codec", ("vp8", "mpeg4", "mpeg1"), change_codec),
    Degradation("mouth-frozen", "share", (1,), freeze_mouth),
    Degradation("mouth-amplitude", "factor", (1, 0.5, 0), scale_mouth),
    Degradation("sound-shift", "frames earlier", (*range(-10, 0), *range(1, 11)), shift_sound, sound_only=True),
    Degradation("identity-swap", "", ("swapped",), swap_identity),
    Degradation("emotion-swap", "", ("swapped",), swap_emotion),
    Degradation("frames-held", "one in", (10, 4, 2), hold),
    Degradation("frames-removed", "frames", (1, 5), remove),
)
