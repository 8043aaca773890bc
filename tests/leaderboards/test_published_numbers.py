"""Tests that a board shows published numbers in separate tables, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import fastjsonschema

from cmet_baselines.published import published_rows
from cmet_leaderboards.board import build
from cmet_leaderboards.export import SCHEMA_FILE
from cmet_leaderboards.published import HEADING, published_tables
from cmet_leaderboards.results import write_results
from tests.leaderboards.test_board import record, rows


def test_they_are_below_their_setting_and_no_measured_number_changes(tmp_path: Path) -> None:
    for name, level in (("good", 5), ("weak", 1)):
        about = record(name)
        about["pairs"]["notes"] = ["12 of the list's 20 rows"]
        write_results(rows(name, level), tmp_path / "results", about)
        write_results(rows(name, level, setting="extended"), tmp_path / "results", about)
    without = build(tmp_path / "results", tmp_path / "without").parent
    out = build(tmp_path / "results", tmp_path / "out", published=published_rows()).parent
    for name in ("board.csv", "board.parquet", "extended.html", "extended.md"):
        assert (out / name).read_bytes() == (without / name).read_bytes(), name
    document = json.loads((out / "board.json").read_text())
    fastjsonschema.compile(json.loads(SCHEMA_FILE.read_text()))(document)
    ours, other = document["tables"]
    assert not other["published"] and ours["pair_notes"] == ["12 of the list's 20 rows"]
    assert [m["method"] for m in ours["methods"]] == ["good", "weak"]
    (paper,) = ours["published"]
    values = {line["method"]: line["values"] for line in paper["methods"]}
    assert paper["title"] == "CEM-Net (arXiv 2508.12368), Table II, on MEAD"
    assert dict(zip(paper["metrics"], values["EAT"], strict=True))["CSIM ↑"] == 0.5052
    assert values["Ground truth"][0] is None
    assert {line["method"]: line["from"] for line in paper["copied"]} == {"Wav2Lip": "[40] EAMM", "EAMM": "[40] EAMM"}
    for page in ("index.html", "board.md", "neutral-base.html"):
        text = (out / page).read_text()
        below = text.replace("&#39;", "'").split(HEADING)[1]
        assert "0.5052" in below and "8 random actors, not named" in below
        assert "Sync ↑ copied from [40] EAMM, by the table" in below.replace("\\", "")
        assert "EAT" not in text.replace("&#39;", "'").split(HEADING)[0]


def test_every_number_is_shown_once_or_has_no_setting_here() -> None:
    records = published_rows()
    boards = ("neutral-base", "cross-emotion", "reconstruction", "cmet-mead", "cmet-crema-d")
    lines = [values for board in boards for p in published_tables(records, board) for _, values in p.methods]
    shown = [value for values in lines for value in values if value is not None]
    # Identity deterioration is a report, not a board.
    assert len(shown) == sum(r["setting"] != "identity-deterioration" for r in records) == 225
