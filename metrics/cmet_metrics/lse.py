"""Computes LSE-C (confidence), LSE-D (distance) and the offset between sound and lips in frames, by SyncNet.

Source: joonson/syncnet_python at 1fbfc08, SyncNetInstance.py (`evaluate`), which the evaluations of Wav2Lip and of
LatentSync copy. The
functions use the embeddings of any network with one branch for lips and one for sound. The class `Lse` scores a
generated video and needs no ground truth, except with `audio="source"` or `network="corpus"`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, Protocol

import numpy as np

from cmet_metrics.base import Profile, Sample, Score, Settings, Variant, check_audio
from cmet_metrics.landmarks import MEDIAPIPE_MS, points_id
from cmet_metrics.scene_cuts import Scenes
from cmet_metrics.sync import SyncMetric
from cmet_metrics.syncnet_crops import MIN_TRACK, LipCrops, corpus_mouths, from_landmarks, from_tracks, whole_frame
from talking_face.pretrained import evaluator_networks, trained_evaluators
from talking_face.pretrained.face_landmarker import landmarker_tag
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import weight_hash
from talking_face.pretrained.syncnet import syncnet, syncnet_tag
from talking_face.pretrained.trained_evaluators import Kind
from talking_face.reasons import ClipError, Reason, UserError

VSHIFT = 15  # the largest shift that is tried, in frames, to each side
SAMPLES_A_FRAME = 640  # samples of sound per frame, at 16 kHz and 25 frames/s
# The number of frames minus the number of windows. The original scores windows 0 to length - 6. The original leaves out
# the last possible window, because the cepstra of a window need sound up to 15 ms after its last frame.
LOST_FRAMES = 5
# If the sound ends early, only the frames with sound are scored, as in the original. A clip gets a reason if fewer than
# this share of its frames have sound.
MIN_HEARD = 0.5
SILENCE = 32  # of 32768, -60 dB; a sound that is always below this level is only dither or noise, so it is silent

Crop = Literal["track", "crop", "lm", "mouth"]
Network = Literal["syncnet", "corpus"]
Sound = Literal["driving", "source"]
Measure = Literal["confidence", "distance", "offset"]
Tracks = Literal["longest", "mean"]
Rate = Literal["25", "any"]

_CROPS: dict[Crop, tuple[str, Callable[[Sample, ModelFiles], LipCrops]]] = {
    "crop": ("whole-frame-224", whole_frame),
    "lm": ("mediapipe478-224", from_landmarks),
    "mouth": (f"mouth-{evaluator_networks.SIZE}-grey", corpus_mouths),
}
_DETECTORS: dict[Crop, tuple[str, str]] = {"track": ("s3fd", "s3fd"), "lm": ("mediapipe478", "face_landmarker")}


class LipSyncNet(Protocol):
    """The interface of a lip-sync network; `talking_face.pretrained.syncnet.SyncNet` is one."""

    tag: str  # names the weights in signatures

    def lip(self, crops: np.ndarray) -> np.ndarray:
        """(T - 4, D) embeddings of crops of T frames, as in `LipCrops.crops`. Row i belongs to frames i to i + 4."""

    def sound(self, samples: np.ndarray, windows: int) -> np.ndarray:
        """(windows, D) embeddings of sound, (N,) int16 at 16 kHz. Row i belongs to the sound of frames i to i + 4."""


@dataclass(frozen=True)
class LipSync:
    """The result of a lip-sync network on one clip."""

    confidence: float  # LSE-C: median of `by_shift` minus its minimum
    distance: float  # LSE-D: minimum of `by_shift`
    offset: int  # number of frames by which the sound is early; negative if the sound is late
    windows: int
    by_shift: np.ndarray  # (2 * vshift + 1,) mean distance for each shift; see `shifted_distances`


def n_windows(n_frames: int, n_samples: int) -> int:
    """The number of windows that the original scores: min(frames, samples // 640) - 5, not below 0."""
    return max(0, min(n_frames, n_samples // SAMPLES_A_FRAME) - LOST_FRAMES)


def shifted_distances(lip: np.ndarray, sound: np.ndarray, vshift: int = VSHIFT) -> np.ndarray:
    """Mean over time of the distance between lip and sound embeddings, for every shift of the sound.

    The distance is torch's `pairwise_distance`: Euclidean, with 1e-6 added to each difference. Outside the clip, the
    sound embeddings are zero. Therefore, if a clip has fewer than about 30 windows, its lips are compared mostly with
    zeros at the largest shifts.

    Args:
        lip, sound: (T, D), same shape, T >= 1.
        vshift: the largest shift to each side, in frames.

    Returns:
        (2 * vshift + 1,) float64; entry vshift + k compares lip[i] with sound[i + k].
    """
    if lip.shape != sound.shape or lip.ndim != 2 or not len(lip):
        raise ValueError(f"lip and sound must both be (T >= 1, D), got {lip.shape} and {sound.shape}")
    lip = lip.astype(np.float64) + 1e-6
    padded = np.pad(sound.astype(np.float64), ((vshift, vshift), (0, 0)))
    return np.array([np.linalg.norm(lip - padded[k : k + len(lip)], axis=1).mean() for k in range(2 * vshift + 1)])


def lip_sync(lip: np.ndarray, sound: np.ndarray, vshift: int = VSHIFT) -> LipSync:
    """Confidence, distance and offset from the embeddings of lips and sound, (T, D) each.

    The confidence is computed from the mean distances; it is not the mean of per-frame confidences.

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


def check_sound(frames: int, audio: np.ndarray, name: str) -> int:
    """The number of frames, among the first `frames` frames, that have sound.

    Args:
        frames: number of frames.
        audio: (N,) int16 at 16 kHz, sample 0 at the first frame.
        name: the clip's name, for error messages.

    Raises:
        ClipError: too-short, length-mismatch or silent.
        ValueError: the sound is not (N,) int16.
    """
    check_audio(audio, name)
    heard = min(frames, len(audio) // SAMPLES_A_FRAME)
    if frames <= LOST_FRAMES or heard <= LOST_FRAMES:
        raise ClipError(Reason.TOO_SHORT, f"{name}: sound for {heard} of {frames} frames; {LOST_FRAMES + 1} needed")
    if heard < MIN_HEARD * frames:
        raise ClipError(Reason.LENGTH_MISMATCH, f"{name}: sound for {heard} of {frames} frames")
    if np.abs(audio[: heard * SAMPLES_A_FRAME].astype(np.int32)).max() < SILENCE:
        raise ClipError(Reason.SILENT, f"{name}: the sound is silent, under -60 dB throughout")
    return heard


_SUMMARIES: dict[Measure, str] = {
    "confidence": "SyncNet's confidence that sound and lips belong together",
    "distance": "SyncNet's distance between sound and lips at the best shift",
    "offset": "SyncNet's offset between sound and lips, either way",
}
_NAMES: dict[Measure, str] = {"confidence": "lse_c", "distance": "lse_d", "offset": "lse_offset"}
_VARIANTS: dict[str, dict[str, object]] = {
    "track": {},
    "crop": {"crop": "crop"},
    "lm": {"crop": "lm"},
    "corpus": {"crop": "mouth", "network": "corpus"},
    # Scenes, tracks and sound as in the code with this name, without its lossy copies; see docs/reference/protocols.md.
    "wav2lip-lrs": {"crop": "crop", "rate": "any"},
    "syncnet-demo": {"min_track": 100, "scenes": "pyscenedetect-0.5.1", "tracks": "mean"},
    "latentsync": {"min_track": 50, "scenes": "pyscenedetect-0.6.1", "tracks": "mean"},
}


def _variants() -> dict[str, Variant]:
    return {
        f"{_NAMES[measure]}:{variant}": Variant(summary, {"measure": measure, **arguments})
        for measure, summary in _SUMMARIES.items()
        for variant, arguments in _VARIANTS.items()
    }


@dataclass(frozen=True, kw_only=True)
class Lse(SyncMetric):
    """LSE-C (confidence), LSE-D (distance) and the offset between sound and lips, by a lip-sync network.

    `confidence` is high if one shift of the sound fits much better than the other shifts. `distance` is the mean
    distance between lips and sound at the best shift. `offset` is the number of frames by which the sound is early or
    late, without a sign; the stats contain the offset with its sign. The network trained on the corpus has embeddings
    of length 1, so its LSE-C is 0 to about 1 and its LSE-D is 0 to 2.

    Reasons: `no-audio`, `silent`, `too-short` (fewer than 6 frames with picture and sound), `rate-mismatch` (not 25
    frames/s), `length-mismatch` (sound for less than half of the frames), `no-face`, `few-faces`, `missing-weights`.
    With `audio="source"`, the lips are compared with the sound of `target`, which must then be the source clip.
    With `tracks="mean"`, the value is the mean over all face tracks of the video, and the offset is rounded towards 0.
    Stats: windows, offset (signed), confidence, distance, frames, heard (number of frames that have sound), and tracks
    with `tracks="mean"`.
    """

    measure: Measure = "confidence"
    crop: Crop = "track"  # track: S3FD's boxes; crop: whole frame; lm: MediaPipe's points; mouth: for network=corpus
    network: Network = "syncnet"
    audio: Sound = "driving"
    min_track: int = MIN_TRACK  # for crop=track: a track needs more boxes, and a scene as many frames
    scenes: Scenes = "one"  # for crop=track: how the clip is divided into scenes; a track ends with its scene
    tracks: Tracks = "longest"  # for crop=track: the longest track, or the mean over all tracks
    rate: Rate = "25"  # any: 0.04 s of sound belong to each frame, also in a video of another rate

    pitfalls = (
        "A high LSE-C does not mean good lips: methods that were trained against SyncNet exceed real videos. In "
        "short clips the shifted sound is partly zeros, so do not compare sets of clips of different length. The "
        "crop changes the scale."
    )
    source = "github.com/joonson/syncnet_python at 1fbfc08, SyncNetInstance.py, evaluate"
    bibtex = """@inproceedings{prajwal2020wav2lip,
  author = {Prajwal, K R and Mukhopadhyay, Rudrabha and Namboodiri, Vinay P. and Jawahar, C. V.},
  title = {A lip sync expert is all you need for speech to lip generation in the wild},
  booktitle = {ACM Multimedia}, year = {2020}}
@inproceedings{chung2016syncnet,
  author = {Chung, Joon Son and Zisserman, Andrew},
  title = {Out of time: automated lip sync in the wild},
  booktitle = {ACCV Workshops}, year = {2016}}"""
    variants = _variants()

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.network == "corpus") != (self.crop == "mouth"):
            raise UserError(f"{self.name}: crop=mouth goes with network=corpus, and only with it")
        if self.crop != "track" and (self.min_track, self.scenes, self.tracks) != (MIN_TRACK, "one", "longest"):
            raise UserError(f"{self.name}: min_track, scenes and tracks go only with crop=track")

    @property
    def name(self) -> str:
        return _NAMES[self.measure]

    @property
    def title(self) -> str:
        return {"confidence": "LSE-C", "distance": "LSE-D", "offset": "LSE offset"}[self.measure]

    @property
    def limits(self) -> tuple[float, float]:
        return 0.0, math.inf

    @property
    def order(self) -> int:
        return {"confidence": 50, "distance": 60, "offset": 70}[self.measure]

    @property
    def higher_is_better(self) -> bool:
        return self.measure == "confidence"

    @property
    def profile(self) -> Profile | Literal["both"]:
        return "embedded" if self.network == "corpus" else "paper"

    @property
    def needs_target(self) -> bool:
        return self.audio == "source" or self.evaluator is not None  # to check whether the evaluator was trained on it

    @property
    def evaluator(self) -> Kind | None:
        return "syncnet" if self.network == "corpus" else None

    @property
    def weights(self) -> tuple[str, ...]:
        network = ("syncnet_v2",) if self.network == "syncnet" else ()
        detector = {"track": ("s3fd",), "crop": (), "lm": ("face_landmarker",), "mouth": ("face_landmarker",)}
        return network + detector[self.crop]

    @property
    def ms_per_frame(self) -> float | None:
        # SyncNet takes 31 ms for a window. All measures together take this time once.
        return {"track": None, "crop": 31.0, "lm": 31.0 + MEDIAPIPE_MS, "mouth": 1.0 + MEDIAPIPE_MS}[self.crop]

    @property
    def measures_offset(self) -> bool:
        return self.measure == "offset"

    def load_network(self) -> LipSyncNet:
        """The network, loaded once per process. Raises MissingWeights."""
        return trained_evaluators.load_lip_sync(self.files) if self.network == "corpus" else syncnet(self.files)

    def network_tag(self) -> str:
        """The `tag` of the network, without loading the network."""
        return trained_evaluators.tag("syncnet", self.files) if self.network == "corpus" else syncnet_tag()

    def settings(self) -> Settings:
        detector = {}
        if self.crop in _DETECTORS:
            name, weight = _DETECTORS[self.crop]
            tag = landmarker_tag() if weight == "face_landmarker" else weight_hash(weight, self.files)[:8]
            detector = {"detector": f"{name}@{tag}"}
        return {
            **({"value": "absolute"} if self.measure == "offset" else {}),
            "network": self.network_tag(),
            "crop": self._crop_field(),
            **detector,
            **({"scenes": self.scenes, "tracks": self.tracks} if self._divides else {}),
            **({"fps": "any-as-25"} if self.rate == "any" else {}),
            "codec": "none",
            "audio": self.audio,
            "windows": "length-5",
            "vshift": VSHIFT,
            "min-heard": MIN_HEARD,
            "agg": "video-mean",
            **({"points": points_id()} if self.crop == "mouth" else {}),
        }

    @property
    def _divides(self) -> bool:
        """Whether the clip is divided into scenes or more than one track is used."""
        return (self.scenes, self.tracks) != ("one", "longest")

    def _crop_field(self) -> str:
        return f"s3fd-track-224,min-track-{self.min_track}" if self.crop == "track" else _CROPS[self.crop][0]

    def compute(self, pred: Sample, target: Sample) -> Score:
        if self.audio == "source":
            stats, detail = self.compare(pred, target)
        else:
            key = ("lip-sync", self._crop_field(), self.scenes, self.tracks, self.rate, self.network_tag())
            stats, detail = pred.cached(key, lambda sample: self.compare(sample, sample))
        value = abs(stats["offset"]) if self.measure == "offset" else stats[self.measure]
        return Score(value, int(stats["windows"]), None, detail, stats)

    def compare(self, pred: Sample, sound: Sample) -> tuple[dict[str, float], str]:
        """Compute all three measures at once. Returns the stats and a note for the user.

        Args:
            pred: the sample whose frames are used.
            sound: the sample whose sound is used.
        """
        if pred.fps != 25 and self.rate == "25":
            raise ClipError(Reason.RATE_MISMATCH, f"{pred.name} has {pred.fps:g} frames/s; SyncNet needs 25")
        if sound.audio is None or not len(sound.audio):
            raise ClipError(Reason.NO_AUDIO, f"{sound.name} has no sound")
        check_sound(len(pred.frames), sound.audio, pred.name)
        net = self.load_network()
        key = ("lips", self._crop_field(), self.scenes, self.tracks, net.tag)
        found = [self._track(start, lips, sound, net, pred.name) for start, lips in pred.cached(key, self._lips(net))]
        syncs = [sync for sync, _ in found]
        heard = len({t for _, frames in found for t in frames})
        stats = {
            "windows": float(sum(sync.windows for sync in syncs)),
            "offset": float(int(fmean(sync.offset for sync in syncs))),
            "confidence": fmean(sync.confidence for sync in syncs),
            "distance": fmean(sync.distance for sync in syncs),
            "frames": float(len(pred.frames)),
            "heard": float(heard),
            **({"tracks": float(len(syncs))} if self.tracks == "mean" else {}),
        }
        detail = f"{heard} of {len(pred.frames)} frames have sound and a face" if heard < len(pred.frames) else ""
        return stats, detail

    def _track(
        self, start: int, lips: np.ndarray, sound: Sample, net: LipSyncNet, name: str
    ) -> tuple[LipSync, Sequence[int]]:
        """The result for the embeddings of one track that starts at frame `start`, and its frames that have sound."""
        assert sound.audio is not None
        frames = len(lips) + LOST_FRAMES - 1
        audio = sound.audio[start * SAMPLES_A_FRAME : (start + frames) * SAMPLES_A_FRAME]
        heard = check_sound(frames, audio, name)
        windows = n_windows(frames, len(audio))
        heard_as = sound.cached(("sound", net.tag, start, windows), lambda _: net.sound(audio, windows))
        return lip_sync(lips[:windows], heard_as), range(start, start + heard)

    def _lips(self, net: LipSyncNet) -> Callable[[Sample], list[tuple[int, np.ndarray]]]:
        """A function from a sample to the embeddings of its tracks, each with the index of the track's first frame."""

        def lips(sample: Sample) -> list[tuple[int, np.ndarray]]:
            crops = self._crops(sample)
            shortest = min(len(found.crops) for found in crops)
            if shortest <= LOST_FRAMES:
                raise ClipError(Reason.TOO_SHORT, f"{sample.name}: a face through {shortest} frames; 6 needed")
            return [(found.start, net.lip(found.crops)) for found in crops]

        return lips

    def _crops(self, sample: Sample) -> list[LipCrops]:
        if self.crop != "track":
            return [_CROPS[self.crop][1](sample, self.files)]
        longest = self.tracks == "longest"
        return from_tracks(sample, self.files, min_track=self.min_track, scenes=self.scenes, longest=longest)


METRICS = (Lse,)
