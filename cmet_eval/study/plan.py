"""Plans a study: chooses the pairs, and the videos of each rater in the order in which the rater sees them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmet_eval.study.key import Kind
from talking_face.clip import Pair
from talking_face.files import sha256_of


@dataclass(frozen=True)
class Design:
    """The design of a study. The defaults are those of CEM-Net's study: 30 raters, and 64 videos per rater."""

    kind: Kind = "rating"
    raters: int = 30
    per_rater: int = 64  # videos, or pairs of videos, that a rater sees
    max_pairs: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Item:
    """One page of a rater: a pair, and the method or the two methods whose videos the page shows."""

    pair: int  # index of the pair in the list of the study's pairs
    methods: tuple[int, ...]  # indices of the methods, from left to right


def choose_pairs(pairs: Sequence[Pair], design: Design) -> list[Pair]:
    """Chooses at most `max_pairs` pairs by hash.

    The choice takes one pair of each combination of speaker and emotion, then a second pair of each combination, and so
    on. So a small study also shows several speakers and emotions.
    """
    order = sorted(pairs, key=lambda p: sha256_of(f"{design.seed} {p.pair_id}".encode()))
    turns: dict[tuple[str, str], int] = {}
    ranked: list[tuple[int, int, Pair]] = []
    for pair in order:
        cell = (pair.speaker, pair.target_emotion)
        turns[cell] = turns.get(cell, 0) + 1
        ranked.append((turns[cell], len(ranked), pair))
    return [pair for _, _, pair in sorted(ranked, key=lambda row: row[:2])[: design.max_pairs]]


def plan(n_pairs: int, n_methods: int, rater: int, design: Design) -> list[Item]:
    """The pages of one rater, in the order in which the rater sees the pages. The numbers of pages are balanced.

    For each rater, the numbers of pages of two methods differ by at most one. In a pairwise study, the numbers of pages
    of two unordered pairs of methods differ by at most one, and the left and the right side alternate. With N methods
    (or N pairs of methods), N successive raters together see all videos of a pair equally often, because the methods
    form a Latin square over raters and pairs.
    """
    shown = (
        [(m,) for m in range(n_methods)]
        if design.kind == "rating"
        else list(itertools.combinations(range(n_methods), 2))
    )
    rng = np.random.default_rng((design.seed, rater))
    # Go through all pairs several times, each time with the next method, until the rater has enough pages.
    cells = [
        (pair, shown[(pair + rater + turn) % len(shown)]) for turn in range(len(shown)) for pair in range(n_pairs)
    ][: min(design.per_rater, n_pairs * len(shown))]
    sides = [(k + rater) % 2 for k in range(len(cells))]
    items = [Item(pair, m[::-1] if flip else m) for (pair, m), flip in zip(cells, sides, strict=True)]
    return [items[i] for i in rng.permutation(len(items))]
