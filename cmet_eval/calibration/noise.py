"""Derives noise bands and verdicts from the answers of a calibration.

A noise band is the size of the change of a metric by a cause that does not visibly change a video. The causes are
re-encoding, a crop that is moved by 1 px, and another seed in the training of an evaluator. If the difference between
two methods is smaller than the noise band, the difference has no meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from cmet_eval.calibration.answers import BASE, EVALUATOR, NO_STEP, STAND_IN, Answer, groups, label
from cmet_eval.calibration.degradations import NOISE, Degradation
from cmet_metrics.base import Metric

# These kinds of noise are reported, but do not count for the band. A crop that is moved by 2 px lowers the PSNR by 3 to
# 4 dB. With such a wide band, no two methods would differ.
NOT_IN_BAND = frozenset({("move", "2")})

Claim = Literal["worse", "unchanged", ""]


class Verdict(NamedTuple):
    """Whether the claim of a metric about a degradation holds."""

    wrong: str  # why the claim failed; empty if the claim holds or if there is no claim
    change: float | None  # median difference over clips at the last step; None if there are no values


class Offsets(NamedTuple):
    """How often a metric finds a shift of the sound by k frames. Each video is one clip with one shift."""

    videos: int  # number of all videos
    exact: int  # videos with the measured offset k
    near: int  # videos whose measured offset differs from k by at most 1
    relative: int  # videos whose measured offset is k more than that of the clip without a shift


def differences(
    answers: Sequence[Answer], metric: str, start: str, degradation: tuple[str, str], group: str | None
) -> np.ndarray:
    """(n,) value at `degradation` (name, step) minus value at `start`, for all clips that have both values."""
    after: dict[str, float] = {}
    before: dict[str, float] = {}
    for a in answers:
        if a.metric == metric and a.value is not None and group in (None, a.group):
            if (a.degradation, a.step) == (start, NO_STEP):
                before[a.clip] = a.value
            elif (a.degradation, a.step) == degradation:
                after[a.clip] = a.value
    return np.array([after[clip] - before[clip] for clip in sorted(after.keys() & before.keys())])


def band_of(answers: Sequence[Answer], metric: str, noise: str, step: str, group: str | None) -> float | None:
    """Mean over clips of the absolute change that a kind of noise makes on the stand-in; None if there is no clip."""
    found = differences(answers, metric, STAND_IN, (f"{STAND_IN}+{noise}", step), group)
    return float(np.abs(found).mean()) if len(found) else None


def kinds_of_noise(answers: Sequence[Answer]) -> list[tuple[str, str]]:
    """(name, step) of all kinds of noise: the degradations in NOISE, and the evaluators with other seeds."""
    seeds = sorted({a.step for a in answers if a.degradation == f"{STAND_IN}+{EVALUATOR}"})
    return [(how.name, label(step)) for how in NOISE for step in how.steps] + [(EVALUATOR, seed) for seed in seeds]


def noise_of(answers: Sequence[Answer], metric: str, group: str | None) -> dict[tuple[str, str], float]:
    """(name, step) of a kind of noise -> the change that it makes; kinds without values are left out."""
    found = {kind: band_of(answers, metric, *kind, group) for kind in kinds_of_noise(answers)}
    return {kind: value for kind, value in found.items() if value is not None}


def whole_band(answers: Sequence[Answer], metric: str, group: str | None) -> float | None:
    """The noise band: the largest change by re-encoding, by a crop moved by 1 px, or by another evaluator's seed."""
    found = noise_of(answers, metric, group)
    return max((value for kind, value in found.items() if kind not in NOT_IN_BAND), default=None)


def bands(answers: Sequence[Answer], metrics: Sequence[Metric]) -> list[dict[str, str]]:
    """The rows of bands.csv, one per metric and kind of clips. The leaderboard reads bands.csv."""
    out = []
    for metric in metrics:
        for group in groups(answers):
            value = whole_band(answers, metric.key, group)
            if value is not None:
                head = {"metric": metric.key, "signature": str(metric.signature()), "unit": metric.unit}
                out.append(head | {"source": group, "band": f"{value:.6g}"})
    return out


def noise_table(answers: Sequence[Answer], metrics: Sequence[Metric]) -> list[dict[str, str]]:
    """The rows of noise.csv: the change by each kind of noise, and whether this kind counts for the band."""
    return [
        {
            "metric": metric.key,
            "unit": metric.unit,
            "source": group,
            "noise": kind[0],
            "step": kind[1],
            "change": f"{value:.6g}",
            "in_band": "no" if kind in NOT_IN_BAND else "yes",
        }
        for metric in metrics
        for group in groups(answers)
        for kind, value in noise_of(answers, metric.key, group).items()
    ]


def claim_of(metric: Metric, how: Degradation) -> Claim:
    """What the metric's record claims about the last step of a degradation; empty if there is no claim."""
    return "worse" if how.name in metric.worsened_by else "unchanged" if how.name in metric.unchanged_by else ""


def verdict(answers: Sequence[Answer], metric: Metric, how: Degradation, group: str) -> Verdict:
    """Whether the metric's claim holds at the last step of a degradation.

    The claim "worse" holds if the median becomes worse by more than the change that re-encoding makes. The claim
    "unchanged" holds if the change of the median, in either direction, is not larger than the whole noise band.
    """
    found = differences(answers, metric.key, BASE, (how.name, label(how.steps[-1])), group)
    noise = noise_of(answers, metric.key, group)
    coding = max((value for (name, _), value in noise.items() if name == "reencode"), default=None)
    whole = whole_band(answers, metric.key, group)
    if not len(found) or coding is None or whole is None:
        return Verdict("", None)
    change = float(np.median(found))
    worse = -change if metric.higher_is_better else change
    if metric.ideal is not None:  # an undamaged clip has the ideal value, so every change is worse
        worse = abs(change)
    claim = claim_of(metric, how)
    if claim == "worse" and worse <= coding:
        return Verdict("does not move", change)
    if claim == "unchanged" and abs(change) > whole:
        return Verdict("moves", change)
    return Verdict("", change)


def offsets(answers: Sequence[Answer], metric: str, group: str) -> Offsets:
    """Counts how often the metric finds the shift of the sound."""
    found = [(a, a.offset) for a in answers if (a.metric, a.group) == (metric, group) and a.offset is not None]
    own = {a.clip: offset for a, offset in found if a.degradation == BASE}
    errors = [
        (offset - float(a.step), offset - float(a.step) - own[a.clip])
        for a, offset in found
        if a.degradation == "sound-shift" and a.clip in own
    ]
    return Offsets(
        videos=len(errors),
        exact=sum(error == 0 for error, _ in errors),
        near=sum(abs(error) <= 1 for error, _ in errors),
        relative=sum(error == 0 for _, error in errors),
    )
