"""Computes CSIM, the cosine similarity of identity embeddings of generated frames to real or reference frames.

The variants use different networks and crops:
- `aligned`: insightface's ArcFace on faces that are aligned to ArcFace's template.
- `vico`: the computation of dc3ea9f/vico_challenge_baseline at 16424c0, evaluations/arcface_torch/compute_csim.py, with
  ArcFace on whole frames without alignment.
- `dlib`: dlib's face ResNet, whose weights are available from the Python package index.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import cv2
import numpy as np

from cmet_metrics.base import Metric, Profile, Sample, Score, Settings, Variant
from cmet_metrics.frames import FrameRule, pair_frames
from cmet_metrics.landmarks import mediapipe_landmarks
from cmet_metrics.lmd import VICO_BIBTEX
from talking_face.faces.align import align_mode, cut, transforms
from talking_face.media.picture import ArrayPicture
from talking_face.pretrained import arcface, dlib_models
from talking_face.pretrained.face_landmarker import landmarker_tag
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import weight_tag
from talking_face.reasons import ClipError, Reason

MIN_VALID = 0.5  # a clip gets a reason if fewer than this share of the compared frames has a face in both clips

Against = Literal["ground-truth", "reference"]
Mean = Literal["video-mean", "pooled-frames"]
Network = Literal["arcface-aligned", "arcface-whole-frame", "dlib"]


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine similarity of embeddings: from two (..., D) arrays, which are broadcast, to (...), float64 in [-1, 1].

    The result is NaN if an embedding contains NaN or is zero. Raises ValueError if the lengths D differ.
    """
    if a.shape[-1:] != b.shape[-1:]:
        raise ValueError(f"embeddings must have the same length, got {a.shape} and {b.shape}")
    a, b = (x.astype(np.float64) for x in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    return np.clip((a * b).sum(axis=-1), -1, 1)


def spread(n: int, most: int) -> np.ndarray:
    """Indices of at most `most` of n frames. The clip is divided into equal parts; the middle frame of each is used."""
    k = min(n, most)
    return ((np.arange(k) + 0.5) * n / k).astype(int)


def aligned_faces(sample: Sample, index: np.ndarray, files: ModelFiles) -> tuple[np.ndarray, np.ndarray]:
    """Crops of the faces, aligned to ArcFace's template by five points that are computed from MediaPipe's points.

    The five points, by their numbers in iBUG's 68 points, with MediaPipe's numbers in brackets:
    - Eyes: the mean of 36-41 (33, 160, 158, 133, 153, 144) and the mean of 42-47 (362, 385, 387, 263, 373, 380).
    - Nose tip: 30 (4).
    - Corners of the mouth: 48 and 54 (61 and 291).

    Returns:
        the crops, (K, 112, 112, 3) uint8 RGB, black outside the picture; and (len(index),) bool, True for the K frames
        that have a face.
    """
    mode = align_mode("arcface-112")
    points = mediapipe_landmarks(sample, files)[index]
    valid = np.isfinite(points).all(axis=(1, 2))
    if not valid.any():
        return np.empty((0, 112, 112, 3), np.uint8), valid
    matrices = transforms(mode, points, valid, sample.frames.shape[1:3], 112, 1.0)
    crops = [cut(mode, ArrayPicture(sample.pictures[index[k]]), matrices[k], 112) for k in np.flatnonzero(valid)]
    return np.stack(crops), valid


class Embedding(ABC):
    """An identity network and the crop of the face that it needs."""

    profile: ClassVar[Profile]
    weights: ClassVar[tuple[str, ...]]

    @abstractmethod
    def settings(self, files: ModelFiles) -> Settings:
        """The fields of the signature that describe `embed`."""

    @abstractmethod
    def embed(self, sample: Sample, index: np.ndarray, files: ModelFiles) -> np.ndarray:
        """(len(index), D) float32 embeddings of the frames `index`; NaN if a frame has no face.

        Raises MissingWeights.
        """


class ArcFaceAligned(Embedding):
    """insightface's ArcFace (w600k_r50) on faces that are aligned to ArcFace's template."""

    profile = "paper"
    weights = (arcface.R50, "face_landmarker")

    def settings(self, files: ModelFiles) -> Settings:
        return {
            "net": f"arcface-w600k-r50@{weight_tag(arcface.R50, files)}",
            "align": "arcface-112",
            "points": f"mediapipe478-5@{landmarker_tag()}",
            "colour": "rgb",
        }

    def embed(self, sample: Sample, index: np.ndarray, files: ModelFiles) -> np.ndarray:
        faces, valid = aligned_faces(sample, index, files)
        rows = arcface.embed(faces, files=files) if len(faces) else np.empty((0, 1), np.float32)
        out = np.full((len(valid), rows.shape[1]), np.nan, np.float32)
        out[valid] = rows
        return out


class ArcFaceWholeFrame(Embedding):
    """ArcFace's iresnet100 on whole frames, resized to 112x112.

    The similarity depends not only on the identity, but also on hair, clothes, background and position of the head.
    """

    profile = "paper"
    weights = (arcface.R100,)

    def settings(self, files: ModelFiles) -> Settings:
        return {"net": f"arcface-r100@{weight_tag(arcface.R100, files)}", "align": "none-resize-112", "colour": "rgb"}

    def embed(self, sample: Sample, index: np.ndarray, files: ModelFiles) -> np.ndarray:
        return arcface.embed_r100(np.stack([cv2.resize(frame, (112, 112)) for frame in sample.pictures[index]]), files)


class DlibEmbedding(Embedding):
    """dlib's face ResNet on dlib's 150 px crop, aligned by dlib's 68 points. One face takes 0.1 s."""

    profile = "embedded"
    weights = ("dlib_face_resnet", "dlib_68")

    def settings(self, files: ModelFiles) -> Settings:
        return {
            "net": f"dlib-resnet@{weight_tag('dlib_face_resnet', files)}",
            "align": "dlib-chip-150",
            "points": f"dlib68@{weight_tag('dlib_68', files)}",
            "colour": "rgb",
        }

    def embed(self, sample: Sample, index: np.ndarray, files: ModelFiles) -> np.ndarray:
        out = np.full((len(index), 128), np.nan, np.float32)
        for k, frame in enumerate(sample.pictures[index]):
            # If no face is found, search in the frame at twice its size: this finds faces smaller than 80 px.
            boxes = dlib_models.detect_faces_hog(frame) or dlib_models.detect_faces_hog(frame, upsample=1)
            if boxes:
                out[k] = dlib_models.face_embedding(frame, boxes[0], files)
        return out


_EMBEDDINGS: dict[Network, Embedding] = {
    "arcface-aligned": ArcFaceAligned(),
    "arcface-whole-frame": ArcFaceWholeFrame(),
    "dlib": DlibEmbedding(),
}
_ARCFACE_BIBTEX = """@inproceedings{deng2019arcface,
  author = {Deng, Jiankang and Guo, Jia and Xue, Niannan and Zafeiriou, Stefanos},
  title = {{ArcFace}: Additive angular margin loss for deep face recognition},
  booktitle = {CVPR}, year = {2019}}"""
_DLIB_BIBTEX = """@article{king2009dlib,
  author = {King, Davis E.},
  title = {Dlib-ml: A machine learning toolkit},
  journal = {Journal of Machine Learning Research}, volume = {10}, pages = {1755--1758}, year = {2009}}"""
_ALIGNED: dict[str, object] = {"network": "arcface-aligned", "looked_at": "all"}
_VICO: dict[str, object] = {"network": "arcface-whole-frame", "looked_at": "all", "mean": "pooled-frames"}


@dataclass(frozen=True, kw_only=True)
class Csim(Metric):
    """Mean cosine similarity between the generated frames and the ground-truth frames, or the reference frames.

    `against="reference"` measures whether the method kept the person's identity, and needs no ground truth.
    If one of two compared frames has no face, this pair of frames is left out of the clip's mean. The scale of the
    values depends on the network: with dlib, even two different people have a similarity of 0.8 to 0.9.
    Stats: cosine (sum), frames, looked_at (number of compared frames).
    """

    network: Network = "dlib"
    against: Against = "ground-truth"
    frames: FrameRule = "exact"
    looked_at: int | Literal["all"] = 8  # number of frames to compare per clip; dlib takes 0.1 s per face
    mean: Mean = "video-mean"  # pooled-frames: the mean over all frames of all clips

    name = "csim"
    title = "CSIM"
    pitfalls = (
        "The scale depends on the network: with dlib, two different people have 0.82 to 0.92. A copy of the "
        "reference frame has a perfect -ref value, so read it together with EA."
    )
    higher_is_better = True
    order = 80
    limits = (-1.0, 1.0)
    worsened_by = frozenset({"identity-swap"})
    unchanged_by = frozenset(
        {"reencode", "move", "codec", "mouth-frozen", "mouth-amplitude", "emotion-swap", "frames-held"}
    )
    variants = {
        "csim:dlib": Variant("identity: cosine of dlib's face embeddings on eight frames, against the ground truth's"),
        "csim:dlib-ref": Variant(
            "identity: cosine of dlib's face embeddings on eight frames, against the reference frames",
            {"against": "reference"},
        ),
        "csim:aligned": Variant(
            "identity: cosine of ArcFace embeddings of aligned faces, against the ground truth's frames", _ALIGNED
        ),
        "csim:aligned-ref": Variant(
            "identity: cosine of ArcFace embeddings of aligned faces, against the reference frames",
            {**_ALIGNED, "against": "reference"},
        ),
        "csim:vico": Variant(
            "cosine of ArcFace embeddings of whole frames, unaligned, pooled over frames (vico, IP-LAP)", _VICO
        ),
    }

    @property
    def embedding(self) -> Embedding:
        """The identity network and its crop."""
        return _EMBEDDINGS[self.network]

    @property
    def profile(self) -> Profile:
        return self.embedding.profile

    @property
    def weights(self) -> tuple[str, ...]:
        return self.embedding.weights

    @property
    def needs_reference(self) -> bool:
        return self.against == "reference"

    @property
    def needs_target(self) -> bool:
        return self.against == "ground-truth"

    @property
    def slow(self) -> bool:
        return self.network == "dlib"

    @property
    def ms_per_frame(self) -> float | None:
        # dlib takes 100 ms for a face. Eight frames of a clip of 50 frames are compared by default.
        return 32.0 if self.network == "dlib" else None

    @property
    def pooled(self) -> bool:
        return self.mean == "pooled-frames"

    @property
    def source(self) -> str:
        if self.network == "arcface-whole-frame":
            return "github.com/dc3ea9f/vico_challenge_baseline at 16424c0, evaluations/arcface_torch/compute_csim.py"
        return "Deng et al. 2019, with insightface's w600k_r50" if self.network == "arcface-aligned" else "this suite"

    @property
    def bibtex(self) -> str:
        if self.network == "arcface-whole-frame":
            return f"{_ARCFACE_BIBTEX}\n{VICO_BIBTEX}"
        return _DLIB_BIBTEX if self.network == "dlib" else _ARCFACE_BIBTEX

    def settings(self) -> Settings:
        return {
            **self.embedding.settings(self.files),
            "against": self.against,
            "frames": self.frames,
            "looked-at": self.looked_at,
            "min-valid": MIN_VALID,
            "agg": self.mean,
        }

    def compute(self, pred: Sample, target: Sample) -> Score:
        if self.against == "reference":
            value = self._against_reference(pred)
        else:
            i, j = pair_frames(len(pred.frames), len(target.frames), self.frames)
            at = self._chosen(len(i))
            value = cosine(self._embedded(pred, i[at]), self._embedded(target, j[at]))
        valid = value[np.isfinite(value)]
        stats = {"cosine": float(valid.sum()), "frames": float(len(valid)), "looked_at": float(len(value))}
        detail = "" if len(valid) == len(value) else f"a face in both in {len(valid)} of {len(value)} frames looked at"
        if len(valid) < max(1.0, MIN_VALID * len(value)):
            return Score.missing(Reason.FEW_FACES if len(valid) else Reason.NO_FACE, detail, stats)
        return Score(float(valid.mean()), len(valid), None, detail, stats)

    def mean_of(self, sums: Mapping[str, float]) -> float | None:
        if not self.pooled:
            return super().mean_of(sums)
        return sums["cosine"] / sums["frames"] if sums.get("frames") else None

    def _against_reference(self, pred: Sample) -> np.ndarray:
        """For each chosen frame, the mean cosine similarity to the reference frames that have a face."""
        if pred.reference is None:
            raise ClipError(Reason.MISSING_FILE, f"{pred.name} comes without its reference frames")
        known = pred.reference.cached(("csim", self.network, ()), self._reference_rows)
        if not len(known):
            raise ClipError(Reason.NO_FACE, f"{pred.reference.name}: no face in the reference frames")
        found = self._embedded(pred, self._chosen(len(pred.frames)))
        if found.shape[1] != known.shape[1]:  # no face in any frame
            return np.full(len(found), np.nan)
        return cosine(found[:, None], known[None]).mean(axis=1)

    def _reference_rows(self, reference: Sample) -> np.ndarray:
        # Embed each frame alone: MediaPipe tracks a face from the previous frame, but these frames can be far from each
        # other in their clip.
        alone = [Sample(frame[None], reference.fps, name=reference.name) for frame in reference.pictures]
        rows = [self.embedding.embed(sample, np.arange(1), self.files) for sample in alone]
        return np.concatenate([row for row in rows if np.isfinite(row).all()] or [np.empty((0, 1), np.float32)])

    def _chosen(self, n: int) -> np.ndarray:
        return np.arange(n) if self.looked_at == "all" else spread(n, self.looked_at)

    def _embedded(self, sample: Sample, index: np.ndarray) -> np.ndarray:
        key = ("csim", self.network, tuple(index.tolist()))
        return sample.cached(key, lambda s: self.embedding.embed(s, index, self.files))


METRICS = (Csim,)
