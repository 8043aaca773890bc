"""Compares two methods: the paired differences of every metric, on the pairs that both methods have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmet_leaderboards.bands import Bands
from cmet_leaderboards.escaping import code, markdown
from cmet_leaderboards.formatting import column_label, number, p_value, signed
from cmet_leaderboards.grid import ABSENT, INFINITE, SCORED, Column, Grid, MethodId, grids
from cmet_leaderboards.pairwise import PairwiseComparison
from cmet_leaderboards.results import Results
from cmet_leaderboards.row import TABLE_KEYS
from cmet_leaderboards.statistics import MIN_SPEAKERS, holm
from talking_face.names import counted, did_you_mean, printable
from talking_face.origin import data_name
from talking_face.reasons import UserError


@dataclass(frozen=True)
class Extreme:
    """One pair for which the values of the two methods differ most."""

    pair_id: str
    a: float
    b: float


@dataclass(frozen=True)
class MetricComparison:
    """The comparison of methods A and B by one metric."""

    column: Column
    a: float | None  # mean of method A on the common pairs
    b: float | None  # mean of method B on the common pairs
    scored: tuple[int, int]  # number of pairs with a finite or infinite value, for A and for B
    # The difference is the loss of A minus the loss of B. Holm's correction is over the metrics. None if no pair has a
    # finite value for both methods.
    paired: PairwiseComparison | None
    extremes: tuple[Extreme, ...]  # sorted, the largest difference first


@dataclass(frozen=True)
class Comparison:
    """The comparison of the methods A and B in one table, whose rows are comparable."""

    grid: Grid  # contains only these two methods
    expected: int
    metrics: tuple[MetricComparison, ...]
    titles: tuple[str, str]  # the methods' titles on boards
    bands: str = ""  # the file with the noise bands, and the clips of the calibration that they are of

    @property
    def names(self) -> tuple[str, str]:
        return self.grid.methods[0][0], self.grid.methods[1][0]


def compare(
    results: Results, a: str, b: str, *, setting: str | None = None, bands: Bands | None = None, extremes: int = 3
) -> list[Comparison]:
    """Compare the methods `a` and `b` in every table that contains both.

    Args:
        results: result rows.
        a: the name of a method, or name@revision.
        b: the name of the other method, or name@revision.
        setting: the setting in which the methods are compared; None: all settings.
        bands: noise bands; a difference inside its band is a tie.
        extremes: for each metric, the number of listed pairs; the pairs with the largest differences are listed.

    Raises:
        UserError: a name is unknown or ambiguous, or no table contains both methods. If no table contains both, the
            message names the keys in which the result rows of the two methods differ.
    """
    found = grids(results)
    settings = sorted({grid.key["setting"] for grid in found})
    if setting is not None and setting not in settings:
        hint = did_you_mean(setting, settings) or ";"
        raise UserError(f"no rows of the setting {printable(setting)!r}{hint} there are {', '.join(settings)}")
    every = [grid for grid in found if setting is None or grid.key["setting"] == setting]
    one, two = _method(every, a), _method(every, b)
    if one == two:
        raise UserError(f"{a} and {b} are the same method; to compare two revisions, give name@revision")
    both = [grid for grid in every if one in grid.methods and two in grid.methods]
    if not both:
        raise UserError(_no_common_table(every, one, two))
    both.sort(key=lambda grid: (grid.key["setting"] != "neutral-base", tuple(grid.key.values())))
    titles = (_title(results, one), _title(results, two))
    titles = titles if titles[0] != titles[1] else ("@".join(one), "@".join(two))
    return [_compare(grid, (one, two), titles, bands or Bands(), extremes) for grid in both]


def _method(every: Sequence[Grid], name: str) -> MethodId:
    known = sorted({method for grid in every for method in grid.methods})
    found = [method for method in known if name in (method[0], "@".join(method))]
    if len(found) != 1:
        names = ", ".join("@".join(method) for method in found or known)
        what = "names several methods" if found else "names no method"
        hint = did_you_mean(name.partition("@")[0], {method for method, _ in known}) if not found else ""
        raise UserError(f"{printable(name)!r} {what} of these rows{hint or ';'} there are {names}")
    return found[0]


def _no_common_table(every: Sequence[Grid], one: MethodId, two: MethodId) -> str:
    """The error message. It names the keys in which the two most similar tables of the two methods differ."""
    first, second = ([g.key for g in every if method in g.methods] for method in (one, two))
    near = min(
        ([k for k in TABLE_KEYS if x[k] != y[k]] for x in first for y in second),
        key=lambda keys: ("setting" in keys, len(keys)),
    )
    x, y = next((x, y) for x in first for y in second if [k for k in TABLE_KEYS if x[k] != y[k]] == near)
    unlike = "; ".join(f"{k.replace('_', ' ')} {x[k]} and {y[k]}" for k in near)
    return f"rows of {one[0]} and {two[0]} may not be compared: {unlike}. Score both with the same ones"


def _title(results: Results, method: MethodId) -> str:
    """The method's title in the records of its files; its name if they have none."""
    titles = [r.method.title for r in results.records if (r.key.get("method"), r.key.get("revision")) == method]
    return next(filter(None, titles), method[0])


def _compare(
    grid: Grid, methods: tuple[MethodId, MethodId], titles: tuple[str, str], bands: Bands, extremes: int
) -> Comparison:
    bands = bands.for_origin(grid.key["origin"])
    pair = grid.with_methods([grid.methods.index(method) for method in methods])
    columns = [c for c in range(len(pair.columns)) if (pair.state[:, c] != ABSENT).any(axis=1).all()]
    paired = _paired(pair, columns, bands)
    metrics = tuple(_metric_comparison(pair, c, paired.get(c), extremes) for c in columns)
    about = bands.about if any(bands.of(pair.columns[c].signature) for c in columns) else ""
    return Comparison(pair, len(pair.pair_ids), metrics, titles, about)


def _paired(pair: Grid, columns: Sequence[int], bands: Bands) -> dict[int, PairwiseComparison]:
    """{column: paired difference} for the columns with common finite pairs. Holm's correction is over these columns."""
    found = {c: result for c in columns if (result := pair.difference(0, 1, c)) is not None}
    corrected = holm([difference.p for difference, _ in found.values()])
    return {
        c: PairwiseComparison(0, 1, d.mean, d.interval, n, d.p, float(p), bands.of(pair.columns[c].signature))
        for (c, (d, n)), p in zip(found.items(), corrected, strict=True)
    }


def _metric_comparison(pair: Grid, c: int, paired: PairwiseComparison | None, extremes: int) -> MetricComparison:
    finite = np.asarray((pair.state[:, c] == SCORED).all(axis=0))
    common = np.asarray((pair.state[:, c] >= INFINITE).all(axis=0)) if pair.pooled(c) else finite
    a, b = (pair.estimate(m, c, common, interval=False).mean for m in (0, 1))
    scored = (pair.state[:, c] >= INFINITE).sum(axis=1)
    most = _extremes(pair, c, finite, extremes)
    return MetricComparison(pair.columns[c], a, b, (int(scored[0]), int(scored[1])), paired, most)


def _extremes(grid: Grid, c: int, finite: np.ndarray, count: int) -> tuple[Extreme, ...]:
    index = np.flatnonzero(finite)
    losses = grid.columns[c].loss(grid.value[:, c, index])
    difference = abs(losses[0] - losses[1])
    index, difference = index[difference > 0], difference[difference > 0]
    order = index[np.argsort(-difference, kind="stable")][:count]
    return tuple(Extreme(grid.pair_ids[i], float(grid.value[0, c, i]), float(grid.value[1, c, i])) for i in order)


# As text --------------------------------------------------------------------------------------------------------------

HEAD = ("metric", "A", "B", "A better by", "95% interval (alone)", "p (alone)", "p (Holm)", "pairs", "verdict (Holm)")


def lines(comparison: Comparison) -> list[tuple[str, ...]]:
    """One line per metric, with the columns of HEAD. `A better by` is positive if A is better."""
    out: list[tuple[str, ...]] = []
    for metric in comparison.metrics:
        column, paired = metric.column, metric.paired
        head = (column_label(column), number(metric.a, column), number(metric.b, column))
        coverage = f"{paired.n if paired else 0} of {comparison.expected}"
        if paired is None:
            out.append((*head, "–", "–", "–", "–", coverage, "no pair in common"))
            continue
        interval = paired.interval
        between = f"{signed(-interval.high, column)} to {signed(-interval.low, column)}" if interval else "–"
        p_values = (p_value(paired.p), p_value(paired.p_holm))
        better_by = signed(-paired.difference, column)
        out.append((*head, better_by, between, *p_values, coverage, verdict(comparison, paired, column)))
    return out


def verdict(comparison: Comparison, paired: PairwiseComparison, column: Column) -> str:
    """A text that states which method is better, or why the methods tie."""
    a, b = comparison.names
    if paired.verdict == "noise":
        return f"tie: inside the noise band of {number(paired.band, column)}"
    return {"first": f"{a} is better", "second": f"{b} is better", "tie": "tie"}[paired.verdict]


def to_markdown(comparison: Comparison) -> str:
    """The comparison as Markdown: a title, the table of `lines`, and the pairs that differ most."""
    (a, a_revision), (b, b_revision) = comparison.grid.methods
    key = comparison.grid.key
    out = [markdown(f"# {a} and {b}, {key['setting']}"), ""]
    data = data_name(key["dataset"], key["origin"])
    facts = (
        f"A: {a} @ {a_revision}. B: {b} @ {b_revision}. Data {data} {key['data_digest'][:8]}, pair list "
        f"{key['pairs_digest'][:8]}, suite {key['suite_version']}."
    )
    out += [markdown(facts), ""]
    table: list[tuple[str, ...]] = [HEAD, ("---",) * len(HEAD), *lines(comparison)]
    out += ["| " + " | ".join(map(markdown, line)) + " |" for line in table]
    unit = _unit(comparison)
    metrics = counted(len(comparison.metrics), "metric")
    out += [
        "",
        f"On the pairs that both have. Paired t-test over {unit}. Interval and p (alone): one metric, uncorrected.",
    ]
    out += [
        f"p (Holm): corrected for the {metrics} here. The verdict follows it, so it can be a tie beside an interval"
    ]
    noise = f"Noise bands: {comparison.bands}." if comparison.bands else "No noise band applies."
    out += [f"that leaves out 0. {markdown(noise)}", ""]
    out += ["## Where they differ most", ""]
    for metric in comparison.metrics:
        column = metric.column
        for x in metric.extremes:
            values = f"A {number(x.a, column)}, B {number(x.b, column)}"
            out.append(f"- {markdown(column_label(column))}: {code(x.pair_id)}, {values}")
    return "\n".join([*out, ""])


def _unit(comparison: Comparison) -> str:
    """The unit of the paired tests, as text."""
    intervals = [metric.paired.interval for metric in comparison.metrics if metric.paired]
    kinds = {interval.over for interval in intervals if interval}
    few = f"clips of these speakers only (fewer than {MIN_SPEAKERS} have a value)"
    return "speakers" if kinds == {"speakers"} else few if kinds == {"clips"} else f"speakers, or over {few}"
