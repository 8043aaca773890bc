"""Score, Sample, Metric and Aggregate: what every metric shares, so that a mean never stands without its coverage.

A metric turns two samples into a `Score`: a finite value, or a reason and no number. A list of scores becomes an
`Aggregate`: the mean with n scored of N expected, and how many were lost to which reason. Everything an aggregate is
made of is a sum, so partial aggregates over any split of the data merge into the same result.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np

from talking_face.reasons import ClipError, Reason
from talking_face.signature import Signature

T = TypeVar("T")

MIN_FRAMES = 2  # a clip of one frame is a picture, not a talking face


@dataclass(frozen=True)
class Score:
    """The outcome of one metric on one pair: a finite value, or a reason and no number, never both."""

    value: float | None
    n: int  # units (frames) that entered the value
    reason: Reason | None = None
    detail: str = ""
    stats: Mapping[str, float] = field(default_factory=dict)  # summable; see the metric's docstring

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"a score has a value or a reason, got value={self.value}, reason={self.reason}")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a score's value is finite, got {self.value}; use a Reason")

    @classmethod
    def missing(cls, reason: Reason, detail: str = "", stats: Mapping[str, float] | None = None) -> Score:
        """No number, because of `reason`."""
        return cls(None, 0, reason, detail, stats or {})


@dataclass(frozen=True)
class Labels:
    """What the pair says of a clip beside its frames. None: not known. Carried by the generated clip's sample."""

    emotion: str | None = None  # that it should show; talking_face.emotions.EMOTIONS or an extended label
    reference_emotion: str | None = None  # shown by the frames that the method was given
    speaker: str | None = None


@dataclass(frozen=True)
class Sample:
    """One clip as metrics see it. Immutable but for `cached`, through which metrics share landmarks and the like.

    Keep one target sample for all methods of a pair: what was computed for it is then computed once.
    """

    frames: np.ndarray  # (T, H, W, 3) RGB; uint8, or float with values 0-255
    fps: float = 25.0
    audio: np.ndarray | None = None  # (N,) int16 mono, 16 kHz, sample 0 at the first frame
    name: str = "clip"  # stands in messages
    labels: Labels = Labels()
    reference: Sample | None = None  # the frames that the method saw the person in; for metrics with needs_reference
    _cache: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        f = self.frames
        if f.ndim != 4 or f.shape[-1] != 3 or not (f.dtype == np.uint8 or np.issubdtype(f.dtype, np.floating)):
            raise ValueError(f"{self.name}: frames must be (T, H, W, 3) uint8 or float, got {f.shape} {f.dtype}")

    def cached(self, key: Hashable, function: Callable[[Sample], T]) -> T:
        """`function(self)`, computed once per key. A ClipError it raises is kept and raised again."""
        if key not in self._cache:
            try:
                self._cache[key] = (function(self), None)
            except ClipError as error:
                self._cache[key] = (None, error)
        value, failure = self._cache[key]
        if failure is not None:
            raise failure
        return value  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Aggregate:
    """The mean over clips and its coverage. `n` of `N` clips entered; the others are in `by_reason`."""

    mean: float | None  # None when no clip entered
    n: int
    N: int
    infinite: int  # of the lost ones, how many were identical to the target (infinite PSNR)
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


class Metric(ABC):
    """A metric's name, variant, direction and settings over a pure function on arrays."""

    name: ClassVar[str]
    variant: str
    higher_is_better: ClassVar[bool]
    ideal: ClassVar[float | None] = None  # the right value, where nearer to it is better, whatever stands above
    unit: ClassVar[str]  # "dB", "px", "" for a ratio
    summary: ClassVar[str]  # one line for listings
    version: ClassVar[str] = "1.0.0"  # raised whenever a value can change
    needs_labels: ClassVar[bool] = False  # reads `pred.labels`
    needs_reference: ClassVar[bool] = False  # reads `pred.reference`
    needs_target: bool = True  # reads `target`; where not, a clip without a ground truth has a score

    @property
    def key(self) -> str:
        """`name:variant`, the metric's name in settings and result rows."""
        return f"{self.name}:{self.variant}"

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Signature fields between variant and version: everything a value depends on."""

    @abstractmethod
    def compute(self, pred: Sample, target: Sample) -> Score:
        """The score of two samples that passed `check_pair`; may raise ClipError.

        Where `needs_target` is False, `target` is `pred` again: the value cannot depend on a ground truth.
        """

    def signature(self) -> Signature:
        """`name|variant:...|...|version:...`; two scores are comparable only if these are equal."""
        return Signature(self.name, {"variant": self.variant, **self.settings(), "version": self.version})

    def score(self, pred: Sample, target: Sample | None) -> Score:
        """Score one clip against its ground truth.

        Args:
            pred: the generated clip.
            target: the real clip; None where there is none.

        Returns:
            a value, or a reason (see `check_pair` and the metric) and no number. A model file that is absent is a
            reason too (`missing-weights`), so that the other metrics go on; so is a target that is None and needed.
        """
        from talking_face.pretrained.store import MissingWeights

        try:
            if not self.needs_target:
                target = pred
            if target is None:
                raise ClipError(Reason.NO_GROUND_TRUTH, "the pair has no ground-truth clip")
            check_pair(pred, target)
            return self.compute(pred, target)
        except ClipError as error:
            return Score.missing(error.reason, error.detail)
        except MissingWeights as error:
            return Score.missing(Reason.MISSING_WEIGHTS, str(error))

    def aggregate(self, scores: Iterable[Score], expected: int | None = None) -> Aggregate:
        """The mean over clips, with coverage.

        Args:
            scores: one per clip.
            expected: how many clips there should be; those without a score count as `missing-output`.
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
        """Whether a clip counts in `n` and its stats are summed. Default: those with a value."""
        return score.value is not None

    def mean_of(self, sums: Mapping[str, float]) -> float | None:
        """The mean from the sums. Default: the mean of the clips' values, each clip with equal weight."""
        return sums["value"] / sums["values"] if sums.get("values") else None


def check_pair(pred: Sample, target: Sample) -> None:
    """What no metric can do without: raises ClipError too-short, rate-mismatch or not-finite."""
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
