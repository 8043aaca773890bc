"""M-LMD and F-LMD: mean distance of the mouth's 20, or the face's 68, landmarks after each is moved to its own mean.

`eat` is the number of EAT's evaluation (github.com/yuangan/evaluation_eat at e39b004, code/test_lmd.py on frames
aligned by code/utils_crop.py) and equals it; `eat-mp` is the same formula on MediaPipe's points. `atvgnet` is the
number of the metric's origin (github.com/lelechen63/ATVGnet at b2c758b, evaluation_matrix.py), `vico` that of
github.com/dc3ea9f/vico_challenge_baseline at 01dc5ce (evaluations/compute_lmd.py). `native-mp` is this suite's own: no
alignment, in percent of the distance between the eyes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np

from cmet_metrics.base import Metric, Sample, Score
from cmet_metrics.eat_align import ALIGN_POINTS, AlignedTrack, aligned_track, similarity, template
from cmet_metrics.frames import FrameRule, pair_frames
from cmet_metrics.landmarks import eye_distance, mediapipe_68, points_id
from talking_face.faces.points68 import MOUTH
from talking_face.pretrained.store import weight_hash, weight_path, weight_tag
from talking_face.reasons import ClipError, Reason

# A clip of which fewer than this share of frame pairs has a face in both gets a reason. The reference scores any clip
# with one such pair; values are equal wherever both give one.
MIN_VALID = 0.5


def landmark_distance(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mean distance of corresponding points after each set is moved to its own mean; no scaling, no rotation.

    Args:
        pred, target: (T, P, 2), same shape and unit.

    Returns:
        (T,) float64 in that unit, NaN where a point is NaN.

    Example:
        >>> square = np.array([[[0, 0], [2, 0], [2, 2], [0, 2]]])
        >>> landmark_distance(square, 2 * square + 7).round(4).tolist()
        [1.4142]
    """
    if pred.shape != target.shape or pred.ndim != 3 or pred.shape[-1] != 2:
        raise ValueError(f"pred and target must both be (T, P, 2), got {pred.shape} and {target.shape}")
    a, b = (p.astype(np.float64) - p.mean(axis=1, keepdims=True, dtype=np.float64) for p in (pred, target))
    return np.linalg.norm(a - b, axis=-1).mean(axis=-1)


def mediapipe_track(sample: Sample) -> AlignedTrack:
    """MediaPipe's points as 68, mapped by the template's similarity into the 128 px crop; faceless frames dropped."""
    return sample.cached("eat-aligned-mp68", _map_mediapipe)


def dlib_track(sample: Sample) -> AlignedTrack:
    """dlib's points on the aligned 128 px crops; faceless frames dropped."""
    if sample.frames.dtype != np.uint8:
        raise ValueError(f"{sample.name}: landmark metrics need uint8 frames, got {sample.frames.dtype}")
    return aligned_track(sample)


def native_dlib_track(sample: Sample) -> AlignedTrack:
    """dlib's points on the frames as they are, NaN without a face: ATVGnet's, the last of several faces included."""
    if sample.frames.dtype != np.uint8:
        raise ValueError(f"{sample.name}: landmark metrics need uint8 frames, got {sample.frames.dtype}")
    return sample.cached("native-dlib68", _native_dlib)


def native_fan_track(sample: Sample) -> AlignedTrack:
    """2D-FAN's points on the frames as they are, NaN without a face. Raises MissingWeights."""
    from talking_face.pretrained.fan import landmarks_fan

    for name in ("fan_2d_4", "fan_s3fd"):
        weight_path(name)  # an absent file is told before the first frame
    if sample.frames.dtype != np.uint8:
        raise ValueError(f"{sample.name}: landmark metrics need uint8 frames, got {sample.frames.dtype}")
    return sample.cached("native-fan68", lambda s: _native(s, landmarks_fan))


def native_mediapipe_track(sample: Sample) -> AlignedTrack:
    """MediaPipe's points as 68 on the frames as they are, NaN without a face."""
    return AlignedTrack(mediapipe_68(sample), len(sample.frames), 0)


def _native_dlib(sample: Sample) -> AlignedTrack:
    from talking_face.pretrained.dlib_models import detect_faces_hog, landmarks68

    def find(frame: np.ndarray) -> np.ndarray | None:
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        boxes = detect_faces_hog(grey, 1)
        # The source writes the points of each face to the same file: the last one, dlib's weakest, stays.
        return landmarks68(grey, boxes[-1]) if boxes else None

    return _native(sample, find)


def _native(sample: Sample, find: Callable[[np.ndarray], np.ndarray | None]) -> AlignedTrack:
    out = np.full((len(sample.frames), 68, 2), np.nan)
    for t, frame in enumerate(sample.frames):
        if t and np.array_equal(frame, sample.frames[t - 1]):  # a held frame has the points of the one before it
            out[t] = out[t - 1]
        elif (points := find(frame)) is not None:
            out[t] = points
    return AlignedTrack(out, len(out), 0)


def _map_mediapipe(sample: Sample) -> AlignedTrack:
    points = mediapipe_68(sample)
    points = points[np.isfinite(points).all(axis=(1, 2))]
    fixed = template()[ALIGN_POINTS].astype(np.float64)
    mapped = np.empty_like(points)
    for t, p in enumerate(points):
        # Fitted from the template to the frame and inverted, as the image is warped; the other way the scale differs.
        back = np.linalg.inv(similarity(fixed, p[ALIGN_POINTS]))
        mapped[t] = p @ back[:2, :2].T + back[:2, 2] - 1
    return AlignedTrack(mapped, len(sample.frames), len(sample.frames) - len(points))


class MouthLmd(Metric):
    """EAT's M-LMD: points 48-67. Clips without enough frames with a face in both get `no-face` or `few-faces`.

    Faceless frames are dropped before the remaining ones are paired (`linspace`), as in the reference; their number is
    in the stats. Stats: distance (sum over frames), frames, pairs, pred_frames, pred_dropped, target_frames,
    target_dropped.
    """

    name = "m_lmd"
    variant = "eat"
    higher_is_better = False
    unit = "px"
    summary = "mouth landmark distance, dlib's points on 128 px aligned crops"
    points = MOUTH
    frames: FrameRule = "linspace"

    def settings(self) -> Mapping[str, Any]:
        return {
            "points": f"dlib68@{weight_hash('dlib_68')[:8]}",
            "align": "eat-128",
            "codec": "none",
            "frames": self.frames,
            "min-valid": MIN_VALID,
            "agg": "video-mean",
        }

    def track(self, sample: Sample) -> AlignedTrack:
        """The aligned points of one clip."""
        return dlib_track(sample)

    def distances(self, pred: np.ndarray, target: np.ndarray) -> np.ndarray:
        """(K,) distance of paired frames' points, (K, 68, 2) each; NaN where a point is."""
        return landmark_distance(pred[:, self.points], target[:, self.points])

    def compute(self, pred: Sample, target: Sample) -> Score:
        tracks = []
        for sample in (target, pred):
            found = self.track(sample)
            if not len(found.landmarks):
                raise ClipError(Reason.NO_FACE, f"{sample.name}: no face in any of {found.n_frames} frames")
            tracks.append(found)
        b, a = tracks
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
            # A face can be found in the frame and lost again in its tight aligned crop.
            lost_a, lost_b = (t.dropped + int(np.isnan(t.landmarks).any(axis=(1, 2)).sum()) for t in (a, b))
            detail = (
                f"{len(valid)} of {expected} pairs scored; no face in {lost_a} of {a.n_frames} frames of "
                f"{pred.name} and {lost_b} of {b.n_frames} of {target.name}"
            )
        if not len(valid):
            return Score.missing(Reason.NO_FACE, detail, stats)
        if len(valid) < MIN_VALID * expected:
            return Score.missing(Reason.FEW_FACES, detail, stats)
        return Score(stats["distance"] / len(valid), len(valid), None, detail, stats)


class FaceLmd(MouthLmd):
    """EAT's F-LMD: all 68 points. Otherwise as `MouthLmd`, with which it shares the points of each clip."""

    name = "f_lmd"
    summary = "face landmark distance, dlib's points on 128 px aligned crops"
    points = slice(0, 68)


class MouthLmdMediaPipe(MouthLmd):
    """The formula of `m_lmd:eat` on MediaPipe's points of the same meaning. Not comparable with `eat` in value."""

    variant = "eat-mp"
    summary = "mouth landmark distance, MediaPipe's points in the 128 px template"

    def settings(self) -> Mapping[str, Any]:
        return {
            **super().settings(),
            "points": points_id(),
            "align": "eat-128-points",
        }

    def track(self, sample: Sample) -> AlignedTrack:
        return mediapipe_track(sample)


class FaceLmdMediaPipe(MouthLmdMediaPipe):
    """The formula of `f_lmd:eat` on MediaPipe's points of the same meaning. Not comparable with `eat` in value."""

    name = "f_lmd"
    summary = "face landmark distance, MediaPipe's points in the 128 px template"
    points = slice(0, 68)


class MouthLmdAtvgnet(MouthLmd):
    """ATVGnet's LMD: dlib's points 48-67 on the frames as they are, the 20 distances of a frame added up (not their
    mean), then the mean over all frames of all clips. Its authors' frames are 256 px face crops. Frame k goes with
    frame k as far as both clips go; frames without a face in either are skipped."""

    variant = "atvgnet"
    summary = "mouth landmark distance, dlib's points on the frames as they are, sum over 20 points"
    frames: FrameRule = "min"

    def settings(self) -> Mapping[str, Any]:
        how = {"align": "none", "face": "last", "distance": "sum-20", "agg": "frame-mean"}
        return {**super().settings(), **how}

    def track(self, sample: Sample) -> AlignedTrack:
        return native_dlib_track(sample)

    def distances(self, pred: np.ndarray, target: np.ndarray) -> np.ndarray:
        return 20 * super().distances(pred, target)

    def mean_of(self, sums: Mapping[str, float]) -> float | None:
        return sums["distance"] / sums["frames"] if sums.get("frames") else None


class MouthLmdVico(MouthLmdAtvgnet):
    """vico_challenge_baseline's LMD: 2D-FAN's points 48-67 on the frames as they are, mean absolute difference of the
    coordinates (no centring, no root), mean over all frames of all clips. Where a frame has no face its code stops
    with an error; here the frame is skipped."""

    variant = "vico"
    summary = "mouth landmark difference, 2D-FAN's points, mean absolute coordinate difference, not centred"

    def settings(self) -> Mapping[str, Any]:
        points = f"fan4-68@{weight_tag('fan_2d_4')}"
        detector = f"s3fd@{weight_tag('fan_s3fd')}"
        how = {"points": points, "detector": detector, "face": "surest", "flip": "true", "distance": "abs-coordinate"}
        return {**super().settings(), **how}

    def track(self, sample: Sample) -> AlignedTrack:
        return native_fan_track(sample)

    def distances(self, pred: np.ndarray, target: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(pred[:, self.points] - target[:, self.points]).mean(axis=(1, 2)))


class MouthLmdNative(MouthLmd):
    """MediaPipe's mouth points on the frames as they are, each frame's set moved to its own mean, in percent of the
    median distance between the real clip's eye centres. Size and turn of the head count; where it is does not."""

    variant = "native-mp"
    unit = "% of eyes"
    summary = "mouth landmark distance, MediaPipe's points, in percent of the distance between the eyes"
    frames: FrameRule = "exact"

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), "points": points_id(), "align": "none", "scale": "100-per-eye-distance"}

    def track(self, sample: Sample) -> AlignedTrack:
        return native_mediapipe_track(sample)

    def distances(self, pred: np.ndarray, target: np.ndarray) -> np.ndarray:
        eyes = eye_distance(target)
        if not np.isfinite(eyes).any():
            return np.full(len(target), np.nan)
        return 100 * super().distances(pred, target) / np.nanmedian(eyes)


class FaceLmdNative(MouthLmdNative):
    """All 68 points; otherwise as `MouthLmdNative`."""

    name = "f_lmd"
    summary = "face landmark distance, MediaPipe's points, in percent of the distance between the eyes"
    points = slice(0, 68)
