"""Computes how far each metric of the result rows agrees with the raters of a study.

A rating study gives one mean rating per video. It is correlated with the metric's value for the same video. In a
pairwise study, the metric chooses one of the two videos too, and the share of equal choices is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cmet_eval.reports.common_pairs import MetricRows, by_signature
from cmet_eval.study.answers import Answer
from cmet_eval.study.key import StudyKey
from cmet_leaderboards.digits import fixed
from cmet_leaderboards.results import Results
from cmet_leaderboards.statistics import MIN_SPEAKERS, Interval, jackknife_interval, kendall_tau
from talking_face.reasons import UserError

_FEWEST = 4  # videos or choices below which no agreement is computed
Video = tuple[str, str]  # pair id, method


@dataclass(frozen=True)
class Agreement:
    """How far one metric agrees with the raters on one question.

    For ratings, `value` is Spearman's correlation over videos: 1 if a better value by the metric always has a better
    mean rating. For preferences, it is the share of the raters' choices that the metric shares; 0.5 is chance.
    """

    question: str
    metric: str  # key of the metric
    signature: str
    profile: str
    value: float  # NaN if the ratings or the metric's values do not vary
    interval: Interval | None  # 95% jackknife over speakers, or over pairs if there are too few; the raters are fixed
    count: int  # number of videos, or of choices
    within: float  # ratings: the same correlation after each method's mean is subtracted; else NaN
    methods: float | None  # ratings: Kendall's tau between the methods' mean ratings and mean values; None: too few


@dataclass(frozen=True)
class _Metric:
    """The values of one metric for the videos of a study; higher is better."""

    metric: str
    signature: str
    profile: str
    good: Mapping[Video, float]
    speaker: Mapping[str, str]  # by pair id


def agreements(key: StudyKey, answers: Sequence[Answer], results: Results) -> list[Agreement]:
    """One record per question and metric, in the order of the questions, the largest agreement first.

    Only rows of the study's setting, pair list and methods are used. If the key has the SHA-256 of the videos that were
    shown, only rows that score these videos are used.

    Raises UserError if no row is left.
    """
    metrics = [_metric(part) for part in by_signature(_rows(key, results))]
    measure = _correlation if key.design == "rating" else _shared_choices
    found = []
    for question in key.questions:
        asked = [answer for answer in answers if answer.question == question]
        some = [one for metric in metrics if (one := measure(question, asked, metric)) is not None]
        found += sorted(some, key=lambda one: (math.isnan(one.value), -one.value, one.metric, one.signature))
    return found


def _rows(key: StudyKey, results: Results) -> pd.DataFrame:
    frame = results.frame()
    mine = frame[(frame["setting"] == key.setting) & (frame["pairs_digest"] == key.pairs_digest)]
    mine = mine[mine["pair_id"].isin(key.pairs) & mine["method"].isin(key.methods) & mine["value"].notna()]
    shown = {video: key.originals[file] for file, video in key.videos.items() if file in key.originals}
    scored = zip(mine["pair_id"], mine["method"], mine["video_sha256"], strict=True)
    same = [shown.get((pair, method), sha) == sha for pair, method, sha in scored]
    if not any(same):
        other = "; the rows score other videos than the study shows" if len(mine) else ""
        raise UserError(
            f"the result rows have no score of a video of this study ({key.setting}, pair list {key.pairs_digest[:8]})"
            f"{other}; name the run of the study with --run"
        )
    return mine[same]


def _metric(part: MetricRows) -> _Metric:
    rows = part.rows
    value = rows["value"].to_numpy(float)
    ideal = rows["ideal"].iloc[0]
    if pd.notna(ideal):
        value = -abs(value - float(ideal))
    elif not bool(rows["higher_is_better"].iloc[0]):
        value = -value
    videos = zip(rows["pair_id"], rows["method"], strict=True)
    speaker = dict(zip(rows["pair_id"], rows["speaker"].fillna(""), strict=True))
    return _Metric(part.metric, part.signature, part.key["profile"], dict(zip(videos, value, strict=True)), speaker)


def _correlation(question: str, asked: Sequence[Answer], metric: _Metric) -> Agreement | None:
    by_video: dict[Video, list[int]] = {}
    for answer in asked:
        by_video.setdefault((answer.pair, answer.methods[0]), []).append(answer.value)
    videos = sorted(by_video.keys() & metric.good.keys())
    if len(videos) < _FEWEST:
        return None
    ratings = np.array([np.mean(by_video[video]) for video in videos])
    values = np.array([metric.good[video] for video in videos])
    interval = _interval(lambda keep: spearman(ratings[keep], values[keep]), [pair for pair, _ in videos], metric, -1.0)
    methods = np.array([method for _, method in videos])
    names = np.unique(methods)
    means = [(float(ratings[methods == name].mean()), float(values[methods == name].mean())) for name in names]
    within = spearman(_centred(ratings, methods), _centred(values, methods))
    tau = kendall_tau(*zip(*means, strict=True)) if len(names) > 2 else None
    return Agreement(
        question, metric.metric, metric.signature, metric.profile,
        spearman(ratings, values), interval, len(videos), within, tau,
    )  # fmt: skip


def _shared_choices(question: str, asked: Sequence[Answer], metric: _Metric) -> Agreement | None:
    known = [a for a in asked if all((a.pair, method) in metric.good for method in a.methods)]
    if len(known) < _FEWEST:
        return None
    shared = np.array([_shares(answer, metric) for answer in known])
    interval = _interval(lambda keep: float(shared[keep].mean()), [answer.pair for answer in known], metric, 0.0)
    return Agreement(
        question, metric.metric, metric.signature, metric.profile,
        float(shared.mean()), interval, len(known), math.nan, None,
    )  # fmt: skip


def _shares(answer: Answer, metric: _Metric) -> float:
    """1 if the metric prefers the same video as the rater, 0 if it prefers the other, 0.5 if its values are equal."""
    chosen, other = answer.methods[answer.value], answer.methods[1 - answer.value]
    difference = metric.good[answer.pair, chosen] - metric.good[answer.pair, other]
    return 0.5 + 0.5 * float(np.sign(difference))


def _interval(
    estimate: Callable[[np.ndarray], float], pairs: Sequence[str], metric: _Metric, lowest: float
) -> Interval | None:
    """The jackknife interval over speakers, or over pairs if there are fewer than MIN_SPEAKERS; from `lowest` to 1."""
    speakers = [metric.speaker[pair] for pair in pairs]
    by_speaker = len(set(speakers)) >= MIN_SPEAKERS
    units = speakers if by_speaker else list(pairs)
    if len(set(units)) < MIN_SPEAKERS:
        return None
    found = jackknife_interval(estimate, units)
    if found is None or not np.isfinite([found.low, found.high]).all():
        return None
    over = "speakers" if by_speaker else "pairs"
    return Interval(max(lowest, found.low), min(1.0, found.high), over, found.units)


def _centred(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The values minus the mean of their group. Differences by rounding alone become 0."""
    out = values.astype(float).copy()
    for group in np.unique(groups):
        out[groups == group] -= out[groups == group].mean()
    out[abs(out) < 1e-12 * max(1.0, float(abs(values).max()))] = 0.0
    return out


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two (n,) arrays; NaN if one of them does not vary."""
    from scipy import stats

    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(stats.spearmanr(a, b).statistic)


def to_markdown(found: Sequence[Agreement], design: str) -> str:
    """The agreements as a Markdown table, and the facts that a reader needs."""
    several = len({one.signature for one in found}) > len({one.metric for one in found})
    ratings = design == "rating"
    head = ["question", "metric", "correlation" if ratings else "agreement", "95%", "videos" if ratings else "choices"]
    head += ["within methods", "methods (tau)"] if ratings else []
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for one in found:
        name = f"{one.metric} ({one.signature})" if several else one.metric
        interval = f"{fixed(one.interval.low, 2)} to {fixed(one.interval.high, 2)}" if one.interval else "-"
        cells = [one.question, name.replace("|", "\\|"), _number(one.value), interval, str(one.count)]
        cells += [_number(one.within), _number(one.methods)] if ratings else []
        lines.append("| " + " | ".join(cells) + " |")
    units = sorted({f"{one.interval.units} {one.interval.over}" for one in found if one.interval})
    what = (
        "correlation: Spearman's, over videos, between the mean rating and the metric; + means that a better value has "
        "a better rating"
        if ratings
        else "agreement: the share of the raters' choices that the metric makes too; 0.5 is chance"
    )
    over = f" 95%: jackknife over {' or '.join(units)}; the raters are fixed." if units else ""
    return "\n".join([*lines, "", f"{what[0].upper()}{what[1:]}.{over}", ""])


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else fixed(value, 2)
