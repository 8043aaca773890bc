"""LSE-C, LSE-D and the offset between sound and lips, by SyncNet: confidence, distance, frames.

Source: joonson/syncnet_python at 1fbfc08, SyncNetInstance.py (`evaluate`), which Wav2Lip's evaluation copies. The
functions take embeddings of any network of two branches; the classes score a generated video by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np

from cmet_metrics.base import Metric, Sample, Score
from cmet_metrics.syncnet_crops import MIN_TRACK, LipCrops, from_landmarks, from_track, whole_frame
from talking_face.pretrained.store import weight_hash
from talking_face.pretrained.syncnet import syncnet, syncnet_tag
from talking_face.reasons import ClipError, Reason

VSHIFT = 15  # frames tried to each side
SAMPLES_A_FRAME = 640  # of 16 kHz at 25 frames/s
# The original scores windows 0 to length - 6, one fewer than there are: cepstra reach 15 ms past their frames.
LOST_FRAMES = 5
# Sound that ends early cuts the clip, as in the original; less than this share of the frames gives a reason instead.
MIN_HEARD = 0.5
SILENCE = 32  # of 32768, -60 dB: below it there is dither and the codec's noise, but no speech

Variant = Literal["track", "crop", "lm"]
Sound = Literal["driving", "source"]
CROPS: dict[str, tuple[str, Callable[[Sample], LipCrops]]] = {
    "track": (f"s3fd-track-224,min-track-{MIN_TRACK}", from_track),
    "crop": ("whole-frame-224", whole_frame),
    "lm": ("mediapipe478-224", from_landmarks),
}


class LipSyncNet(Protocol):
    """What a lip-sync network must offer; `talking_face.pretrained.syncnet.SyncNet` is one."""

    tag: str  # names the weights in signatures

    def lip(self, crops: np.ndarray) -> np.ndarray:
        """(T, 224, 224, 3) uint8 RGB to (T - 4, D): row i of frames i to i + 4."""

    def sound(self, samples: np.ndarray, windows: int) -> np.ndarray:
        """(N,) int16 at 16 kHz to (windows, D): row i of the sound of frames i to i + 4."""


@dataclass(frozen=True)
class LipSync:
    """What SyncNet says of one clip."""

    confidence: float  # LSE-C: median of `by_shift` less its minimum
    distance: float  # LSE-D: the minimum
    offset: int  # frames by which the sound is early; sound delayed by k frames gives -k
    windows: int
    by_shift: np.ndarray  # (2 * vshift + 1,) mean distance; entry vshift + k pairs lip window i with sound window i + k


def n_windows(n_frames: int, n_samples: int) -> int:
    """How many windows the original scores: min(frames, samples // 640) - 5, not below 0."""
    return max(0, min(n_frames, n_samples // SAMPLES_A_FRAME) - LOST_FRAMES)


def shifted_distances(lip: np.ndarray, sound: np.ndarray, vshift: int = VSHIFT) -> np.ndarray:
    """Mean over time of the distance between lips and sound, for every shift of the sound.

    As torch's `pairwise_distance`: Euclidean, 1e-6 added to each difference. Where the shift leaves the clip the sound
    is zero, so that a clip with fewer than about 30 windows is compared with nothing in the outer shifts.

    Args:
        lip, sound: (T, D), same shape, T >= 1.
        vshift: frames to each side.

    Returns:
        (2 * vshift + 1,) float64; entry vshift + k pairs lip[i] with sound[i + k].
    """
    if lip.shape != sound.shape or lip.ndim != 2 or not len(lip):
        raise ValueError(f"lip and sound must both be (T >= 1, D), got {lip.shape} and {sound.shape}")
    lip = lip.astype(np.float64) + 1e-6
    padded = np.pad(sound.astype(np.float64), ((vshift, vshift), (0, 0)))
    return np.array([np.linalg.norm(lip - padded[k : k + len(lip)], axis=1).mean() for k in range(2 * vshift + 1)])


def lip_sync(lip: np.ndarray, sound: np.ndarray, vshift: int = VSHIFT) -> LipSync:
    """Confidence, distance and offset from embeddings: lip, sound (T, D). Not the mean of per-frame confidences.

    Example:
        >>> eye = np.eye(60)
        >>> late = lip_sync(eye[10:40], eye[8:38])  # sound[i] belongs to lip[i - 2]
        >>> late.offset, round(late.distance, 3)
        (-2, 0.067)
    """
    by_shift = shifted_distances(lip, sound, vshift)
    best = int(by_shift.argmin())
    distance = float(by_shift[best])
    return LipSync(float(np.median(by_shift)) - distance, distance, vshift - best, len(lip), by_shift)


class LseC(Metric):
    """LSE-C: the higher, the more plainly one shift fits better than the others.

    A clip gets `no-audio`, `silent`, `too-short` (under 6 frames of picture and sound), `rate-mismatch` (not 25
    frames/s), `length-mismatch` (sound under half the frames), `no-face`, `few-faces` or `missing-weights`.
    `audio="source"` scores against the sound of the sample given as target, which must then be the source clip.
    Stats: windows, offset (signed), confidence, distance, frames, heard (frames that have sound).
    """

    name = "lse_c"
    higher_is_better = True
    unit = ""
    summary = "SyncNet's confidence that sound and lips belong together"
    needs_audio = True

    def __init__(self, variant: Variant = "track", audio: Sound = "driving") -> None:
        self.variant = variant
        self.crop: str = variant
        self.audio = audio
        self.needs_target = audio == "source"

    def network(self) -> LipSyncNet:
        """The network, loaded once a process. Raises MissingWeights. A subclass may give another and set `variant`."""
        return syncnet()

    def network_tag(self) -> str:
        """Its `tag`, given without loading it."""
        return syncnet_tag()

    def settings(self) -> Mapping[str, Any]:
        detector = {"detector": f"s3fd@{weight_hash('s3fd')[:8]}"} if self.crop == "track" else {}
        if self.crop == "lm":
            detector = {"detector": f"mediapipe478@{weight_hash('face_landmarker')[:8]}"}
        return {
            "network": self.network_tag(),
            "crop": CROPS[self.crop][0],
            **detector,
            "codec": "none",
            "audio": self.audio,
            "windows": "length-5",
            "vshift": VSHIFT,
            "min-heard": MIN_HEARD,
            "agg": "video-mean",
        }

    def value(self, sync: LipSync) -> float:
        """The metric's number."""
        return sync.confidence

    def compute(self, pred: Sample, target: Sample) -> Score:
        if self.audio == "source":
            sync, stats, detail = self.measure(pred, target)
        else:
            key = ("lip-sync", self.crop, self.network_tag())
            sync, stats, detail = pred.cached(key, lambda sample: self.measure(sample, sample))
        return Score(self.value(sync), sync.windows, None, detail, stats)

    def measure(self, pred: Sample, sound: Sample) -> tuple[LipSync, dict[str, float], str]:
        """One pass for all three metrics: the result, its stats and what a user should know."""
        if pred.frames.dtype != np.uint8:
            raise ValueError(f"{pred.name}: lip-sync metrics need uint8 frames, got {pred.frames.dtype}")
        if pred.fps != 25:
            raise ClipError(Reason.RATE_MISMATCH, f"{pred.name} has {pred.fps:g} frames/s; SyncNet needs 25")
        if sound.audio is None or not len(sound.audio):
            raise ClipError(Reason.NO_AUDIO, f"{sound.name} has no sound")
        self._check_length(len(pred.frames), sound.audio, pred.name)
        net = self.network()
        start, lips = pred.cached(("lips", self.crop, net.tag), lambda sample: self._lips(sample, net))
        audio = sound.audio[start * SAMPLES_A_FRAME :]
        frames = len(lips) + LOST_FRAMES - 1
        heard = self._check_length(frames, audio, pred.name)
        windows = n_windows(frames, len(audio))
        heard_as = sound.cached(("sound", net.tag, start, windows), lambda sample: net.sound(audio, windows))
        sync = lip_sync(lips[:windows], heard_as)
        stats = {
            "windows": float(windows),
            "offset": float(sync.offset),
            "confidence": sync.confidence,
            "distance": sync.distance,
            "frames": float(len(pred.frames)),
            "heard": float(heard),
        }
        detail = f"{heard} of {len(pred.frames)} frames have sound and a face" if heard < len(pred.frames) else ""
        return sync, stats, detail

    def _lips(self, sample: Sample, net: LipSyncNet) -> tuple[int, np.ndarray]:
        found = CROPS[self.crop][1](sample)
        if len(found.crops) <= LOST_FRAMES:
            raise ClipError(Reason.TOO_SHORT, f"{sample.name}: a face through {len(found.crops)} frames; 6 needed")
        return found.start, net.lip(found.crops)

    @staticmethod
    def _check_length(frames: int, audio: np.ndarray, name: str) -> int:
        """How many of the frames have sound; raises ClipError too-short, length-mismatch or silent."""
        heard = min(frames, len(audio) // SAMPLES_A_FRAME)
        if frames <= LOST_FRAMES or heard <= LOST_FRAMES:
            raise ClipError(Reason.TOO_SHORT, f"{name}: sound for {heard} of {frames} frames; {LOST_FRAMES + 1} needed")
        if heard < MIN_HEARD * frames:
            raise ClipError(Reason.LENGTH_MISMATCH, f"{name}: sound for {heard} of {frames} frames")
        if np.abs(audio[: heard * SAMPLES_A_FRAME].astype(np.int32)).max() < SILENCE:
            raise ClipError(Reason.SILENT, f"{name}: the sound is silent, under -60 dB throughout")
        return heard


class LseD(LseC):
    """LSE-D: the mean distance of lips and sound at the shift where they fit best. Otherwise as `LseC`."""

    name = "lse_d"
    higher_is_better = False
    summary = "SyncNet's distance between sound and lips at the best shift"

    def value(self, sync: LipSync) -> float:
        return sync.distance


class LseOffset(LseC):
    """How many frames the sound is early or late; the signed offset of the original is in the stats, as `offset`."""

    name = "lse_offset"
    higher_is_better = False
    unit = "frames"
    summary = "SyncNet's offset between sound and lips, either way"

    def settings(self) -> Mapping[str, Any]:
        return {"value": "absolute", **super().settings()}

    def value(self, sync: LipSync) -> float:
        return float(abs(sync.offset))


LSE_METRICS: tuple[LseC, ...] = tuple(
    kind(variant) for kind in (LseC, LseD, LseOffset) for variant in get_args(Variant)
)
