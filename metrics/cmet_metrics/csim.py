"""CSIM: cosine similarity of identity embeddings between generated and real frames, or generated and reference frames.

`aligned` is insightface's ArcFace on faces aligned to its template, `vico` the number of
dc3ea9f/vico_challenge_baseline at 16424c0 (evaluations/arcface_torch/compute_csim.py: whole frames, no alignment), and
`dlib` the same idea on dlib's face ResNet, which the Python package index carries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import numpy as np

from cmet_metrics.base import Metric, Sample, Score
from cmet_metrics.frames import FrameRule, pair_frames
from cmet_metrics.landmarks import mediapipe_landmarks
from talking_face.faces.align import align_mode, cut, transforms
from talking_face.media.picture import ArrayPicture
from talking_face.pretrained import arcface, dlib_models
from talking_face.pretrained.store import weight_tag
from talking_face.reasons import ClipError, Reason

MIN_VALID = 0.5  # a clip of which fewer of the frames looked at have a face in both gets a reason


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine similarity along the last axis; the other axes broadcast. (..., D) twice to (...), float64 in [-1, 1].

    NaN where an embedding holds one or is zero.
    """
    a, b = (x.astype(np.float64) for x in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    return np.clip((a * b).sum(axis=-1), -1, 1)


def spread(n: int, most: int) -> np.ndarray:
    """Indices of at most `most` of n frames: the middle ones of that many equal stretches."""
    k = min(n, most)
    return ((np.arange(k) + 0.5) * n / k).astype(int)


def aligned_faces(sample: Sample, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Faces on ArcFace's template by five points from MediaPipe's.

    Eyes are the means of the six points that stand for iBUG 36-41 and 42-47 (33, 160, 158, 133, 153, 144 and 362, 385,
    387, 263, 373, 380), the nose tip 30 (4), the mouth's corners 48 and 54 (61 and 291).

    Returns:
        (K, 112, 112, 3) uint8 RGB, black outside the picture, and (len(index),) bool: which frames have a face.
    """
    mode = align_mode("arcface-112")
    points = mediapipe_landmarks(sample)[index]
    valid = np.isfinite(points).all(axis=(1, 2))
    if not valid.any():
        return np.empty((0, 112, 112, 3), np.uint8), valid
    matrices = transforms(mode, points, valid, sample.frames.shape[1:3], 112, 1.0)
    crops = [cut(mode, ArrayPicture(sample.frames[index[k]]), matrices[k], 112) for k in np.flatnonzero(valid)]
    return np.stack(crops), valid


class AlignedCsim(Metric):
    """insightface's ArcFace (w600k_r50) on aligned faces, frame k of one clip with frame k of the other.

    A frame without a face in either is left out of the clip's mean. Stats: cosine (sum), frames, looked_at.
    """

    name = "csim"
    variant = "aligned"
    higher_is_better = True
    unit = ""
    summary = "identity: cosine of ArcFace embeddings of aligned faces, against the ground truth's frames"
    frames: ClassVar[FrameRule] = "exact"
    most: ClassVar[int | None] = None  # frames looked at in a clip; None: all
    aggregate_as: ClassVar[str] = "video-mean"

    def settings(self) -> Mapping[str, Any]:
        return {
            **self.network(),
            "against": "reference" if self.needs_reference else "ground-truth",
            "frames": self.frames,
            "looked-at": self.most or "all",
            "min-valid": MIN_VALID,
            "agg": self.aggregate_as,
        }

    def network(self) -> Mapping[str, Any]:
        """The part of the signature that says what `embed` does."""
        return {
            "net": f"arcface-w600k-r50@{weight_tag(arcface.R50)}",
            "align": "arcface-112",
            "points": f"mediapipe478-5@{weight_tag('face_landmarker')}",
            "colour": "rgb",
        }

    def embed(self, sample: Sample, index: np.ndarray) -> np.ndarray:
        """(len(index), D) embeddings of these frames, NaN without a face."""
        faces, valid = aligned_faces(sample, index)
        return _spread_out(arcface.embed(faces) if len(faces) else np.empty((0, 1), np.float32), valid)

    def compute(self, pred: Sample, target: Sample) -> Score:
        if self.needs_reference:
            value = self._against_reference(pred)
        else:
            i, j = pair_frames(len(pred.frames), len(target.frames), self.frames)
            at = self._looked_at(len(i))
            value = cosine(self._embedded(pred, i[at]), self._embedded(target, j[at]))
        valid = value[np.isfinite(value)]
        stats = {"cosine": float(valid.sum()), "frames": float(len(valid)), "looked_at": float(len(value))}
        detail = "" if len(valid) == len(value) else f"a face in both in {len(valid)} of {len(value)} frames looked at"
        if len(valid) < max(1.0, MIN_VALID * len(value)):
            return Score.missing(Reason.FEW_FACES if len(valid) else Reason.NO_FACE, detail, stats)
        return Score(float(valid.mean()), len(valid), None, detail, stats)

    def _against_reference(self, pred: Sample) -> np.ndarray:
        """Each frame's mean cosine over the reference frames with a face."""
        if pred.reference is None:
            raise ClipError(Reason.MISSING_FILE, f"{pred.name} comes without its reference frames")
        known = pred.reference.cached(self._key(), self._reference_rows)
        if not len(known):
            raise ClipError(Reason.NO_FACE, f"{pred.reference.name}: no face in the reference frames")
        found = self._embedded(pred, self._looked_at(len(pred.frames)))
        if found.shape[1] != known.shape[1]:  # no face in any frame
            return np.full(len(found), np.nan)
        return cosine(found[:, None], known[None]).mean(axis=1)

    def _reference_rows(self, reference: Sample) -> np.ndarray:
        # One at a time: they may come from anywhere in a clip, and tracking carries on from one frame to the next.
        alone = [Sample(frame[None], reference.fps, name=reference.name) for frame in reference.frames]
        rows = [self.embed(sample, np.arange(1)) for sample in alone]
        return np.concatenate([row for row in rows if np.isfinite(row).all()] or [np.empty((0, 1), np.float32)])

    def _looked_at(self, n: int) -> np.ndarray:
        return np.arange(n) if self.most is None else spread(n, self.most)

    def _embedded(self, sample: Sample, index: np.ndarray) -> np.ndarray:
        if sample.frames.dtype != np.uint8:
            raise ValueError(f"{sample.name}: csim needs uint8 frames, got {sample.frames.dtype}")
        return sample.cached(self._key(*index.tolist()), lambda s: self.embed(s, index))

    def _key(self, *index: int) -> tuple[Any, ...]:
        return "csim", self.variant.removesuffix("-ref"), index


class AlignedReferenceCsim(AlignedCsim):
    """Against the frames that the method was given: whether it kept the person, whatever the truth looks like."""

    variant = "aligned-ref"
    summary = "identity: cosine of ArcFace embeddings of aligned faces, against the reference frames"
    needs_reference = True
    needs_target = False


class VicoCsim(AlignedCsim):
    """Whole frames, resized to 112x112, through iresnet100; the mean is over all frames of all clips.

    Not a measure of identity alone: hair, clothes and background are in the picture, and so is the head's place.
    """

    variant = "vico"
    summary = "cosine of ArcFace embeddings of whole frames, unaligned, pooled over frames (vico, IP-LAP)"
    aggregate_as = "pooled-frames"

    def network(self) -> Mapping[str, Any]:
        return {"net": f"arcface-r100@{weight_tag(arcface.R100)}", "align": "none-resize-112", "colour": "rgb"}

    def embed(self, sample: Sample, index: np.ndarray) -> np.ndarray:
        return arcface.embed_r100(np.stack([cv2.resize(frame, (112, 112)) for frame in sample.frames[index]]))

    def mean_of(self, sums: Mapping[str, float]) -> float | None:
        return sums["cosine"] / sums["frames"] if sums.get("frames") else None


class DlibCsim(AlignedCsim):
    """dlib's face ResNet on its own 150 px chip by its 68 points, on eight frames of a clip.

    It takes 0.1 s a face: all frames of a 3 s clip would cost 20 s a pair. The value is another one than ArcFace's:
    two people stand at 0.8 to 0.9 here.
    """

    variant = "dlib"
    summary = "identity: cosine of dlib's face embeddings on eight frames, against the ground truth's"
    most = 8

    def network(self) -> Mapping[str, Any]:
        return {
            "net": f"dlib-resnet@{weight_tag('dlib_face_resnet')}",
            "align": "dlib-chip-150",
            "points": f"dlib68@{weight_tag('dlib_68')}",
            "colour": "rgb",
        }

    def embed(self, sample: Sample, index: np.ndarray) -> np.ndarray:
        out = np.full((len(index), 128), np.nan, np.float32)
        for k, frame in enumerate(sample.frames[index]):
            # Doubled where that finds nothing: faces under 80 px.
            boxes = dlib_models.detect_faces_hog(frame) or dlib_models.detect_faces_hog(frame, upsample=1)
            if boxes:
                out[k] = dlib_models.face_embedding(frame, boxes[0])
        return out


class DlibReferenceCsim(DlibCsim):
    """Against the frames that the method was given."""

    variant = "dlib-ref"
    summary = "identity: cosine of dlib's face embeddings on eight frames, against the reference frames"
    needs_reference = True
    needs_target = False


CSIM_METRICS: tuple[Metric, ...] = (
    DlibCsim(),
    DlibReferenceCsim(),
    AlignedCsim(),
    AlignedReferenceCsim(),
    VicoCsim(),
)


def _spread_out(rows: np.ndarray, valid: np.ndarray) -> np.ndarray:
    out = np.full((len(valid), rows.shape[1]), np.nan, np.float32)
    out[valid] = rows
    return out
