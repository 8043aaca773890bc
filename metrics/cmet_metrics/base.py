"""Score, Sample, Metric and Aggregate: the types that every metric shares.

A metric turns two samples into a `Score`: a finite value, or a reason without a number. A list of scores becomes an
`Aggregate`: the mean with its coverage (n scored of N expected) and the number of clips lost to each reason. All parts
of an aggregate are sums, so partial aggregates over any split of the data merge into the same result.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np

from cmet_metrics.record import DEFAULT_FILES, MetricRecord, Profile, Variant
from talking_face.pretrained import trained_evaluators
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.pretrained.trained_evaluators import Kind
from talking_face.reasons import ClipError, Reason
from talking_face.signature import Signature

__all__ = [
    "DEFAULT_FILES",
    "Aggregate",
    "Labels",
    "Metric",
    "Profile",
    "Sample",
    "Score",
    "Settings",
    "Variant",
    "check_pair",
]

T = TypeVar("T")
Settings = Mapping[str, str | int | float]  # signature fields

MIN_FRAMES = 2  # a clip of one frame is a picture, not a talking face


@dataclass(frozen=True)
class Score:
    """The outcome of one metric on one pair: a finite value, or a reason without a number, never both."""

    value: float | None
    n: int  # units (frames) that entered the value
    reason: Reason | None = None
    detail: str = ""
    stats: Mapping[str, float] = field(default_factory=dict)  # can be summed over clips; see the metric's docstring

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"a score has a value or a reason, got value={self.value}, reason={self.reason}")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a score's value is finite, got {self.value}; use a Reason")

    @classmethod
    def missing(cls, reason: Reason, detail: str = "", stats: Mapping[str, float] | None = None) -> Score:
        """A score without a number, because of `reason`."""
        return cls(None, 0, reason, detail, stats or {})


@dataclass(frozen=True)
class Labels:
    """The pair's labels, carried by the sample of the generated clip. None: unknown."""

    emotion: str | None = None  # the target emotion; one of talking_face.emotions.EMOTIONS or an extended label
    reference_emotion: str | None = None  # shown by the frames that the method was given
    speaker: str | None = None


@dataclass(frozen=True)
class Sample:
    """One clip as metrics see it. Immutable except `cached`, through which metrics share landmarks and the like.

    Keep one target sample for all methods of a pair: its landmarks are then computed once.
    """

    frames: np.ndarray  # (T, H, W, 3) RGB; uint8, or float with values 0-255
    fps: float = 25.0
    audio: np.ndarray | None = None  # (N,) int16 mono, 16 kHz, sample 0 at the first frame
    name: str = "clip"  # appears in messages
    labels: Labels = Labels()
    reference: Sample | None = None  # the frames that the method was given; for metrics with needs_reference
    _cache: dict[Hashable, tuple[object, ClipError | None]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        f = self.frames
        if f.ndim != 4 or f.shape[-1] != 3 or not (f.dtype == np.uint8 or np.issubdtype(f.dtype, np.floating)):
            raise ValueError(f"{self.name}: frames must be (T, H, W, 3) uint8 or float, got {f.shape} {f.dtype}")

    def cached(self, key: Hashable, function: Callable[[Sample], T]) -> T:
        """`function(self)`, computed once per key. A ClipError that it raises is kept and raised again."""
        if key not in self._cache:
            try:
                self._cache[key] = (function(self), None)
            except ClipError as error:
                self._cache[key] = (None, error)
        value, failure = self._cache[key]
        if failure is not None:
            raise failure
        return cast(T, value)

    def copy_cached(self, other: Sample, keep: Callable[[Hashable], bool]) -> None:
        """Take over what `other` has computed under the keys that `keep` accepts."""
        self._cache.update({key: value for key, value in other._cache.items() if keep(key)})


@dataclass(frozen=True)
class Aggregate:
    """The mean over clips and its coverage. `n` of `N` clips entered; the others are counted in `by_reason`."""

    mean: float | None  # None when no clip entered
    n: int
    N: int
    infinite: int  # of the lost clips, the number identical to the target (infinite PSNR)
    by_reason: Mapping[str, int]
    sums: Mapping[str, float]  # value, value_squared, and each of the scores' stats

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1) of the clips' values; None for fewer than two."""
        n = self.sums.get("values", 0)
        if n < 2:
            return None
        spread = self.sums["value_squared"] - self.sums["value"] ** 2 / n
        return math.sqrt(max(0.0, spread) / (n - 1))

    def __str__(self) -> str:
        mean = "-" if self.mean is None else f"{self.mean:.4g}"
        lost = ", ".join(f"{count} {reason}" for reason, count in sorted(self.by_reason.items()))
        return f"{mean} ({self.n} of {self.N}{'; ' + lost if lost else ''})"


@dataclass(frozen=True, kw_only=True)
class Metric(MetricRecord):
    """A metric: its record of facts, the score of a clip, and the mean over clips.

    A subclass gives the facts of `MetricRecord` and the methods `settings` and `compute`.
    """

    @abstractmethod
    def settings(self) -> Settings:
        """Signature fields between variant and version: everything that a value depends on."""

    @abstractmethod
    def compute(self, pred: Sample, target: Sample) -> Score:
        """The score of two samples that passed `check_pair`; may raise ClipError or MissingWeights.

        If `needs_target` is False, `target` is `pred`: the value cannot depend on a ground truth.
        """

    def signature(self) -> Signature:
        """`name|variant:...|...|version:...`; two scores are comparable only if these are equal."""
        return Signature(self.name, {"variant": self.variant, **self.settings(), "version": self.version})

    def score(self, pred: Sample, target: Sample | None) -> Score:
        """Score one clip against its ground truth.

        Args:
            pred: the generated clip.
            target: the real clip; None where it is absent.

        Returns:
            a value, or a reason (see `check_pair` and the metric) without a number. An absent model file is a reason
            too (`missing-weights`), so that the other metrics continue; so is an absent target that is needed.
        """
        try:
            if not self.needs_target:
                target = pred
            if target is None:
                raise ClipError(Reason.NO_GROUND_TRUTH, "the pair has no ground-truth clip")
            check_pair(pred, target)
            if self.evaluator is not None:
                check_held_out(self.evaluator, pred, target, self.files)
            return self.compute(pred, target)
        except ClipError as error:
            return Score.missing(error.reason, error.detail)
        except MissingWeights as error:
            return Score.missing(Reason.MISSING_WEIGHTS, str(error))

    def aggregate(self, scores: Iterable[Score], expected: int | None = None) -> Aggregate:
        """The mean over clips, with coverage.

        Args:
            scores: one per clip.
            expected: the number of clips there should be; those without a score count as `missing-output`.
        """
        n = total = infinite = 0
        by_reason: dict[str, int] = {}
        terms: dict[str, list[float]] = {}
        for score in scores:
            total += 1
            if score.reason is not None:
                by_reason[score.reason.value] = by_reason.get(score.reason.value, 0) + 1
                infinite += score.reason is Reason.INFINITE
            if score.value is not None:
                terms.setdefault("values", []).append(1.0)
                terms.setdefault("value", []).append(score.value)
                terms.setdefault("value_squared", []).append(score.value**2)
            if self.enters(score):
                n += 1
                for key, value in score.stats.items():
                    terms.setdefault(key, []).append(value)
        if expected is not None and expected < total:
            raise ValueError(f"{total} scores where {expected} were expected")
        if expected is not None and expected > total:
            gone = Reason.MISSING_OUTPUT.value
            by_reason[gone] = by_reason.get(gone, 0) + expected - total
            total = expected
        sums = {key: math.fsum(values) for key, values in sorted(terms.items())}
        return Aggregate(self.mean_of(sums), n, total, infinite, dict(sorted(by_reason.items())), sums)

    def merge(self, parts: Sequence[Aggregate]) -> Aggregate:
        """The aggregate of all clips from aggregates of disjoint parts; equal to `aggregate` over all to rounding."""
        by_reason: dict[str, int] = {}
        terms: dict[str, list[float]] = {}
        for part in parts:
            for reason, count in part.by_reason.items():
                by_reason[reason] = by_reason.get(reason, 0) + count
            for key, value in part.sums.items():
                terms.setdefault(key, []).append(value)
        sums = {key: math.fsum(values) for key, values in sorted(terms.items())}
        return Aggregate(
            self.mean_of(sums),
            sum(part.n for part in parts),
            sum(part.N for part in parts),
            sum(part.infinite for part in parts),
            dict(sorted(by_reason.items())),
            sums,
        )

    def enters(self, score: Score) -> bool:
        """Whether a clip counts in `n` and its stats are summed. Default: clips with a value."""
        return score.value is not None

    @property
    def pooled(self) -> bool:
        """Whether the mean over clips is computed from their summed stats and not from their values."""
        return type(self).mean_of is not Metric.mean_of

    def mean_of(self, sums: Mapping[str, float]) -> float | None:
        """The mean from the sums. Default: the mean of the clips' values, each clip with equal weight."""
        return sums["value"] / sums["values"] if sums.get("values") else None


def check_pair(pred: Sample, target: Sample) -> None:
    """Raises ClipError too-short, rate-mismatch or not-finite: the conditions of all metrics."""
    for sample in (pred, target):
        if len(sample.frames) < MIN_FRAMES:
            raise ClipError(Reason.TOO_SHORT, f"{sample.name} has {len(sample.frames)} frame(s); {MIN_FRAMES} needed")
    if pred.fps != target.fps:
        raise ClipError(
            Reason.RATE_MISMATCH,
            f"{pred.name} has {pred.fps:g} frames/s, {target.name} {target.fps:g}; convert one, do not relabel it",
        )
    for sample in (pred, target):
        if sample.frames.dtype != np.uint8 and not np.isfinite(sample.frames).all():
            raise ClipError(Reason.NOT_FINITE, f"{sample.name} has NaN or infinite pixels")


def check_held_out(kind: Kind, pred: Sample, target: Sample, files: ModelFiles) -> None:
    """Raises ClipError trained-on where either clip, by name or by sound, was in the evaluator's training data.

    A generated video counts as seen where its ground truth was seen, whatever the video's name is.
    """
    trained_on = trained_evaluators.find(kind, files).trained_on
    for sample in (pred, target):
        if trained_on.holds(sample.name, sample.audio):
            raise ClipError(Reason.TRAINED_ON, f"the corpus's {kind} evaluator was trained on {sample.name}")


def check_same_size(pred: Sample, target: Sample, at_least: int = 1) -> None:
    """Raises ClipError size-mismatch unless both have the same height and width of at least `at_least` px."""
    a, b = pred.frames.shape[1:3], target.frames.shape[1:3]
    if a != b:
        raise ClipError(
            Reason.SIZE_MISMATCH,
            f"{pred.name} is {a[1]}x{a[0]}, {target.name} {b[1]}x{b[0]}; resize with a named method before scoring",
        )
    if min(a) < at_least:
        raise ClipError(Reason.SIZE_MISMATCH, f"{pred.name} is {a[1]}x{a[0]}; at least {at_least}x{at_least} needed")


def need_uint8(sample: Sample, who: str) -> None:
    """Raises ValueError, which names `who`, unless the frames are uint8."""
    if sample.frames.dtype != np.uint8:
        raise ValueError(f"{sample.name}: {who} need uint8 frames, got {sample.frames.dtype}")
