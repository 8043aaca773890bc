"""Computes the sections of a board that follow the scores, as plain records from the arrays of a Grid.

The sections are the means by reference and target emotion, the drop from neutral-base to cross-emotion, the confusion
matrices, and the dependence of the ranking on the variant of a metric.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cmet_leaderboards import metric_facts
from cmet_leaderboards.grid import INFINITE, SCORED, Column, Grid, MethodId
from cmet_leaderboards.pairwise import PairwiseComparison
from cmet_leaderboards.statistics import Difference, kendall_tau, paired_estimates
from cmet_metrics.emotion import confusion
from talking_face.emotions import EMOTIONS

DROP = ("neutral-base", "cross-emotion")  # the two settings: before the drop, after the drop
TOO_FEW = 3  # number of methods below which tau is not computed: with two methods, tau is always 1 or -1
MethodPair = tuple[MethodId, MethodId]


@dataclass(frozen=True)
class EmotionTransfer:
    """Means of a metric by reference emotion (R) and target emotion (T)."""

    column: Column
    references: tuple[str, ...]
    targets: tuple[str, ...]
    pairs: np.ndarray  # (R, T) int, expected number of pairs
    rows: tuple[tuple[MethodId, np.ndarray, np.ndarray], ...]  # method; (R, T) means, NaN if no pair; (R, T) pairs


@dataclass(frozen=True)
class Drop:
    """How much worse a method is in another setting: the increase of its loss."""

    method: MethodId
    column: Column
    change: Difference


@dataclass(frozen=True)
class Confusion:
    """The predictions of a classifier for the clips of one method."""

    column: Column
    method: MethodId
    targets: tuple[str, ...]  # target emotions
    predictions: tuple[str, ...]  # emotions that the classifier predicted
    clips: np.ndarray  # (targets, predictions) float64, number of clips


@dataclass(frozen=True)
class Sensitivity:
    """How the ranking of the methods depends on the variant: one metric with C variants, on the same videos."""

    columns: tuple[Column, ...]
    tau: tuple[tuple[float | None, ...], ...]  # (C, C); None if fewer than TOO_FEW methods, or if all methods tie
    methods: tuple[tuple[int, ...], ...]  # (C, C) number of ranked methods
    pairs: tuple[tuple[int, ...], ...]  # (C, C) number of evaluation pairs in both rankings
    # The pairs of methods. If a better method is known, it is the first of its pair.
    agreed: tuple[MethodPair, ...]  # all variants find the same method better
    opposed: tuple[MethodPair, ...]  # variants find different methods better
    partly: tuple[MethodPair, ...]  # some variants find the first method better, the others a tie
    open: tuple[MethodPair, ...]  # all variants find a tie


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The emotions without repetitions. Those in EMOTIONS are first, in that order; others follow, sorted by name."""
    known = {name: index for index, name in enumerate(EMOTIONS)}
    return tuple(sorted(set(map(str, names)), key=lambda name: (known.get(name, len(known)), name)))


def emotion_transfer(grid: Grid, c: int, references: Sequence[str], targets: Sequence[str]) -> EmotionTransfer:
    """The means of column `c` for each combination of a reference emotion and a target emotion."""
    cells = [[(grid.reference == r) & (grid.target == t) for t in targets] for r in references]
    estimates = [[grid.estimates(c, cell, interval=False) for cell in line] for line in cells]
    rows = []
    for m, method in enumerate(grid.methods):
        if not (grid.state[m, c] >= INFINITE).any():
            continue
        found = [[of_methods[m] for of_methods in line] for line in estimates]
        means = np.array([[np.nan if e.mean is None else e.mean for e in line] for line in found])
        rows.append((method, means, np.array([[e.n for e in line] for line in found])))
    return EmotionTransfer(
        grid.columns[c],
        tuple(references),
        tuple(targets),
        np.array([[int(cell.sum()) for cell in line] for line in cells]),
        tuple(rows),
    )


def drops(before: Grid, after: Grid) -> tuple[Drop, ...]:
    """The increase of the loss from one setting to another, for each method and signature that both settings have.

    The two settings have different pairs but the same speakers. The jackknife removes one speaker at a time from both
    settings. Therefore the differences between speakers cancel.
    """
    out = []
    for (c, column), (m, method) in itertools.product(enumerate(after.columns), enumerate(after.methods)):
        same = [i for i, other in enumerate(before.columns) if other.signature == column.signature]
        if not same or method not in before.methods:
            continue
        change = _change((before, before.methods.index(method), same[0]), (after, m, c))
        if change is not None:
            out.append(Drop(method, column, change))
    return tuple(out)


def _change(before: tuple[Grid, int, int], after: tuple[Grid, int, int]) -> Difference | None:
    """The increase of the loss from one cell to another; None if they have no common speaker.

    Args:
        before: grid, index of the method and index of the column.
        after: the same for the other cell.
    """
    sides = (before, after)
    state = SCORED if before[0].pooled(before[2]) is None else INFINITE
    uses = [grid.use(m, c) & (grid.state[m, c] >= state) for grid, m, c in sides]
    both = set(before[0].speaker[uses[0]]) & set(after[0].speaker[uses[1]])
    if not both:
        return None
    indices = [
        np.flatnonzero(use & np.isin(grid.speaker, list(both))) for (grid, _, _), use in zip(sides, uses, strict=True)
    ]
    first = len(indices[0])

    def loss(side: int, keep: np.ndarray) -> float:
        grid, m, c = sides[side]
        return grid.mean_loss(m, c, indices[side][keep])

    def estimate(keep: np.ndarray) -> float:
        old, new = keep[keep < first], keep[keep >= first] - first
        return loss(1, new) - loss(0, old) if len(old) and len(new) else float("nan")

    speakers = np.concatenate([grid.speaker[index] for (grid, _, _), index in zip(sides, indices, strict=True)])
    found = paired_estimates(estimate, speakers)
    return found if np.isfinite([found.mean, found.p]).all() else None


def confusions(grid: Grid, c: int) -> tuple[Confusion, ...]:
    """One confusion matrix per method; empty if the column's statistics do not contain predictions."""
    sums = grid.sums(c) if metric_facts.counts_predictions(grid.columns[c].metric) else {}
    if not any(">" in name for name in sums):
        return ()
    tables = {}
    for m, method in enumerate(grid.methods):
        keep = grid.use(m, c) & (grid.state[m, c] == SCORED)
        if keep.any():
            totals = {name: float(column[m, keep].sum()) for name, column in sums.items()}
            tables[method] = confusion({name: total for name, total in totals.items() if total})
    targets = in_order(name for table in tables.values() for name in table)
    predictions = in_order(name for table in tables.values() for row in table.values() for name in row)
    return tuple(
        Confusion(
            grid.columns[c],
            method,
            targets,
            predictions,
            np.array([[table.get(target, {}).get(name, 0.0) for name in predictions] for target in targets]),
        )
        for method, table in tables.items()
    )


def sensitivities(
    grid: Grid, contestants: Sequence[int], comparisons: Mapping[int, Sequence[PairwiseComparison]]
) -> tuple[Sensitivity, ...]:
    """One record for each metric with several variants.

    Args:
        contestants: indices of the methods that are ranked.
        comparisons: {index of the column: its comparisons of two methods}.
    """
    families: dict[str, list[int]] = {}
    for c, column in enumerate(grid.columns):
        if metric_facts.variants_are_protocols(column.metric) and any(grid.compared[m, c] for m in contestants):
            families.setdefault(column.family, []).append(c)
    return tuple(
        _sensitivity(grid, columns, contestants, comparisons) for columns in families.values() if len(columns) > 1
    )


def _sensitivity(
    grid: Grid,
    columns: Sequence[int],
    contestants: Sequence[int],
    comparisons: Mapping[int, Sequence[PairwiseComparison]],
) -> Sensitivity:
    def rank_correlation(a: int, b: int) -> tuple[float | None, int, int]:
        """Kendall's tau of two columns, the number of methods in it, and the number of evaluation pairs."""
        keep = grid.common[a] & grid.common[b]
        losses = [
            (grid.estimate(m, a, keep, interval=False).loss, grid.estimate(m, b, keep, interval=False).loss)
            for m in contestants
            if grid.compared[m, a] and grid.compared[m, b]
        ]
        known = [(x, y) for x, y in losses if x is not None and y is not None]
        tau = kendall_tau([x for x, _ in known], [y for _, y in known]) if len(known) >= TOO_FEW else None
        return tau, len(known), int(keep.sum())

    cells = [[rank_correlation(a, b) for b in columns] for a in columns]
    agreed, opposed, partly, undecided = _agreement(grid, [comparisons[c] for c in columns])
    return Sensitivity(
        tuple(grid.columns[c] for c in columns),
        tuple(tuple(tau for tau, _, _ in line) for line in cells),
        tuple(tuple(n for _, n, _ in line) for line in cells),
        tuple(tuple(pairs for _, _, pairs in line) for line in cells),
        agreed,
        opposed,
        partly,
        undecided,
    )


def _agreement(grid: Grid, by_column: Sequence[Sequence[PairwiseComparison]]) -> list[tuple[MethodPair, ...]]:
    """The pairs of methods that are compared in every column, in four groups: agreed, opposed, partly, open."""
    verdicts: dict[tuple[int, int], list[str]] = {}
    for comparisons in by_column:
        for comparison in comparisons:
            verdicts.setdefault((comparison.first, comparison.second), []).append(comparison.verdict)
    kinds: list[list[MethodPair]] = [[], [], [], []]
    for (a, b), found in verdicts.items():
        if len(found) < len(by_column):
            continue
        names = (grid.methods[a], grid.methods[b])
        first, second = found.count("first"), found.count("second")
        kind = 1 if first and second else 3 if not first + second else 0 if first + second == len(found) else 2
        kinds[kind].append(names if first or not second else names[::-1])
    return [tuple(kind) for kind in kinds]
