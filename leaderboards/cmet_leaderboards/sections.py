"""What a board says beside its scores: who beats whom, flows between emotions, the drop to cross-emotion, confusion,
and how far the choice of a protocol decides the ranking. Plain records from the arrays of a Grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cmet_leaderboards import metric_facts
from cmet_leaderboards.bands import Bands
from cmet_leaderboards.grid import INFINITE, SCORED, Column, Grid, MethodId
from cmet_leaderboards.statistics import ALPHA, Difference, Interval, holm, kendall_tau, paired_estimates, ranks
from cmet_metrics.emotion import confusion

DROP = ("neutral-base", "cross-emotion")  # from, to
TOO_FEW = 3  # methods: with two, tau is 1 or -1 whatever they are


@dataclass(frozen=True)
class Duel:
    """Two methods under one metric, on their common pairs.

    The difference is of losses: below 0, the first is better.
    """

    first: int
    second: int
    difference: float
    interval: Interval | None
    n: int
    p: float
    p_holm: float
    band: float

    @property
    def verdict(self) -> str:
        """ "first" or "second" is better; else "tie", or "noise" where the difference is inside the metric's band."""
        if self.band and abs(self.difference) <= self.band:
            return "noise"
        if self.p_holm >= ALPHA:
            return "tie"
        return "first" if self.difference < 0 else "second"


@dataclass(frozen=True)
class Flow:
    """A metric by reference emotion and target emotion: means of one method, (R, T), NaN without a pair."""

    column: Column
    references: tuple[str, ...]
    targets: tuple[str, ...]
    pairs: np.ndarray  # (R, T) expected
    rows: tuple[tuple[MethodId, np.ndarray, np.ndarray], ...]  # method, means (R, T), pairs in them (R, T)


@dataclass(frozen=True)
class Drop:
    """How much worse a method is in another setting: the rise of its loss."""

    method: MethodId
    column: Column
    change: Difference


@dataclass(frozen=True)
class Confusion:
    """What a classifier said of one method's clips: clips by (meant, said)."""

    column: Column
    method: MethodId
    meant: tuple[str, ...]
    said: tuple[str, ...]
    clips: np.ndarray  # (meant, said)


@dataclass(frozen=True)
class Sensitivity:
    """Rankings of the same videos under each variant of one metric."""

    columns: tuple[Column, ...]
    tau: tuple[tuple[float | None, ...], ...]  # (C, C); None with fewer than TOO_FEW methods, or where all tie
    methods: tuple[tuple[int, ...], ...]  # (C, C) how many were ranked
    pairs: tuple[tuple[int, ...], ...]  # (C, C) pairs of videos in both rankings
    # Pairs of methods, the better first where that is known.
    agreed: tuple[tuple[MethodId, MethodId], ...]  # every variant finds the same one better
    opposed: tuple[tuple[MethodId, MethodId], ...]  # one variant finds this better, another that
    partly: tuple[tuple[MethodId, MethodId], ...]  # some variants find the first better, the others a tie
    open: tuple[tuple[MethodId, MethodId], ...]  # all find a tie


def duels(grid: Grid, c: int, contestants: Sequence[int], bands: Bands) -> tuple[Duel, ...]:
    """Every two of the compared contestants under column `c`; Holm's correction is over these."""
    names = [m for m in contestants if grid.compared[m, c]]
    made = [(a, b, grid.difference(a, b, c)) for a, b in itertools.combinations(names, 2)]
    found = [(a, b, result) for a, b, result in made if result is not None]
    corrected = holm([result[0].p for *_, result in found])
    band = bands.of(grid.columns[c].signature)
    return tuple(
        Duel(a, b, d.mean, d.interval, n, d.p, float(p), band)
        for (a, b, (d, n)), p in zip(found, corrected, strict=True)
    )


def standing(found: Sequence[Duel]) -> dict[int, tuple[int, dict[int, str]]]:
    """Method -> (rank, {tied method: "tie" or "noise"}). Rank 1 + the number of methods shown to be better."""
    names = sorted({m for duel in found for m in (duel.first, duel.second)})
    beats: dict[str, set[str]] = {str(name): set() for name in names}
    ties: dict[int, dict[int, str]] = {name: {} for name in names}
    for duel in found:
        one, two = duel.first, duel.second
        if duel.verdict in ("tie", "noise"):
            ties[one][two] = ties[two][one] = duel.verdict
        else:
            better, worse = (one, two) if duel.verdict == "first" else (two, one)
            beats[str(better)].add(str(worse))
    rank = ranks([str(name) for name in names], {name: frozenset(beaten) for name, beaten in beats.items()})
    return {name: (rank[str(name)], ties[name]) for name in names}


def flow(grid: Grid, c: int, references: Sequence[str], targets: Sequence[str]) -> Flow:
    """Means by emotion of the reference and of the target."""
    cells = [[(grid.reference == r) & (grid.target == t) for t in targets] for r in references]
    rows = []
    for m, method in enumerate(grid.methods):
        if not (grid.state[m, c] >= INFINITE).any():
            continue
        use = grid.use(m, c)
        found = [[grid.estimate(m, c, use & cell, interval=False) for cell in line] for line in cells]
        means = np.array([[np.nan if e.mean is None else e.mean for e in line] for line in found])
        rows.append((method, means, np.array([[e.n for e in line] for line in found])))
    return Flow(
        grid.columns[c],
        tuple(references),
        tuple(targets),
        np.array([[int(cell.sum()) for cell in line] for line in cells]),
        tuple(rows),
    )


def drops(before: Grid, after: Grid) -> tuple[Drop, ...]:
    """Rise of the loss from one setting to another, of each method and signature that both have.

    The pairs differ, the speakers do not: each speaker is left out of both sides at once, so what a speaker adds to
    both cancels.
    """
    out = []
    for (c, column), (m, method) in itertools.product(enumerate(after.columns), enumerate(after.methods)):
        was = next((i for i, other in enumerate(before.columns) if other.signature == column.signature), None)
        if was is None or method not in before.methods:
            continue
        change = _change(before, before.methods.index(method), was, after, m, c)
        if change is not None:
            out.append(Drop(method, column, change))
    return tuple(out)


def _change(before: Grid, m: int, c: int, after: Grid, m_after: int, c_after: int) -> Difference | None:
    sides = ((before, m, c), (after, m_after, c_after))
    state = SCORED if before.pooled(c) is None else INFINITE
    uses = [grid.use(i, k) & (grid.state[i, k] >= state) for grid, i, k in sides]
    both = set(before.speaker[uses[0]]) & set(after.speaker[uses[1]])
    indices = [
        np.flatnonzero(use & np.isin(grid.speaker, list(both))) for (grid, _, _), use in zip(sides, uses, strict=True)
    ]
    if not both:
        return None
    first = len(indices[0])

    def loss(side: int, keep: np.ndarray) -> float:
        grid, i, k = sides[side]
        return grid.mean_loss(i, k, indices[side][keep])

    def estimate(keep: np.ndarray) -> float:
        old, new = keep[keep < first], keep[keep >= first] - first
        return loss(1, new) - loss(0, old) if len(old) and len(new) else float("nan")

    speakers = np.concatenate([before.speaker[indices[0]], after.speaker[indices[1]]])
    found = paired_estimates(estimate, speakers)
    return found if np.isfinite([found.mean, found.p]).all() else None


def confusions(grid: Grid, c: int) -> tuple[Confusion, ...]:
    """Of each method, from a column whose stats count what a classifier said; empty for other columns."""
    sums = grid.sums(c) if metric_facts.counts_predictions(grid.columns[c].family) else {}
    if not any(">" in name for name in sums):
        return ()
    tables = {}
    for m, method in enumerate(grid.methods):
        keep = grid.use(m, c) & (grid.state[m, c] == SCORED)
        if keep.any():
            totals = {name: float(column[m, keep].sum()) for name, column in sums.items()}
            tables[method] = confusion({name: total for name, total in totals.items() if total})
    meant = _in_order({name for table in tables.values() for name in table})
    said = _in_order({name for table in tables.values() for row in table.values() for name in row})
    return tuple(
        Confusion(grid.columns[c], method, meant, said,
                  np.array([[table.get(a, {}).get(b, 0.0) for b in said] for a in meant]))
        for method, table in tables.items()
    )  # fmt: skip


def sensitivity(grid: Grid, contestants: Sequence[int], found: Mapping[int, Sequence[Duel]]) -> tuple[Sensitivity, ...]:
    """One for each metric with several variants. `found`: the duels of each column."""
    families: dict[str, list[int]] = {}
    for c, column in enumerate(grid.columns):
        if metric_facts.variants_are_protocols(column.family) and any(grid.compared[m, c] for m in contestants):
            families.setdefault(column.family, []).append(c)
    return tuple(_sensitivity(grid, columns, contestants, found) for columns in families.values() if len(columns) > 1)


def _sensitivity(
    grid: Grid, columns: Sequence[int], contestants: Sequence[int], found: Mapping[int, Sequence[Duel]]
) -> Sensitivity:
    def both(a: int, b: int) -> tuple[float | None, int, int]:
        keep = grid.common[a] & grid.common[b]
        losses = [
            (grid.estimate(m, a, keep, interval=False).loss, grid.estimate(m, b, keep, interval=False).loss)
            for m in contestants
            if grid.compared[m, a] and grid.compared[m, b]
        ]
        known = [(x, y) for x, y in losses if x is not None and y is not None]
        tau = kendall_tau([x for x, _ in known], [y for _, y in known]) if len(known) >= TOO_FEW else None
        return tau, len(known), int(keep.sum())

    cells = [[both(a, b) for b in columns] for a in columns]
    kinds = _survivors(grid, [found[c] for c in columns])
    return Sensitivity(
        tuple(grid.columns[c] for c in columns),
        tuple(tuple(tau for tau, _, _ in line) for line in cells),
        tuple(tuple(n for _, n, _ in line) for line in cells),
        tuple(tuple(pairs for _, _, pairs in line) for line in cells),
        *kinds,
    )


def _survivors(grid: Grid, by_column: Sequence[Sequence[Duel]]) -> list[tuple[tuple[MethodId, MethodId], ...]]:
    """Pairs of methods that every column compares: agreed, opposed, partly, open."""
    verdicts: dict[tuple[int, int], list[str]] = {}
    for line in by_column:
        for duel in line:
            verdicts.setdefault((duel.first, duel.second), []).append(duel.verdict)
    kinds: list[list[tuple[MethodId, MethodId]]] = [[], [], [], []]
    for (a, b), said in verdicts.items():
        if len(said) < len(by_column):
            continue
        names = (grid.methods[a], grid.methods[b])
        first, second = said.count("first"), said.count("second")
        kind = 1 if first and second else 3 if not first + second else 0 if first + second == len(said) else 2
        kinds[kind].append(names if first or not second else names[::-1])
    return [tuple(kind) for kind in kinds]


def _in_order(names: set[str]) -> tuple[str, ...]:
    from talking_face.emotions import EMOTIONS

    return tuple(sorted(names, key=lambda name: (EMOTIONS.index(name) if name in EMOTIONS else len(EMOTIONS), name)))
