"""Tests the files of the standing leaderboard: nothing that a board shows is lost, and wrong rows are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmet_leaderboards.export import to_json
from cmet_leaderboards.markdown import to_markdown
from cmet_leaderboards.results import read_results, write_results
from cmet_leaderboards.standing import Provenance, add_results, read_standing
from cmet_leaderboards.tables import build_tables
from talking_face.reasons import UserError
from talking_face.sealed import Damaged, sealed
from tests.leaderboards.test_board import record, rows


def odd(row: dict[str, Any]) -> None:
    """Reasons, an infinite value, notes of some pairs and of some metrics, and texts that need quotes."""
    if row["pair_id"].endswith("A/happy"):
        row.update(
            value=None, reason="no-face", detail='no face, "at all": in 3 of 50 frames\u2026', notes="=cut, twice"
        )
    if row["pair_id"].endswith("B/sad") and row["metric"].startswith("psnr"):
        row.update(value=None, reason="infinite", stats={}, n=50, notes="-allowed")
    if row["pair_id"].endswith("C/sad"):
        row.update(video_sha256="1" * 64, n=49)


def other_video(row: dict[str, Any]) -> None:
    row.update(metric=f"x:{row['metric']}", signature=f"x|{row['signature']}", video_sha256="2" * 64)


def predictions(row: dict[str, Any]) -> None:
    if row["metric"] == "m_lmd:eat":
        truth = row["target_emotion"]
        row.update(metric="ea:corpus", signature="ea|v:1", higher_is_better=True, unit="%", value=1 / 3, n=1)
        row.update(stats={f"{truth}>happy": 2 / 3, f"{truth}>{truth}": 1 / 3, f"{truth}>sad": 0.0, "frames": 1.0})


def both(row: dict[str, Any]) -> None:
    predictions(row)
    odd(row)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_results(rows("truth", 9, predictions, intensity=None), tmp_path / "run", record("truth", "ceiling"))
    write_results(rows("good", 5, odd, intensity=None), tmp_path / "run", record("good"))
    write_results(rows("weak", 1, both, intensity=None), tmp_path / "run", record("weak", "floor"))
    write_results(rows("good", 4, setting="extended", revision="2/a"), tmp_path / "run", record("good"))
    return tmp_path / "run"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_board_from_the_stored_rows_is_the_board_of_the_run(run: Path, tmp_path: Path) -> None:
    added = add_results(read_results(run), tmp_path / "standing", Provenance({"numpy": "2"}, [{"kind": "emotion"}]))
    assert len(added) == 4 and all(path.is_file() for path in added)
    before, after = (build_tables(results) for results in (read_results(run), read_standing(tmp_path / "standing")))
    assert to_markdown(before) == to_markdown(after)
    clips = [
        [one.clips for table in tables for found in table.confusions for one in found] for tables in (before, after)
    ]
    assert len(clips[0]) == 2 and all(np.allclose(*pair, rtol=1e-6) for pair in zip(*clips, strict=True))
    numbers = [json.loads(to_json(tables))["tables"][0]["methods"][1]["cells"] for tables in (before, after)]
    for one, two in zip(*numbers, strict=True):
        assert (one is None) == (two is None)
        assert one is None or (one["mean"] == pytest.approx(two["mean"], rel=1e-6) and one["scored"] == two["scored"])
    rows_before, rows_after = (r.frame() for r in (read_results(run), read_standing(tmp_path / "standing")))
    order = ["method", "setting", "metric", "pair_id"]
    for column in ("detail", "notes", "reason", "video_sha256", "n", "seed", "intensity", "codec", "origin"):
        kinds = [frame.sort_values(order)[column] for frame in (rows_before, rows_after)]
        assert kinds[0].fillna("").astype(str).tolist() == kinds[1].fillna("").astype(str).tolist(), column


def test_the_order_of_additions_does_not_matter_and_a_repeated_one_changes_nothing(run: Path, tmp_path: Path) -> None:
    parts = sorted(run.rglob("*.parquet"))
    for name, order in (("one", parts), ("two", parts[::-1]), ("three", [*parts, *parts])):
        for path in order:
            add_results(read_results(path), tmp_path / name)
    assert files(tmp_path / "one") == files(tmp_path / "two") == files(tmp_path / "three")
    assert all(b"\r" not in content and content.endswith(b"\n") for content in files(tmp_path / "one").values())


def test_values_that_another_machine_rounds_differently_change_nothing(run: Path, tmp_path: Path) -> None:
    add_results(read_results(run), tmp_path / "standing")
    before = files(tmp_path / "standing")

    def nudge(row: dict[str, Any]) -> None:
        odd(row)
        if row["value"] is not None:
            row["value"] *= 1 + 4e-8

    write_results(rows("good", 5, nudge, intensity=None), tmp_path / "other", record("good"))
    add_results(read_results(tmp_path / "other"), tmp_path / "standing")
    assert files(tmp_path / "standing") == before


def test_rows_that_contradict_stored_rows_are_refused_and_change_no_file(run: Path, tmp_path: Path) -> None:
    standing = tmp_path / "standing"
    add_results(read_results(run), standing, Provenance(training_seeds={"good": 0}))
    before = files(standing)
    cases: list[tuple[list[Any], Provenance, str]] = [
        (rows("good", 5.1, intensity=None), Provenance(), "good has two values for"),
        (
            rows("good", 5, lambda r: r.update(metric="x:y", signature="x|1", video_sha256="2" * 64)),
            Provenance(),
            "two diff",
        ),
        (
            rows("good", 5, revision="3", intensity=None),
            Provenance(training_seeds={"good": 0}),
            "training seed 0 is there already",
        ),
        (rows("other", 5, lambda r: r.update(speaker="Z")), Provenance(), "differ in its labels"),
    ]
    for made, about, message in cases:
        place = tmp_path / f"case-{len(list(tmp_path.iterdir()))}"
        write_results(made, place, record(made[0].method))
        with pytest.raises(UserError, match=message):
            add_results(read_results(place), standing, about)
        assert files(standing) == before
    write_results(rows("a", 5, origin="drawn"), tmp_path / "a", record("a"))
    write_results(rows("b", 5, origin="recorded", setting="extended"), tmp_path / "b", record("b"))
    add_results(read_results(tmp_path / "a"), tmp_path / "new")
    with pytest.raises(UserError, match=r"the same data dddddddddddd are drawn in .* recorded in the new rows"):
        add_results(read_results(tmp_path / "b"), tmp_path / "new")


@pytest.mark.parametrize("name", ["board.json", "metrics.csv", "pairs.csv", "good@1.csv", "good@1.json"])
def test_a_changed_file_is_found(run: Path, tmp_path: Path, name: str) -> None:
    add_results(read_results(run), tmp_path / "standing")
    (path,) = (tmp_path / "standing").glob(f"neutral-base*/{name}")
    text = path.read_text()
    place = max(i for i, char in enumerate(text) if char in "123456789p")
    path.write_text(f"{text[:place]}0{text[place + 1 :]}")
    with pytest.raises(Damaged, match=f"{name} is damaged"):
        read_standing(tmp_path / "standing")


def test_a_file_of_another_form_with_a_right_digest_is_one_line(run: Path, tmp_path: Path) -> None:
    add_results(read_results(run), tmp_path / "standing")
    (path,) = (tmp_path / "standing").glob("neutral-base*/good@1.json")
    whole = json.loads(path.read_text())
    for change in ({"same": []}, {"method": None}, {"method": {"role": "winner", "name": "good"}}, {"revision": "=1"}):
        path.write_text(json.dumps(sealed(whole | change)))
        with pytest.raises(UserError, match=r"good@1\.json (is damaged|does not hold)") as caught:
            read_standing(tmp_path / "standing")
        assert "\n" not in str(caught.value)


def test_the_bytes_do_not_depend_on_place_time_or_hash_seed(run: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cmet_leaderboards.results import read_results;"
        "from cmet_leaderboards.standing import add_results; add_results(read_results(Path(sys.argv[1])), Path('out'))"
    )
    for name, more in (
        ("one", {"PYTHONHASHSEED": "1", "TZ": "UTC"}),
        ("two", {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo"}),
    ):
        (tmp_path / name).mkdir()
        environment = {**os.environ, "LC_ALL": "C" if name == "one" else "C.UTF-8", **more}
        subprocess.run([sys.executable, "-c", code, str(run)], cwd=tmp_path / name, env=environment, check=True)
    assert files(tmp_path / "one") == files(tmp_path / "two")
