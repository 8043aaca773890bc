"""Two methods against one another: paired differences of every metric on the pairs that both have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmet_leaderboards.bands import Bands
from cmet_leaderboards.grid import ABSENT, INFINITE, SCORED, Column, Grid, MethodId, grids
from cmet_leaderboards.results import TABLE_KEYS, Results
from cmet_leaderboards.sections import Duel
from cmet_leaderboards.statistics import MIN_SPEAKERS, holm
from cmet_leaderboards.wording import column_title, number, signed
from talking_face.reasons import UserError


@dataclass(frozen=True)
class Extreme:
    """A pair on which the two differ much."""

    pair_id: str
    a: float
    b: float


@dataclass(frozen=True)
class Contrast:
    """One metric. The duel's difference is of losses, first (A) minus second (B); Holm's correction is over metrics."""

    column: Column
    a: float | None  # means on the common pairs
    b: float | None
    scored: tuple[int, int]  # pairs that A and B have a value for, infinite ones too
    duel: Duel | None  # None where there is no common finite pair
    extremes: tuple[Extreme, ...]  # those that differ most, the most first


@dataclass(frozen=True)
class Comparison:
    """A and B in one table of rows that may be compared."""

    grid: Grid  # of these two methods only
    expected: int
    contrasts: tuple[Contrast, ...]

    @property
    def names(self) -> tuple[str, str]:
        return self.grid.methods[0][0], self.grid.methods[1][0]


def compare(
    results: Results, a: str, b: str, *, setting: str | None = None, bands: Bands | None = None, extremes: int = 3
) -> list[Comparison]:
    """Compare methods `a` and `b`, each a name or name@revision, in every table that holds both.

    Args:
        results: result rows.
        setting: only this one.
        bands: noise bands inside which a difference is a tie.
        extremes: how many of the most different pairs to name for each metric.

    Raises:
        UserError: a name is unknown or ambiguous, or no table holds both; it says in what their rows differ.
    """
    every = [grid for grid in grids(results) if setting is None or grid.key["setting"] == setting]
    if not every:
        raise UserError(f"no rows of the setting {setting!r}")
    one, two = _method(every, a), _method(every, b)
    if one == two:
        raise UserError(f"{a} and {b} are the same method; give name@revision to tell two revisions apart")
    both = [grid for grid in every if one in grid.methods and two in grid.methods]
    if not both:
        raise UserError(_apart(every, one, two))
    both.sort(key=lambda grid: (grid.key["setting"] != "neutral-base", tuple(grid.key.values())))
    return [_compare(grid, one, two, bands or Bands(), extremes) for grid in both]


def _method(every: Sequence[Grid], name: str) -> MethodId:
    known = sorted({method for grid in every for method in grid.methods})
    found = [method for method in known if name in (method[0], "@".join(method))]
    if len(found) != 1:
        names = ", ".join("@".join(method) for method in found or known)
        raise UserError(f"{name!r} is {'several methods' if found else 'no method'} of these rows; there are {names}")
    return found[0]


def _apart(every: Sequence[Grid], one: MethodId, two: MethodId) -> str:
    """Why no table holds both."""
    first, second = ([g.key for g in every if method in g.methods] for method in (one, two))
    near = min(
        ([k for k in TABLE_KEYS if x[k] != y[k]] for x in first for y in second),
        key=lambda keys: ("setting" in keys, len(keys)),
    )
    x, y = next((x, y) for x in first for y in second if [k for k in TABLE_KEYS if x[k] != y[k]] == near)
    unlike = "; ".join(f"{k.replace('_', ' ')} {x[k]} and {y[k]}" for k in near)
    return f"rows of {one[0]} and {two[0]} may not be compared: {unlike}. Score both with the same ones"


def _compare(grid: Grid, one: MethodId, two: MethodId, bands: Bands, extremes: int) -> Comparison:
    pair = grid.only([grid.methods.index(one), grid.methods.index(two)])
    columns = [c for c in range(len(pair.columns)) if (pair.state[:, c] != ABSENT).any(axis=1).all()]
    found = {c: pair.difference(0, 1, c) for c in columns}
    known = [c for c in columns if found[c] is not None]
    corrected = dict(zip(known, holm([d[0].p for c in known if (d := found[c]) is not None]), strict=True))
    made = []
    for c in columns:
        duel = None
        if (d := found[c]) is not None:
            band = bands.of(pair.columns[c].signature)
            duel = Duel(0, 1, d[0].mean, d[0].interval, d[1], d[0].p, float(corrected[c]), band)
        finite = np.asarray((pair.state[:, c] == SCORED).all(axis=0))
        common = np.asarray((pair.state[:, c] >= INFINITE).all(axis=0)) if pair.pooled(c) else finite
        means = [pair.estimate(m, c, common, interval=False).mean for m in (0, 1)]
        scored = (pair.state[:, c] >= INFINITE).sum(axis=1)
        made.append(
            Contrast(pair.columns[c], means[0], means[1], (int(scored[0]), int(scored[1])), duel,
                     _extremes(pair, c, finite, extremes))
        )  # fmt: skip
    return Comparison(pair, len(pair.pair_ids), tuple(made))


def _extremes(grid: Grid, c: int, finite: np.ndarray, count: int) -> tuple[Extreme, ...]:
    index = np.flatnonzero(finite)
    losses = grid.columns[c].loss(grid.value[:, c, index])
    apart = abs(losses[0] - losses[1])
    index, apart = index[apart > 0], apart[apart > 0]
    order = index[np.argsort(-apart, kind="stable")][:count]
    return tuple(Extreme(grid.pair_ids[i], float(grid.value[0, c, i]), float(grid.value[1, c, i])) for i in order)


# As text --------------------------------------------------------------------------------------------------------------

HEAD = ("metric", "A", "B", "A better by", "95% interval", "p", "p (Holm)", "pairs", "verdict")


def lines(comparison: Comparison) -> list[tuple[str, ...]]:
    """One line a metric, with HEAD's columns. `A better by` is the fall of the loss: positive is good for A."""
    out: list[tuple[str, ...]] = []
    for contrast in comparison.contrasts:
        column, duel = contrast.column, contrast.duel
        head = (f"{column_title(column)} {column.arrow}", number(contrast.a, column), number(contrast.b, column))
        coverage = f"{duel.n if duel else 0} of {comparison.expected}"
        if duel is None:
            out.append((*head, "–", "–", "–", "–", coverage, "no pair in common"))
            continue
        interval = duel.interval
        between = f"{signed(-interval.high, column)} to {signed(-interval.low, column)}" if interval else "–"
        out.append(
            (*head, signed(-duel.difference, column), between, _p(duel.p), _p(duel.p_holm), coverage,
             verdict(comparison, duel, column))
        )  # fmt: skip
    return out


def verdict(comparison: Comparison, duel: Duel, column: Column) -> str:
    """Who is better, or why it is a tie."""
    a, b = comparison.names
    if duel.verdict == "noise":
        return f"tie: inside the noise band of {number(duel.band, column)}"
    return {"first": f"{a} is better", "second": f"{b} is better", "tie": "tie"}[duel.verdict]


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def to_markdown(comparison: Comparison) -> str:
    """A title, the table of `lines`, and the pairs that differ most."""
    (a, a_revision), (b, b_revision) = comparison.grid.methods
    key = comparison.grid.key
    kinds = {c.duel.interval.over for c in comparison.contrasts if c.duel and c.duel.interval}
    few = f"clips of these speakers only (fewer than {MIN_SPEAKERS} have a value)"
    unit = "speakers" if kinds == {"speakers"} else few if kinds == {"clips"} else f"speakers, or over {few}"
    out = [f"# {a} and {b}, {key['setting']}", ""]
    out += [f"A: {a} @ {a_revision}. B: {b} @ {b_revision}. Data {key['dataset']} {key['data_digest'][:8]}, pair list "
            f"{key['pairs_digest'][:8]}, suite {key['suite_version']}.", ""]  # fmt: skip
    table: list[tuple[str, ...]] = [HEAD, ("---",) * len(HEAD), *lines(comparison)]
    out += ["| " + " | ".join(line) + " |" for line in table]
    out += ["", f"On the pairs that both have. Paired t-test over {unit}; Holm's correction is over the metrics.", ""]
    out += ["## Where they differ most", ""]
    for contrast in comparison.contrasts:
        column = contrast.column
        for x in contrast.extremes:
            values = f"A {number(x.a, column)}, B {number(x.b, column)}"
            out.append(f"- {column_title(column)} {column.arrow}: `{x.pair_id}`, {values}")
    return "\n".join([*out, ""])
