"""Computes FID: the Frechet distance between Inception features of generated and real frames, per pair or per set.

Two different numbers are called FID. `cmet-pair` compares the frames of one video with the frames of its ground truth,
then averages over pairs; its values are 50 to 160. The usual FID pools the frames of all videos; its values are about
20.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmet_metrics.base import DEFAULT_FILES, Metric, Sample, Score, Settings, Variant
from talking_face.files import write_bytes
from talking_face.pretrained import inception
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import weight_tag
from talking_face.signature import Signature


def frechet_distance(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """Squared Frechet distance between two Gaussians, |ma - mb|^2 + tr(Ca + Cb - 2 (Ca Cb)^(1/2)).

    Args:
        mean_a, mean_b: (D,).
        cov_a, cov_b: (D, D), symmetric, without negative eigenvalues; singular matrices are allowed.

    Returns:
        a number of at least 0, float64. The trace of the matrix root is computed from the eigenvalues of a symmetric
        product. pytorch-fid computes a matrix square root instead, which can need an offset on the diagonal and can
        have an imaginary part. The eigenvalues need no offset and have no imaginary part.

    Raises ValueError for other shapes.
    """
    d = len(mean_a)
    if not mean_a.shape == mean_b.shape == (d,) or not cov_a.shape == cov_b.shape == (d, d):
        shapes = ", ".join(str(x.shape) for x in (mean_a, cov_a, mean_b, cov_b))
        raise ValueError(f"means must be (D,) and covariances (D, D), got {shapes}")
    values, vectors = np.linalg.eigh(np.asarray(cov_a, np.float64))
    half = vectors * np.sqrt(np.maximum(values, 0))  # half @ half.T is cov_a
    inner = np.linalg.eigvalsh(half.T @ np.asarray(cov_b, np.float64) @ half)
    return _distance(mean_a - mean_b, np.trace(cov_a), np.trace(cov_b), np.sqrt(np.maximum(inner, 0)).sum())


def frechet_distance_of(a: np.ndarray, b: np.ndarray) -> float:
    """`frechet_distance` for two sets of features, (N, D) and (M, D), from their means and sample covariances.

    For few features in many dimensions, this function takes 10 ms instead of 10 s, because it uses the singular values
    of an (N, M) matrix. The sample covariance is divided by n - 1.
    """
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features must be (N, D) and (M, D), got {a.shape} and {b.shape}")
    if len(a) < 2 or len(b) < 2:
        raise ValueError(f"a covariance needs two features at least, got {len(a)} and {len(b)}")
    x, y = ((f - f.mean(axis=0)) / np.sqrt(len(f) - 1) for f in (a, b))
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return _distance(a.mean(axis=0) - b.mean(axis=0), (x * x).sum(), (y * y).sum(), root)


def _distance(difference: np.ndarray, trace_a: float, trace_b: float, root: float) -> float:
    return max(0.0, float(difference @ difference + trace_a + trace_b - 2 * root))


@dataclass(frozen=True)
class FeatureSums:
    """The sums over frames from which the FID of a set is computed: 34 MB for 2048 dimensions.

    The sums of the parts of a set add up to the sums of the whole set.
    """

    n: int
    total: np.ndarray  # (D,) float64
    outer: np.ndarray  # (D, D) float64, sum of f f^T

    @classmethod
    def of(cls, features: np.ndarray) -> FeatureSums:
        """The sums of (N, D) features. Raises ValueError for other shapes."""
        f = np.asarray(features, np.float64)
        if f.ndim != 2:
            raise ValueError(f"features must be (N, D), got {f.shape}")
        return cls(len(f), f.sum(axis=0), f.T @ f)

    def __add__(self, other: FeatureSums) -> FeatureSums:
        return FeatureSums(self.n + other.n, self.total + other.total, self.outer + other.outer)

    @property
    def mean(self) -> np.ndarray:
        return self.total / self.n

    @property
    def covariance(self) -> np.ndarray:
        """(D, D), the sample covariance (divided by n - 1)."""
        if self.n < 2:
            raise ValueError(f"a covariance needs two features at least, got {self.n}")
        return (self.outer - np.outer(self.total, self.total) / self.n) / (self.n - 1)

    def save(self, path: Path) -> None:
        """Write an .npz file, which gets its final name by an atomic rename."""
        buffer = io.BytesIO()
        np.savez(buffer, n=self.n, total=self.total, outer=self.outer)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> FeatureSums:
        """Read a file that `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(int(file["n"]), file["total"], file["outer"])


def inception_features(sample: Sample, files: ModelFiles) -> np.ndarray:
    """(T, 2048) features of a sample's whole frames, computed once per sample. Raises MissingWeights."""
    return sample.cached("inception-fid", lambda s: inception.inception_features(s.pictures, files))


def _network(files: ModelFiles) -> Settings:
    return {
        "net": f"inception-2015-12-05@{weight_tag(inception.NAME, files)}",
        "colour": "rgb",
        "resize": "bilinear-299",
        "codec": "none",
        "frames": "all",
    }


@dataclass(frozen=True, kw_only=True)
class PairFid(Metric):
    """FID between the frames of one video and the frames of its ground truth, as C-MET's evaluation computes it.

    The two videos can have different lengths. A video has only about 75 features in 2048 dimensions. Therefore both
    covariances are singular, and the value is far from the FID of a whole data set. Compare the value only with values
    that have the same signature. Stats: frames, target_frames.
    """

    name = "fid"
    title = "FID"
    pitfalls = (
        "This is not the usual FID: about 75 frames of one video give singular covariances, and values of 50 to "
        "160. Compare it only within its column."
    )
    higher_is_better = False
    order = 100
    limits = (0.0, math.inf)
    profile = "paper"
    weights = (inception.NAME,)
    ms_per_frame = 400.0
    worsened_by = frozenset({"reencode", "blur", "jpeg", "identity-swap"})
    source = "Heusel et al. 2017, per pair as in C-MET's evaluation; features of pytorch-fid 0.3.0"
    bibtex = """@inproceedings{heusel2017fid,
  author = {Heusel, Martin and Ramsauer, Hubert and Unterthiner, Thomas and Nessler, Bernhard and Hochreiter, Sepp},
  title = {{GANs} trained by a two time-scale update rule converge to a local {Nash} equilibrium},
  booktitle = {NeurIPS}, year = {2017}}"""
    variants = {
        "fid:cmet-pair": Variant("Frechet Inception distance of each video to its ground truth, mean over videos")
    }

    def settings(self) -> Settings:
        return {**_network(self.files), "agg": "video-mean"}

    def compute(self, pred: Sample, target: Sample) -> Score:
        b, a = inception_features(target, self.files), inception_features(pred, self.files)
        stats = {"frames": float(len(a)), "target_frames": float(len(b))}
        return Score(frechet_distance_of(a, b), len(a), None, "", stats)


@dataclass(frozen=True)
class DatasetFid:
    """The usual FID, `fid:dataset`: the frames of all generated videos against the frames of all real videos.

    This class is not a `Metric` with one result row per pair, because this FID is not a mean of the clips' values and
    its sums are matrices. Add up the sums of all generated videos and, separately, the sums of all real videos, in any
    order and in any number of processes. Then compute the value. With fewer than about 10,000 generated or real frames,
    the value is biased upwards. Therefore compare methods on the same videos only.
    """

    files: ModelFiles = DEFAULT_FILES

    def signature(self) -> Signature:
        """The signature, in the form of `Metric.signature`."""
        settings = _network(self.files)
        return Signature("fid", {"variant": "dataset", **settings, "agg": "pooled-frames", "version": "1.0.0"})

    def sums(self, sample: Sample) -> FeatureSums:
        """The sums of one video. Raises MissingWeights."""
        return FeatureSums.of(inception_features(sample, self.files))

    def value(self, generated: FeatureSums, real: FeatureSums) -> float:
        """The FID over all videos. The computation takes 10 s for 2048 dimensions."""
        return frechet_distance(generated.mean, generated.covariance, real.mean, real.covariance)


METRICS = (PairFid,)
