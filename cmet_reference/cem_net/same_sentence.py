"""Finds clips that say the same sentence from their sound, by dynamic time warping (DTW) of cepstra.

The clips of one speaker, emotion and intensity are different sentences by the design of MEAD and of the embedded
corpus; here they are called a folder. So at most one clip of a folder says the sentence of a given clip, and nearly
all distances between clips are distances between different sentences. The null distribution is a normal distribution
that is fitted to the middle and the upper part of the logarithms of the distances. The few equal sentences hardly
change these parts. A clip and the nearest clip of another folder are linked on two conditions: each is the nearest of
its folder to the other, and so small a distance is rare enough under the null distribution. The threshold is chosen so
that the expected share of wrong links is `error` (the false discovery rate of Benjamini and Hochberg 1995).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cmet_reference.cem_net import audio as sound
from cmet_reference.clips import ClipArrays

POOL = 4  # rows of 10 ms that are averaged to one row: DTW is 16 times faster than without it
_CHUNK = 256  # clips that are compared with one clip at a time: 256 x 100 x 100 distances are 10 MB

Folder = tuple[str, str, int | None]  # speaker, emotion, intensity
Link = tuple[float, int, int]  # relative distance, and the indices of the two clips


@dataclass(frozen=True)
class Matches:
    """What the sound says: the links between clips, and how they were chosen."""

    links: tuple[Link, ...]  # sorted by distance
    thresholds: tuple[float, ...]  # of the links within a speaker, and of those between speakers if there are several
    n_null: int  # distances to which the null distributions are fitted


def rows_of(audio: np.ndarray) -> np.ndarray:
    """The rows that are compared: 12 cepstra per 40 ms without silent ends, with mean 0 and standard deviation 1.

    The ends are rows whose energy is more than 30 dB below the loudest row. Voices differ in the mean of their
    cepstra more than sentences do, so the mean is removed.

    Args:
        audio: (N,) int16, 16 kHz.

    Returns:
        (R, 12) float32, R >= 1.
    """
    rows = sound.cepstra(audio)
    padded = np.pad(audio.astype(np.float64), 1920 + 200)[: 160 * len(rows) + 240]
    energy = np.add.reduceat(padded**2, np.arange(0, 160 * len(rows), 160))
    heard = np.flatnonzero(energy > energy.max() * 1e-3)
    rows = rows[heard[0] : heard[-1] + 1] if len(heard) else rows
    rows = rows[: max(1, len(rows) // POOL) * POOL]
    if len(rows) >= POOL:
        rows = rows.reshape(-1, POOL, rows.shape[1]).mean(axis=1)
    return ((rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-3)).astype(np.float32)


def distances(one: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """DTW distances from one array of rows (R, F) to several (S, F): (len(others),) float32.

    The cost of a match is the Euclidean distance of two rows. Diagonal steps have twice the weight of other steps, so
    that the sum is divided by R + S (Sakoe and Chiba 1978, symmetric form with slope 0).
    """
    out = [
        _chunk_distances(one, [others[k] for k in range(at, min(at + _CHUNK, len(others)))])
        for at in range(0, len(others), _CHUNK)
    ]
    return np.concatenate(out) if out else np.zeros(0, np.float32)


def _chunk_distances(one: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    n, lengths = len(one), np.array([len(other) for other in others])
    m = int(lengths.max())
    padded = np.zeros((len(others), m, one.shape[1]), np.float32)
    for k, other in enumerate(others):
        padded[k, : len(other)] = other
    square = (
        (one**2).sum(axis=1)[:, None, None] + (padded**2).sum(axis=2)[None] - 2 * np.einsum("rf,bsf->rbs", one, padded)
    )
    cost = np.sqrt(np.maximum(square, 0)).transpose(0, 2, 1)  # (R, S, B)
    total = np.full((n + 1, m + 1, len(others)), np.inf, np.float32)
    total[0, 0] = 0
    for d in range(2, n + m + 1):  # one anti-diagonal per step: i + j = d
        i = np.arange(max(1, d - m), min(n, d - 1) + 1)
        j = d - i
        here = cost[i - 1, j - 1]
        total[i, j] = np.minimum(np.minimum(total[i - 1, j], total[i, j - 1]) + here, total[i - 1, j - 1] + 2 * here)
    return total[n, lengths, np.arange(len(others))] / (n + lengths)


def match(clips: Sequence[ClipArrays], error: float, report: Callable[[str], None] = lambda line: None) -> Matches:
    """Links between clips that say the same sentence.

    Clips are compared within each speaker. Clips of the emotion that most speakers show are also compared between
    speakers, so that one sentence has one name for all speakers.

    Args:
        clips: the clips. Clips without an emotion are not compared.
        error: the expected share of wrong links among all links.
        report: called with a line for each speaker, because 670 clips of one speaker take about two minutes.
    """
    rows = {i: rows_of(c.audio) for i, c in enumerate(clips) if c.emotion}
    folders = {i: (clips[i].speaker, str(clips[i].emotion), clips[i].intensity) for i in rows}
    speakers = sorted({clips[i].speaker for i in rows})
    found: list[_Comparison] = []
    for speaker in speakers:
        found.append(_compare([i for i in rows if clips[i].speaker == speaker], rows, folders))
        report(f"compared the sound of {speaker}")
    passed = [_accepted(found, error)]
    if len(speakers) > 1:
        shown = {str(c.emotion): {x.speaker for x in clips if x.emotion == c.emotion} for c in clips if c.emotion}
        hub = max(sorted(shown), key=lambda emotion: (len(shown[emotion]), emotion == "neutral"))
        passed.append(_accepted([_compare([i for i in rows if clips[i].emotion == hub], rows, folders, True)], error))
    links = sorted(link for accepted in passed for link in accepted[0])
    return Matches(tuple(links), tuple(p[1] for p in passed), sum(p[2] for p in passed))


@dataclass(frozen=True)
class _Candidate:
    """The nearest clip of a folder to a clip."""

    clip: int
    nearest: int
    distance: float
    among: int  # clips in the folder


@dataclass(frozen=True)
class _Comparison:
    """The relative distances of some clips: the distance divided by the median distances of the two clips."""

    distances: np.ndarray  # (N,), each pair of clips of different folders once
    nearest: tuple[_Candidate, ...]  # one for each clip and folder


def _compare(
    members: Sequence[int], rows: Mapping[int, np.ndarray], folders: Mapping[int, Folder], between: bool = False
) -> _Comparison:
    """Compare clips of different folders; with `between`, only clips of different speakers."""
    n = len(members)
    table = np.full((n, n), np.nan, np.float32)
    for a in range(n):
        table[a, a + 1 :] = distances(rows[members[a]], [rows[members[b]] for b in range(a + 1, n)])
    table = np.fmin(table, table.T)
    groups: dict[Folder, list[int]] = {}
    for a, i in enumerate(members):
        groups.setdefault(folders[i], []).append(a)
    for folder, own in groups.items():
        same = [a for a, i in enumerate(members) if folders[i][0] == folder[0]] if between else own
        table[np.ix_(own, same)] = np.nan
    usual = np.array([np.nanmedian(row) if np.isfinite(row).any() else np.nan for row in table])
    table /= np.sqrt(usual[:, None] * usual[None])  # some clips are far from, or near to, all others
    nearest = []
    for a, i in enumerate(members):
        for others in groups.values():
            row = table[a, others]
            if np.isfinite(row).all():
                best = int(row.argmin())
                nearest.append(_Candidate(i, members[others[best]], float(row[best]), len(others)))
    return _Comparison(table[np.triu(np.isfinite(table))], tuple(nearest))


def _accepted(comparisons: Sequence[_Comparison], error: float) -> tuple[list[Link], float, int]:
    """The accepted links, the largest relative distance among them, and the number of distances of the null."""
    null = np.log(np.concatenate([c.distances for c in comparisons]))
    candidates = [found for c in comparisons for found in c.nearest]
    if not len(null) or not candidates:
        return [], 0.0, 0
    middle, above = np.quantile(null, (0.5, 0.8413))  # 0.8413: one standard deviation above the mean
    spread = max(float(above - middle), 1e-9)
    rarity = {
        (c.clip, c.nearest): -math.expm1(c.among * math.log1p(-_below((_log(c.distance) - middle) / spread)))
        for c in candidates
    }
    relative = {(c.clip, c.nearest): c.distance for c in candidates}
    mutual = sorted((max(p, rarity[j, i]), i, j) for (i, j), p in rarity.items() if i < j and (j, i) in rarity)
    tried = len(candidates) / 2
    passing = [k for k, (p, _, _) in enumerate(mutual, 1) if p * tried <= error * k]
    links = [(relative[i, j], i, j) for _, i, j in mutual[: passing[-1] if passing else 0]]
    return links, max((d for d, _, _ in links), default=0.0), len(null)


def _log(distance: float) -> float:
    """The logarithm of a distance. Two copies of one recording have the distance 0, and count as very near."""
    return math.log(max(distance, 1e-12))


def _below(z: float) -> float:
    """The probability that a standard normal number is below z; at most 1 - 1e-12."""
    return min(0.5 * math.erfc(-z / math.sqrt(2)), 1 - 1e-12)
