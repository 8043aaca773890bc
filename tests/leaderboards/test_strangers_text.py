"""Texts of strangers on boards: no links, HTML or formulas in the exports, and file names that differ."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from cmet_leaderboards.board import build
from cmet_leaderboards.results import read_results, write_results
from talking_face.reasons import UserError
from tests.leaderboards.test_board import record, rows

EVIL = (
    "=cmd|' /C calc'!A0 [here](javascript:alert(1)) `code` | cell <img src=x onerror=alert(1)> </script><script>\\ @a"
)


def test_titles_of_strangers_are_text_in_every_export(tmp_path: Path) -> None:
    for name in ("evil", "fine"):  # the same values, so that each method is named as a tie of the other
        about = record(name, title=EVIL if name == "evil" else "Fine", summary=EVIL)
        about["setting"] |= {"title": EVIL, "summary": EVIL, "protocol": EVIL}
        about["pairs"] |= {"notes": [EVIL], "missing": [EVIL]}
        made = [replace(row, method=name, speaker="@speaker", unit="-") for row in rows("same", 5)]
        write_results(made, tmp_path / "rows", about)
    build(tmp_path / "rows", tmp_path / "out")
    markdown = (tmp_path / "out" / "board.md").read_text()
    lines = [line for line in markdown.splitlines() if "javascript" in line]
    assert lines and all("[here]" not in line.replace("\\[", "").replace("\\]", "") for line in lines)
    assert "<img" not in markdown and "<script" not in markdown and " `code`" not in markdown
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<img src=x" not in page and page.count("<script>") == 1 and 'href="javascript' not in page
    cells = list(csv.DictReader(io.StringIO((tmp_path / "out" / "board.csv").read_text())))
    assert any(row["ties"] == f"'{EVIL}" for row in cells) and {row["unit"] for row in cells} == {"'-"}
    assert {row["speaker"] for row in cells} == {"", "'@speaker"}
    numbers = ("mean", "low", "high", "distance")
    assert not any(row[name].startswith("'") for row in cells for name in numbers)
    assert not any(cell.startswith(("=", "+", "@")) for row in cells for cell in row.values())
    (table,) = json.loads((tmp_path / "out" / "board.json").read_text())["tables"]
    assert EVIL in {method["title"] for method in table["methods"]}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("revision", ("a/b", "a_b", "a b", "改訂", "版", "%2F", "A" * 99 + "b", "A" * 99 + "c")),
        ("setting", ("x y", "x_y", "設定", "設")),
        ("method", ("m x", "m_x", "方法")),
        ("rules", ("r1", "r2")),
        ("dataset", ("mead", "crema-d")),
        ("data_signature", ("shards|v:1", "shards|v:2")),
        ("data_digest", ("d" * 64, "d" * 63 + "e")),
        ("pairs_digest", ("p" * 16, "p" * 15 + "q")),
        ("suite_version", ("1" * 30 + "a", "1" * 30 + "b")),
    ],
)
def test_rows_with_different_keys_have_different_files(key: str, values: tuple[str, ...], tmp_path: Path) -> None:
    made = [[replace(row, **{key: value}) for row in rows("good", 5)] for value in values]
    paths = {write_results(some, tmp_path, record("good")) for some in made}
    assert len(paths) == len(values) and all(path.resolve().is_relative_to(tmp_path.resolve()) for path in paths)
    found = read_results(tmp_path).frame().groupby(key).size().to_dict()
    assert found == dict.fromkeys(values, 24)


@pytest.mark.parametrize("setting", ["../../evil", "/abs/path", "board", "Index", "board.schema", ".x", "a\nb"])
def test_a_setting_cannot_be_a_path_or_a_file_of_every_board(setting: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the rows of .* cannot be stored: .*(setting|printed)"):
        write_results(rows("good", 5, setting=setting), tmp_path / "results", record("good"))
    assert list(tmp_path.rglob("*.parquet")) == []
