"""Tests boards made from rows: which rows share a table, what a cell contains, and that the page is safe and stable."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cmet_leaderboards.board import build
from cmet_leaderboards.results import SCHEMA, read_results, write_results
from cmet_leaderboards.row import ResultRow
from cmet_leaderboards.tables import build_tables
from talking_face.reasons import UserError
from talking_face.sealed import write_sealed_table

EMOTIONS = ("neutral", "happy", "sad")
SPEAKERS = ("A", "B", "C", "D")
METRICS = {
    "psnr:frame-mean": ("psnr|variant:frame-mean|version:1.0.0", True, "dB"),
    "m_lmd:eat": ("m_lmd|variant:eat|version:1.0.0", False, "px"),
}
Edit = Callable[[dict[str, Any]], None]


def rows(method: str, level: float, edit: Edit | None = None, **more: Any) -> list[ResultRow]:
    rng = np.random.default_rng(len(method))
    out = []
    for (speaker, emotion), (metric, (signature, higher, unit)) in itertools.product(
        itertools.product(SPEAKERS, EMOTIONS), METRICS.items()
    ):
        value = (20 + level if higher else 4 - level) + float(rng.normal(0, 0.1))
        row = {
            **{"setting": "neutral-base", "method": method, "revision": "1", "seed": 0, "intensity": 1},
            **{"pair_id": f"neutral-base/{speaker}/{emotion}", "speaker": speaker, "target_emotion": emotion},
            **{"reference_emotion": "neutral", "ground_truth_clip": f"{speaker}/{emotion}", "metric": metric},
            **{"signature": signature, "higher_is_better": higher, "unit": unit, "value": value, "reason": None},
            **{"detail": "", "n": 50, "stats": {"sum": value * 50}, "notes": "", "codec": "h264-yuv444p-crf10"},
            **{"video_sha256": "0" * 64, "dataset": "mead", "data_digest": "d" * 64, "data_signature": "shards|v:1"},
            **{"pairs_digest": "p" * 16, "rules": "r" * 8, "profile": "embedded", "suite_version": "0.1.0"},
            **more,
        }
        if edit:
            edit(row)
        out.append(ResultRow.of(row))
    return out


def record(name: str, role: str = "method", **more: Any) -> dict[str, Any]:
    return {
        "method": {
            "name": name,
            "title": name.title(),
            "role": role,
            "summary": f"About {name}.",
            "sees": ["x"],
            **more,
        },
        "setting": {"title": "Neutral base", "summary": "Setting.", "disjoint": ["speaker"], "shared": []},
        "pairs": {"drawn": 12, "missing": []},
        "command": f"cmet-eval run --method {name}",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    results = tmp_path / "results"
    write_results(rows("truth", 9), results, record("truth", "ceiling"))
    write_results(rows("good", 5), results, record("good"))
    write_results(rows("weak", 1), results, record("weak", "floor"))
    return results


def test_the_ceiling_is_never_best_and_cells_have_interval_and_coverage(folder: Path) -> None:
    (table,) = build_tables(read_results(folder))
    assert [row.method for row in table.rows] == ["truth", "good", "weak"]
    assert [column.metric for column in table.columns] == ["psnr:frame-mean", "m_lmd:eat"]
    for row in table.rows:
        for cell in row.cells:
            assert cell and cell.interval and cell.interval.over == "speakers" and cell.interval.units == 4
            assert (cell.scored, cell.expected, cell.n) == (12, 12, 12)
            assert cell.best == (row.method == "good")


def test_methods_are_compared_on_their_common_pairs(folder: Path) -> None:
    def lose(row: dict[str, Any]) -> None:
        if row["speaker"] == "A" and row["metric"] == "m_lmd:eat":
            row.update(value=None, reason="no-face", detail="no face in any of 50 frames")

    write_results(rows("hurt", 3, lose), folder, record("hurt"))
    (table,) = build_tables(read_results(folder))
    cells = {row.method: row.cells[1] for row in table.rows}
    good, hurt = cells["good"], cells["hurt"]
    assert good and hurt and (hurt.scored, good.scored, good.n, hurt.n) == (9, 12, 9, 9)
    expected = [r.value for r in rows("good", 5) if r.metric == "m_lmd:eat" and r.speaker != "A"]
    assert good.mean == pytest.approx(np.mean(np.array(expected)), rel=1e-12)
    (loss,) = table.missing
    assert (loss.method, loss.reason, loss.count) == ("Hurt", "no-face", 3) and "no face in any" in loss.detail


def test_a_method_with_few_scores_is_shown_but_does_not_shrink_the_others(folder: Path) -> None:
    def lose(row: dict[str, Any]) -> None:
        if row["speaker"] != "A":
            row.update(value=None, reason="missing-output", detail="")

    write_results(rows("rare", 30, lose), folder, record("rare"))
    (table,) = build_tables(read_results(folder))
    cells = {row.method: row.cells[0] for row in table.rows}
    rare, good = cells["rare"], cells["good"]
    assert rare and good and not rare.compared and not rare.best and rare.scored == 3
    assert rare.interval and rare.interval.over == "clips"
    assert good.best and good.n == 12


def test_infinite_psnr_is_counted_and_left_out_of_the_mean(tmp_path: Path) -> None:
    def some(row: dict[str, Any]) -> None:
        if row["metric"].startswith("psnr") and row["speaker"] == "A":
            row.update(value=None, reason="infinite")

    def every(row: dict[str, Any]) -> None:
        if row["metric"].startswith("psnr"):
            row.update(value=None, reason="infinite")

    write_results(rows("some", 5, some), tmp_path, record("some"))
    write_results(rows("lossless", 5, every), tmp_path, record("lossless", "ceiling"))
    write_results(rows("plain", 1), tmp_path, record("plain"))
    (table,) = build_tables(read_results(tmp_path))
    cells = {row.method: row.cells[0] for row in table.rows}
    some_, lossless, plain = cells["some"], cells["lossless"], cells["plain"]
    assert some_ and (some_.n, some_.scored, some_.infinite) == (9, 12, 3) and some_.mean and np.isfinite(some_.mean)
    assert lossless and lossless.mean is None and lossless.infinite == 12
    assert plain and plain.n == 12
    assert not table.missing
    page = build(tmp_path, tmp_path / "out").read_text()
    assert "∞ on 3 of 12" in page and "∞ on 12 of 12" in page


def test_other_signatures_get_own_columns_and_other_data_gets_own_tables(folder: Path) -> None:
    def variant(row: dict[str, Any]) -> None:
        row["signature"] = row["signature"].replace("1.0.0", "1.1.0")

    write_results(rows("good", 5, variant), folder, record("good"))
    (table,) = build_tables(read_results(folder))
    assert len(table.columns) == 4
    assert {c.short_signature for c in table.columns} == {"version:1.0.0", "version:1.1.0"}
    for key, value in {"data_digest": "e" * 64, "suite_version": "0.2.0", "pairs_digest": "q" * 16}.items():
        write_results(rows("good", 5, **{key: value}), folder, record("good"))
    tables = build_tables(read_results(folder))
    assert len(tables) == 4
    assert set(tables[0].differing_keys) == {"data_digest", "suite_version", "pairs_digest"}
    assert "Not comparable with" in build(folder, folder.parent / "out").read_text()


def test_rows_accumulate_and_contradictions_name_both_files(folder: Path) -> None:
    only = [r for r in rows("good", 7) if r.metric == "psnr:frame-mean"]
    write_results(only, folder, record("good"))
    (table,) = build_tables(read_results(folder))
    good = next(row for row in table.rows if row.method == "good")
    assert good.cells[0] and good.cells[0].mean == pytest.approx(27, abs=0.2)
    assert good.cells[1] and good.cells[1].mean == pytest.approx(-1, abs=0.2)
    (folder / "copy").mkdir()
    first = sorted((folder / "neutral-base").glob("good*"))[0]
    (folder / "copy" / "a.parquet").write_bytes(first.read_bytes())
    assert len(build_tables(read_results(folder))[0].rows) == 3
    write_results(rows("good", 2), folder, record("good"))
    with pytest.raises(UserError, match=r"two values for .*copy/a\.parquet"):
        read_results(folder)


COLUMNS = """
setting:string method:string revision:string pair_id:string seed:int32 speaker:string reference_emotion:string
target_emotion:string intensity:int32 ground_truth_clip:string metric:string signature:string higher_is_better:bool
ideal:double unit:string value:double reason:string detail:string n:int32 stats:map<string,double> notes:string
codec:string video_sha256:string dataset:string data_digest:string data_signature:string pairs_digest:string
rules:string profile:string suite_version:string origin:string
"""


def test_a_result_file_has_these_bytes(tmp_path: Path) -> None:
    """The schema is made from `ResultRow`; files of other suites must be readable, so a change must be noticed."""
    assert [f"{field.name}:{field.type}".replace(" ", "") for field in SCHEMA] == COLUMNS.split()
    made = rows("good", 5)
    path = write_results(made, tmp_path, record("good"))
    ordered = [dataclasses.asdict(row) for row in sorted(made, key=lambda r: (r.metric, r.signature, r.pair_id))]
    for row in ordered:
        row["stats"] = sorted(row["stats"].items())
    types = {"string": pa.string(), "int32": pa.int32(), "bool": pa.bool_(), "double": pa.float64()}
    types["map<string,double>"] = pa.map_(pa.string(), pa.float64())
    schema = pa.schema([(name, types[kind]) for name, _, kind in (c.partition(":") for c in COLUMNS.split())])
    metadata = {b"cmet_eval.results": json.dumps(record("good"), sort_keys=True, separators=(",", ":")).encode()}
    write_sealed_table(pa.Table.from_pylist(ordered, schema=schema.with_metadata(metadata)), tmp_path / "x")
    assert path.read_bytes() == (tmp_path / "x").read_bytes()
    assert path.name == "good@1--data-dddddddd--pairs-pppppppp--suite-0.1.0--embedded--ac89a520108c9535.parquet"


def test_no_rows_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no result rows"):
        read_results(tmp_path)
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(UserError, match=r"x\.parquet is damaged \(it is not a Parquet file"):
        read_results(tmp_path)


def test_built_twice_in_other_folders_the_bytes_are_the_same(folder: Path, tmp_path: Path) -> None:
    build(folder, tmp_path / "one")
    moved = tmp_path / "elsewhere" / "results"
    for name, level, role in (("weak", 1, "floor"), ("good", 5, "method"), ("truth", 9, "ceiling")):
        write_results(reversed(rows(name, level)), moved, record(name, role))
    build(moved, tmp_path / "two")
    one = {p.name: p.read_bytes() for p in (tmp_path / "one").iterdir()}
    two = {p.name: p.read_bytes() for p in (tmp_path / "two").iterdir()}
    assert one == two
    kinds = ("md", "csv", "parquet", "json")
    names = {f"{stem}.{kind}" for stem in ("board", "neutral-base") for kind in kinds}
    (pairs,) = (name for name in one if name.startswith("pairs-neutral-base-") and name.endswith(".js"))
    assert set(one) == names | {"index.html", "neutral-base.html", "board.schema.json", pairs}


class Page(HTMLParser):
    """Collects facts about a page: open tags, ids, links, and everything that loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.open: list[str] = []
        self.anchors: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        got = dict(attrs)
        self.ids += [value] if (value := got.get("id")) else []
        if tag not in {"meta", "link", "br", "input", "path", "rect", "circle"}:
            self.open.append(tag)
        if tag == "a" and (href := got.get("href")):
            self.anchors.append(href)
        self.loads += [v for k in ("src", "data", "srcset") if (v := got.get(k))]
        if tag == "link" and (href := got.get("href")):
            self.loads.append(href)

    def handle_endtag(self, tag: str) -> None:
        if tag in {"path", "rect", "circle"}:
            return
        assert self.open.pop() == tag


def test_the_page_is_valid_loads_nothing_and_escapes_names(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>|"
    write_results(rows("evil", 5), tmp_path, record("evil", title=evil, summary=evil))
    write_results(rows("fine", 3), tmp_path, record("fine"))
    text = build(tmp_path, tmp_path / "out").read_text()
    page = Page()
    page.feed(text)
    page.close()
    assert not page.open and len(set(page.ids)) == len(page.ids)
    assert page.loads == ["data:,"]
    assert all(a[1:] in page.ids for a in page.anchors if a.startswith("#"))
    assert all((tmp_path / "out" / a).exists() for a in page.anchors if not a.startswith("#"))
    assert evil not in text and text.count("<script>") == 1
    markdown = (tmp_path / "out" / "board.md").read_text()
    assert "<script>" not in markdown and "\\|" in markdown


def test_csv_holds_every_number_in_full(folder: Path, tmp_path: Path) -> None:
    build(folder, tmp_path / "out")
    lines = list(csv.DictReader(io.StringIO((tmp_path / "out" / "board.csv").read_text())))
    assert len(lines) == 3 * 2 * (1 + len(EMOTIONS) + len(SPEAKERS))
    whole = [r for r in lines if not r["target_emotion"] and not r["speaker"]]
    (good,) = [r for r in whole if (r["method"], r["metric"]) == ("good", "m_lmd:eat")]
    values = [r.value for r in rows("good", 5) if r.metric == "m_lmd:eat"]
    assert float(good["mean"]) == float(np.mean(np.array(values))) and good["expected"] == "12"


def test_pooled_metrics_are_computed_from_their_sums(tmp_path: Path) -> None:
    pytest.importorskip("cmet_metrics.registry")
    rng = np.random.default_rng(0)
    error = iter(rng.uniform(1e5, 1e6, 100))

    def pooled(row: dict[str, Any]) -> None:
        if row["metric"].startswith("psnr"):
            row.update(metric="psnr:pooled", signature="psnr|variant:pooled|version:1.0.0", value=1.0)
            row["stats"] = {"squared_error": next(error), "elements": 3000.0}

    made = rows("good", 5, pooled)
    write_results(made, tmp_path, record("good"))
    (table,) = build_tables(read_results(tmp_path))
    cell = table.rows[0].cells[0]
    total = sum(r.stats["squared_error"] for r in made if r.metric == "psnr:pooled")
    assert cell and cell.mean == pytest.approx(10 * np.log10(255**2 * 3000 * 12 / total), rel=1e-9)
    assert cell.interval and cell.interval.low < cell.mean < cell.interval.high


def test_a_board_row_never_mixes_two_versions_of_a_video(folder: Path) -> None:
    """After the videos change, scoring with one metric removes the old numbers of the other metric."""
    again = [row for row in rows("good", 5, video_sha256="1" * 64) if row.metric == "psnr:frame-mean"]
    write_results(again, folder, record("good"))
    frame = read_results(folder).frame()
    good = frame[frame["method"] == "good"]
    assert set(good["video_sha256"]) == {"1" * 64} and set(good["metric"]) == {"psnr:frame-mean"}
    assert set(frame[frame["method"] == "weak"]["metric"]) == set(METRICS)
