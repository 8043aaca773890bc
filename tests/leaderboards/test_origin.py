"""Tests the origin of data: what names prove, rows of older files, forged origins, and what boards print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cmet_leaderboards.board import build
from cmet_leaderboards.markdown import to_markdown
from cmet_leaderboards.results import read_results, write_results
from cmet_leaderboards.tables import build_tables
from embedded_corpus.identity import speaker_names
from talking_face.origin import origin_of_clips, without_guess
from talking_face.reasons import UserError
from talking_face.sealed import read_sealed_table, write_sealed_table
from tests.leaderboards.test_board import record, rows

PUBLISHED = [
    {"board": "neutral-base", "paper": "P", "table": "II", "dataset": "MEAD", "method": "Good", "title": "PSNR",
     "value": 1.5, "protocol": "By P."}
]  # fmt: skip


def drawn_rows(method: str, **more: Any) -> list[Any]:
    names = dict(zip("ABCD", speaker_names(4), strict=True))
    return rows(method, 5, lambda row: row.update(speaker=names[row["speaker"]]), **more)


def as_older_version(path: Path) -> None:
    """Removes the column that older versions do not write."""
    write_sealed_table(read_sealed_table(path, "").drop_columns(["origin"]), path)


@pytest.mark.parametrize(
    ("clips", "stated", "origin"),
    [
        ([("mead", name) for name in speaker_names(48)], None, "drawn"),
        ([("crema-d", "1901"), ("crema-d", "1998")], None, "drawn"),
        ([("lrs2", "9000000000000000001")], None, "drawn"),
        ([("mead", "M003"), ("mead", "W040")], None, "recorded"),
        ([("mead", "M003"), ("mead", "M901")], None, "mixed"),
        ([("clips", "s1"), ("clips", "M901")], "recorded", "mixed"),
        ([("clips", "s1")], "recorded", "recorded"),
        ([("clips", "s1")], None, "unknown"),
        ([("mead", "M003"), ("clips", "s1")], None, "unknown"),
        ([], None, "unknown"),
    ],
)
def test_names_prove_the_origin(clips: list[tuple[str, str]], stated: str | None, origin: str) -> None:
    assert origin_of_clips(clips, stated) == origin
    assert without_guess(origin_of_clips(clips, stated)) != "recorded"


def test_rows_of_older_files_are_drawn_by_name_or_unknown_and_never_recorded(tmp_path: Path) -> None:
    real = rows("good", 5, lambda row: row.update(speaker="M003"), origin="recorded")
    for place, made, older in (("a", drawn_rows("good", origin="drawn"), "drawn"), ("b", real, "unknown")):
        path = write_results(made, tmp_path / place, record("good"))
        as_older_version(path)
        (table,) = build_tables(read_results(tmp_path / place))
        assert table.key["origin"] == older
        # New rows of the same video are merged into the older file, and their origin holds for both.
        assert write_results(made[:4], tmp_path / place, record("good")) == path
        assert {made[0].origin} == set(read_results(tmp_path / place).frame()["origin"])


def test_a_forged_origin_is_refused(tmp_path: Path) -> None:
    for place, origin in (("a", "recorded"), ("b", "unknown"), ("c", "painted")):
        with pytest.raises(UserError, match=r"M901 of mead is drawn, and not|'painted' is not an origin"):
            write_results(drawn_rows("good", origin=origin), tmp_path / place, record("good"))
    write_results(rows("good", 5, origin="recorded"), tmp_path, record("good"))
    write_results(rows("weak", 1, origin="drawn"), tmp_path, record("weak"))
    with pytest.raises(UserError, match=r"the same data dddddddddddd are (drawn|recorded) in .* remove the wrong file"):
        read_results(tmp_path)


def test_a_board_says_that_its_data_are_drawn(tmp_path: Path) -> None:
    write_results(drawn_rows("good", origin="drawn"), tmp_path / "rows", record("good"))
    tables = build_tables(read_results(tmp_path / "rows"), published=PUBLISHED)
    text = to_markdown(tables)
    page = build(tmp_path / "rows", tmp_path / "board", published=PUBLISHED).read_text()
    for shown in (text, page):
        assert "embedded corpus (drawn) dddddddd" in shown and "not on real people" in shown
        heading, table = (shown.index(part) for part in ("Published on recorded data", "P, Table II, on MEAD"))
        assert heading < table and "The papers measured recordings of people" in shown
    assert "drawn" in (tmp_path / "board" / "board.csv").read_text().splitlines()[1].split(",")


def test_a_board_of_recorded_data_has_no_such_banner(tmp_path: Path) -> None:
    write_results(rows("good", 5, origin="recorded"), tmp_path / "rows", record("good"))
    text = to_markdown(build_tables(read_results(tmp_path / "rows")))
    assert "mead (recorded) dddddddd" in text and "drawn by a program" not in text


def test_an_evaluator_that_was_trained_on_the_data_is_explained(tmp_path: Path) -> None:
    made = drawn_rows("good", origin="drawn", metric="ea:corpus", signature="ea|v:1", higher_is_better=True, unit="%")
    write_results({row.pair_id: row for row in made}.values(), tmp_path, record("good"))
    text = to_markdown(build_tables(read_results(tmp_path)))
    assert "The network of EA (corpus) was trained on the data set's training clips, which are drawn faces." in text
    assert "Evaluators of the profile embedded are" in text
