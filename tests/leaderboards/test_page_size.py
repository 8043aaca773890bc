"""The size of a page with 40 methods, 20 metrics and 6 settings: its videos and most of its heat maps are not in it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest

from cmet_leaderboards.grid import Column
from cmet_leaderboards.html import to_html
from cmet_leaderboards.results import read_results, write_results
from cmet_leaderboards.row import ResultRow
from cmet_leaderboards.sections import EmotionTransfer
from cmet_leaderboards.tables import Breakdown, Table, build_tables
from cmet_leaderboards.views import GalleryCase

Part = TypeVar("Part", Breakdown, EmotionTransfer)
METHODS, METRICS, SPEAKERS, SETTINGS = 40, 20, 48, 6
COMPUTED = 4  # metrics that are computed; the others have the same numbers and other names
EMOTIONS = ("neutral", "angry", "contempt", "disgusted", "fear", "happy", "sad", "surprised")
LIMIT = 2_000_000  # bytes


def make_rows(method: str, level: float) -> list[ResultRow]:
    """One pair per speaker and target emotion; the reference emotion is the next one."""
    metrics = [("ea:fer", 0), ("emotion_leak:fer", 1), *((f"own{k}:x", k) for k in range(COMPUTED - 2))]
    values = np.random.default_rng(len(method)).normal(level, 1.0, (SPEAKERS, len(EMOTIONS), COMPUTED))
    out = []
    for s, (e, target) in itertools.product(range(0, SPEAKERS), enumerate(EMOTIONS[::4])):
        reference = EMOTIONS[(4 * e + s) % 8 - 1]
        for m, (metric, _) in enumerate(metrics):
            out.append(
                ResultRow(
                    setting="cross-emotion", method=method, revision="1", pair_id=f"W{s:03}/{reference}>{target}",
                    seed=0, speaker=f"W{s:03}", reference_emotion=reference, target_emotion=target, intensity=1,
                    ground_truth_clip=f"W{s:03}/{target}", metric=metric, signature=f"{metric}|a:signature|version:1",
                    higher_is_better=metric != "emotion_leak:fer", unit="", value=float(values[s, e, m]), reason=None,
                    detail="", n=50, stats={f"{target}>{reference}": 1.0} if metric == "ea:fer" else {}, notes="",
                    codec="h264", video_sha256="0", dataset="mead", data_digest="d", data_signature="s|v:1",
                    pairs_digest="p", rules="r", profile="embedded", suite_version="0.1.0",
                )
            )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("rows")
    for k in range(METHODS):
        role = "ceiling" if not k else "floor" if k > 35 else "method"
        facts = {"title": f"Method number {k:02}, adapted", "role": role, "summary": "A sentence about it. " * 4}
        write_results(make_rows(f"method-{k:02}", k / 40), folder, {"method": facts, "setting": {"title": "Cross"}})
    (found,) = build_tables(read_results(folder))
    times = METRICS // COMPUTED

    def columns(k: int) -> dict[str, Column]:
        return {
            c.metric: replace(c, metric=f"{c.metric}{k}", signature=f"{c.signature}{k}") if k else c
            for c in found.columns
        }

    every = [columns(k) for k in range(times)]

    def renamed(parts: Sequence[Part]) -> tuple[Part, ...]:
        return tuple(replace(part, column=names[part.column.metric]) for names in every for part in parts)

    return replace(
        found,
        columns=tuple(column for names in every for column in names.values()),
        rows=tuple(replace(row, cells=row.cells * times) for row in found.rows),
        by_emotion=renamed(found.by_emotion),
        by_speaker=renamed(found.by_speaker),
        transfers=renamed(found.transfers),
        comparisons=found.comparisons * times,
        ways=found.ways * times,
    )


def test_a_page_with_40_methods_stays_small(table: Table) -> None:
    tables = [replace(table, key={**table.key, "setting": f"setting-{k}"}) for k in range(SETTINGS)]
    cases: list[GalleryCase] = [
        {
            "pair": f"p{k}", "speaker": "W000", "reference_emotion": "sad", "target_emotion": "happy",
            "videos": [{"method": row.method, "data": bytes(30_000 + m)} for m, row in enumerate(table.rows)],
        }
        for k in range(4)
    ]  # fmt: skip
    one = to_html(tables[:1], "setting-0", {"setting-0": cases})
    every = to_html(tables, "board", {one.key["setting"]: cases for one in tables})
    assert len(one.encode()) < LIMIT / 2 and len(every.encode()) < LIMIT
    assert "metrics are here; the CSV, Parquet and JSON files have all" in one, "what is left out is stated"
    assert one.count("videos/") == METHODS and "video" in one, "the links that work without a script, of one pair"
