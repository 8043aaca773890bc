"""Computes M-LMD and F-LMD: the mean distance between landmarks of the mouth (20 points) or of the face (68 points).

In all variants except `vico`, each set of landmarks is first shifted so that its mean is 0. The variants are:
- `eat`: the formula of EAT's evaluation (github.com/yuangan/evaluation_eat at e39b004, code/test_lmd.py), on frames
  that are aligned as in code/utils_crop.py of the same repository, and are not encoded again.
- `eat-stored`: as EAT's published script, which stores the aligned frames as MPEG-4 first (code/preprocess.py), and
  scores each clip in which at least one pair of frames has a face. The script's value needs `--rate ffmpeg-25-h264`
  too; the protocol `eat` has both.
- `eat-mp`: the same formula with MediaPipe's points.
- `atvgnet`: the metric of the repository that introduced it (github.com/lelechen63/ATVGnet at b2c758b,
  evaluation_matrix.py).
- `vico`: the metric of github.com/dc3ea9f/vico_challenge_baseline at 01dc5ce (evaluations/compute_lmd.py).
- `native-mp`: a definition of this suite, without alignment, in percent of the distance between the eyes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from cmet_metrics.base import Metric, Profile, Sample, Score, Settings, Variant, check_same_size
from cmet_metrics.eat_align import ALIGN_POINTS, STORED, AlignedTrack, aligned_track, similarity, stored_track, template
from cmet_metrics.frames import FrameRule, pair_frames
from cmet_metrics.landmarks import MEDIAPIPE_MS, eye_distance, mediapipe_68, points_id
from talking_face.faces.points68 import MOUTH
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import weight_hash, weight_path, weight_tag
from talking_face.reasons import ClipError, Reason, UserError

# A clip gets a reason if fewer than this share of its frame pairs has a face in both frames. EAT's evaluation scores a
# clip if at least one such pair exists.
MIN_VALID = 0.5

Region = Literal["mouth", "face"]
Points = Literal["dlib", "mediapipe", "fan"]
Align = Literal["eat-128", "eat-128-stored", "none"]
Distance = Literal["mean", "sum", "abs-coordinate"]
Scale = Literal["px", "eyes"]
Mean = Literal["video-mean", "frame-mean"]
Least = Literal["half", "one-pair"]

_PARTS: dict[Region, slice] = {"mouth": MOUTH, "face": slice(0, 68)}


def landmark_distance(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mean distance between corresponding points, after each set is shifted to mean 0, without scaling or rotation.

    Args:
        pred, target: (T, P, 2), same shape and unit.

    Returns:
        (T,) float64 in the same unit; NaN for frames in which a point is NaN.

    Example:
        >>> square = np.array([[[0, 0], [2, 0], [2, 2], [0, 2]]])
        >>> landmark_distance(square, 2 * square + 7).round(4).tolist()
        [1.4142]
    """
    if pred.shape != target.shape or pred.ndim != 3 or pred.shape[-1] != 2:
        raise ValueError(f"pred and target must both be (T, P, 2), got {pred.shape} and {target.shape}")
    a, b = (p.astype(np.float64) - p.mean(axis=1, keepdims=True, dtype=np.float64) for p in (pred, target))
    return np.linalg.norm(a - b, axis=-1).mean(axis=-1)


# Tracks of points -----------------------------------------------------------------------------------------------------


def mediapipe_track(sample: Sample, files: ModelFiles) -> AlignedTrack:
    """MediaPipe's points that match dlib's 68, mapped into EAT's 128 px crop, without the frames that have no face."""
    return sample.cached("eat-aligned-mp68", lambda s: _map_mediapipe(s, files))


def dlib_track(sample: Sample, files: ModelFiles) -> AlignedTrack:
    """dlib's points on the aligned 128 px crops, without the frames that have no face."""
    return aligned_track(sample, files)


def native_dlib_track(sample: Sample, files: ModelFiles) -> AlignedTrack:
    """dlib's points on the frames without alignment, NaN for frames without a face.

    If a frame has several faces, the last face is used, as in ATVGnet.
    """
    return sample.cached("native-dlib68", lambda s: _native_dlib(s, files))


def native_fan_track(sample: Sample, files: ModelFiles) -> AlignedTrack:
    """2D-FAN's points on the frames without alignment, NaN for frames without a face. Raises MissingWeights."""
    from talking_face.pretrained.fan import landmarks_fan

    for name in ("fan_2d_4", "fan_s3fd"):
        weight_path(name, files)  # report a missing file before work on the first frame starts
    return sample.cached("native-fan68", lambda s: _native(s, lambda frame: landmarks_fan(frame, files)))


def native_mediapipe_track(sample: Sample, files: ModelFiles) -> AlignedTrack:
    """MediaPipe's points that match dlib's 68, on the frames without alignment, NaN for frames without a face."""
    return AlignedTrack(mediapipe_68(sample, files), len(sample.frames), 0)


def _native_dlib(sample: Sample, files: ModelFiles) -> AlignedTrack:
    from talking_face.pretrained.dlib_models import detect_faces_hog, landmarks68

    def find(frame: np.ndarray) -> np.ndarray | None:
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        boxes = detect_faces_hog(grey, 1)
        # ATVGnet writes the points of each face to the same file, so the points of the last face remain. The last
        # face is the face with dlib's lowest score.
        return landmarks68(grey, boxes[-1], files) if boxes else None

    return _native(sample, find)


def _native(sample: Sample, find: Callable[[np.ndarray], np.ndarray | None]) -> AlignedTrack:
    out = np.full((len(sample.frames), 68, 2), np.nan)
    for t, frame in enumerate(sample.pictures):
        if t and np.array_equal(frame, sample.pictures[t - 1]):  # a repeated frame: copy the points
            out[t] = out[t - 1]
        elif (points := find(frame)) is not None:
            out[t] = points
    return AlignedTrack(out, len(out), 0)


def _map_mediapipe(sample: Sample, files: ModelFiles) -> AlignedTrack:
    points = mediapipe_68(sample, files)
    points = points[np.isfinite(points).all(axis=(1, 2))]
    fixed = template()[ALIGN_POINTS].astype(np.float64)
    mapped = np.empty_like(points)
    for t, p in enumerate(points):
        # EAT fits the similarity from the template to the frame and inverts it to warp the image. A fit from the frame
        # to the template would have another scale.
        back = np.linalg.inv(similarity(fixed, p[ALIGN_POINTS]))
        mapped[t] = p @ back[:2, :2].T + back[:2, 2] - 1
    return AlignedTrack(mapped, len(sample.frames), len(sample.frames) - len(points))


_TRACKS: dict[tuple[Points, Align], Callable[[Sample, ModelFiles], AlignedTrack]] = {
    ("dlib", "eat-128"): dlib_track,
    ("mediapipe", "eat-128"): mediapipe_track,
    ("dlib", "eat-128-stored"): stored_track,
    ("dlib", "none"): native_dlib_track,
    ("mediapipe", "none"): native_mediapipe_track,
    ("fan", "none"): native_fan_track,
}

# The metric -----------------------------------------------------------------------------------------------------------

_CHEN = """@inproceedings{chen2018lip,
  author = {Chen, Lele and Li, Zhiheng and Maddox, Ross K. and Duan, Zhiyao and Xu, Chenliang},
  title = {Lip movements generation at a glance},
  booktitle = {ECCV}, year = {2018}}"""
_EAT = """@inproceedings{gan2023eat,
  author = {Gan, Yuan and Yang, Zongxin and Yue, Xihang and Sun, Lingyun and Yang, Yi},
  title = {Efficient Emotional Adaptation for Audio-Driven Talking-Head Generation},
  booktitle = {ICCV}, year = {2023}}"""
VICO_BIBTEX = """@inproceedings{zhou2022vico,
  author = {Zhou, Mohan and Bai, Yalong and Zhang, Wei and Yao, Ting and Zhao, Tiejun and Mei, Tao},
  title = {Responsive Listening Head Generation: A Benchmark Dataset and Baseline},
  booktitle = {ECCV}, year = {2022}}"""
_ATVGNET: dict[str, object] = {"align": "none", "distance": "sum", "frames": "min", "mean": "frame-mean"}
_VICO: dict[str, object] = {**_ATVGNET, "points": "fan", "distance": "abs-coordinate"}
_NATIVE: dict[str, object] = {"points": "mediapipe", "align": "none", "frames": "exact", "scale": "eyes"}
_FACE: dict[str, object] = {"region": "face"}
_MEDIAPIPE: dict[str, object] = {"points": "mediapipe"}
_STORED: dict[str, object] = {"align": "eat-128-stored", "least": "one-pair"}


_VARIANTS = {
    "m_lmd:eat": Variant("mouth landmark distance, dlib's points on 128 px aligned crops"),
    "m_lmd:eat-stored": Variant(
        "mouth landmark distance, dlib's points on 128 px aligned crops stored as MPEG-4", _STORED
    ),
    "m_lmd:atvgnet": Variant(
        "mouth landmark distance, dlib's points on the frames as they are, sum over 20 points", _ATVGNET
    ),
    "m_lmd:vico": Variant(
        "mouth landmark difference, 2D-FAN's points, mean absolute coordinate difference, not centred", _VICO
    ),
    "m_lmd:native-mp": Variant(
        "mouth landmark distance, MediaPipe's points, in percent of the distance between the eyes", _NATIVE
    ),
    "m_lmd:eat-mp": Variant("mouth landmark distance, MediaPipe's points in the 128 px template", _MEDIAPIPE),
    "f_lmd:eat": Variant("face landmark distance, dlib's points on 128 px aligned crops", _FACE),
    "f_lmd:eat-stored": Variant(
        "face landmark distance, dlib's points on 128 px aligned crops stored as MPEG-4", {**_FACE, **_STORED}
    ),
    "f_lmd:native-mp": Variant(
        "face landmark distance, MediaPipe's points, in percent of the distance between the eyes",
        {**_FACE, **_NATIVE},
    ),
    "f_lmd:eat-mp": Variant(
        "face landmark distance, MediaPipe's points in the 128 px template", {**_FACE, **_MEDIAPIPE}
    ),
}


@dataclass(frozen=True, kw_only=True)
class Lmd(Metric):
    """M-LMD, over the mouth's points 48-67, or F-LMD, over all 68 points.

    With `align="eat-128"`, the frames without a face are removed before the other frames are paired, as in EAT's
    evaluation. With `align="none"`, all frames are paired, and pairs with a missing face are left out. If too few pairs
    have a face in both frames, the reason is `no-face` or `few-faces`.

    Stats: distance (sum over frames), frames (number of scored pairs of frames), pairs (length of the shorter clip),
    and the numbers of all frames and of removed frames in both clips (pred_frames, pred_dropped, target_frames,
    target_dropped).
    """

    region: Region = "mouth"
    points: Points = "dlib"
    # eat-128: in EAT's aligned crop of 128 px; eat-128-stored: in this crop after MPEG-4; none: on the whole frames
    align: Align = "eat-128"
    distance: Distance = "mean"  # mean or sum of the points' distances; abs-coordinate: mean of |x| and |y| differences
    scale: Scale = "px"  # eyes: percent of the median distance between the real clip's eye centres
    frames: FrameRule = "linspace"
    mean: Mean = "video-mean"  # frame-mean: the mean over all frames of all clips
    least: Least = "half"  # the pairs that need a face in both frames; else the clip has a reason

    higher_is_better = False
    limits = (0.0, math.inf)
    pitfalls = (
        "The value is in pixels of the crop or the frame, except in native-mp. eat and eat-mp leave out frames "
        "without a face before pairing, which shifts the other frames. dlib rounds to whole pixels, so a perfect "
        "clip does not reach 0. atvgnet is 20 to 40 times eat."
    )
    unchanged_by = frozenset({"reencode", "move", "codec"})
    variants = _VARIANTS

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.points, self.align) not in _TRACKS:
            known = " or ".join(align for points, align in _TRACKS if points == self.points)
            raise UserError(f"{self.name}: points={self.points} has align={known} only")

    @property
    def name(self) -> str:
        return "m_lmd" if self.region == "mouth" else "f_lmd"

    @property
    def title(self) -> str:
        return "M-LMD" if self.region == "mouth" else "F-LMD"

    @property
    def order(self) -> int:
        return 30 if self.region == "mouth" else 40

    @property
    def unit(self) -> str:
        return "px" if self.scale == "px" else "% of eyes"

    @property
    def worsened_by(self) -> frozenset[str]:
        return frozenset({"mouth-frozen", "mouth-amplitude", "frames-held"} if self.region == "mouth" else ())

    @property
    def profile(self) -> Profile | Literal["both"]:
        return "paper" if self.points == "fan" else "both"

    @property
    def weights(self) -> tuple[str, ...]:
        names = {"dlib": ("dlib_68",), "mediapipe": ("face_landmarker",), "fan": ("fan_2d_4", "fan_s3fd")}
        return names[self.points]

    @property
    def ms_per_frame(self) -> float | None:
        return {"dlib": 45.0, "mediapipe": 2 * MEDIAPIPE_MS, "fan": None}[self.points]

    @property
    def source(self) -> str:
        if self.points == "fan":
            return "github.com/dc3ea9f/vico_challenge_baseline at 01dc5ce, evaluations/compute_lmd.py"
        if self.align != "none":
            return "github.com/yuangan/evaluation_eat at e39b004, code/test_lmd.py"
        return (
            "github.com/lelechen63/ATVGnet at b2c758b, evaluation_matrix.py" if self.points == "dlib" else "this suite"
        )

    @property
    def bibtex(self) -> str:
        own = _EAT if self.align != "none" else VICO_BIBTEX if self.points == "fan" else ""
        return f"{_CHEN}\n{own}".strip()

    @property
    def pooled(self) -> bool:
        return self.mean == "frame-mean"

    def settings(self) -> Settings:
        out: dict[str, str | int | float] = {
            "points": self._points_id(),
            "align": "eat-128-points" if (self.points, self.align) == ("mediapipe", "eat-128") else self.align,
            "codec": STORED if self.align == "eat-128-stored" else "none",
            "frames": self.frames,
            "min-valid": MIN_VALID if self.least == "half" else "1-pair",
            "agg": self.mean,
        }
        if self.align == "none" and self.points != "mediapipe":
            out["face"] = "last" if self.points == "dlib" else "surest"
        if self.distance != "mean":
            out["distance"] = f"sum-{self._count}" if self.distance == "sum" else self.distance
        if self.points == "fan":
            out |= {"detector": f"s3fd@{weight_tag('fan_s3fd', self.files)}", "flip": "true"}
        if self.scale == "eyes":
            out["scale"] = "100-per-eye-distance"
        return out

    def _points_id(self) -> str:
        if self.points == "dlib":
            return f"dlib68@{weight_hash('dlib_68', self.files)[:8]}"
        if self.points == "fan":
            return f"fan4-68@{weight_tag('fan_2d_4', self.files)}"
        return points_id()

    @property
    def _count(self) -> int:
        part = _PARTS[self.region]
        return part.stop - part.start

    def track(self, sample: Sample) -> AlignedTrack:
        """The points of one clip."""
        return _TRACKS[self.points, self.align](sample, self.files)

    def distances(self, pred: np.ndarray, target: np.ndarray) -> np.ndarray:
        """(K,) distances between paired frames, (K, 68, 2) each; NaN for pairs in which a point is NaN."""
        a, b = pred[:, _PARTS[self.region]], target[:, _PARTS[self.region]]
        if self.distance == "abs-coordinate":
            out = np.asarray(np.abs(a - b).mean(axis=(1, 2)))
        else:
            out = landmark_distance(a, b)
            if self.distance == "sum":
                out = self._count * out
        if self.scale == "px":
            return out
        eyes = eye_distance(target)
        return 100 * out / np.nanmedian(eyes) if np.isfinite(eyes).any() else np.full(len(target), np.nan)

    def compute(self, pred: Sample, target: Sample) -> Score:
        if self.align == "none":
            check_same_size(pred, target)  # pixels of frames of different sizes have different lengths
        b, a = (self._track_with_face(sample) for sample in (target, pred))
        i, j = pair_frames(len(a.landmarks), len(b.landmarks), self.frames)
        distance = self.distances(a.landmarks[i], b.landmarks[j])
        valid = distance[np.isfinite(distance)]
        expected = min(a.n_frames, b.n_frames)
        stats = {
            "distance": float(valid.sum()),
            "frames": float(len(valid)),
            "pairs": float(expected),
            "pred_frames": float(a.n_frames),
            "pred_dropped": float(a.dropped),
            "target_frames": float(b.n_frames),
            "target_dropped": float(b.dropped),
        }
        detail = ""
        if len(valid) < expected or a.n_frames != b.n_frames:
            # The detector can find a face in the frame but not in the tight aligned crop of that face.
            lost_a, lost_b = (t.dropped + int(np.isnan(t.landmarks).any(axis=(1, 2)).sum()) for t in (a, b))
            detail = (
                f"{len(valid)} of {expected} pairs scored; no face in {lost_a} of {a.n_frames} frames of "
                f"{pred.name} and {lost_b} of {b.n_frames} of {target.name}"
            )
        if len(valid) < max(1, MIN_VALID * expected if self.least == "half" else 0):
            return Score.missing(Reason.FEW_FACES if len(valid) else Reason.NO_FACE, detail, stats)
        return Score(stats["distance"] / len(valid), len(valid), None, detail, stats)

    def _track_with_face(self, sample: Sample) -> AlignedTrack:
        found = self.track(sample)
        if not len(found.landmarks):
            raise ClipError(Reason.NO_FACE, f"{sample.name}: no face in any of {found.n_frames} frames")
        return found

    def mean_of(self, sums: Mapping[str, float]) -> float | None:
        if not self.pooled:
            return super().mean_of(sums)
        return sums["distance"] / sums["frames"] if sums.get("frames") else None


METRICS = (Lmd,)
