"""The tables of defects, contents and named lists: well formed, sourced, and in agreement with MELD's real labels."""

from __future__ import annotations

import csv
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest

from cmet_pipelines import contents, defects, lists
from cmet_pipelines.preprocess import Selection, preprocess
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.readers import READERS
from cmet_pipelines.shards import ShardSet
from talking_face.clip import Clip, MediaSource
from talking_face.emotions import DATASET_LABELS, canonical
from talking_face.reasons import UserError
from tests.conftest import SHARED
from tests.pipelines.run_options import QUIET

SPLITS = {"train": "train", "dev": "val", "test": "test"}
ABSENT = "meld/dev/dia110_utt7"  # has a row, but no file in the release (declare-lab/MELD issues 22 and 27)


@pytest.fixture(scope="module")
def real_rows() -> dict[str, dict[str, str]]:
    """Rows of MELD's labels by clip_id."""
    rows = {}
    for split in SPLITS:
        path = SHARED / "data" / "labels" / f"meld_{split}_sent_emo.csv"
        if not path.is_file():
            pytest.skip(f"../shared/data/labels/{path.name} is absent: tables are not compared with the real labels")
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                rows[f"meld/{split}/dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"] = row
    return rows


def _seconds(clock: str) -> float:
    """Of HH:MM:SS,mmm; the hours may have one digit and the fraction two."""
    hours, minutes, rest = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))


def _clip(clip_id: str) -> Clip:
    return Clip(clip_id=clip_id, dataset="meld", speaker="Joey", video=MediaSource("/x.mp4"), emotion="neutral")


def test_tables_are_well_formed_and_sourced() -> None:
    for package, columns in ((defects, ["key", "reason", "source"]), (lists, ["clip_id", "source"])):
        for entry in resources.files(package).iterdir():
            if not entry.name.endswith(".csv"):
                continue
            rows = list(csv.DictReader(entry.read_text("utf-8").splitlines()))
            assert rows and set(columns) <= rows[0].keys() <= {*columns, "emotion"}, entry.name
            assert all(None not in row and row[columns[0]] and row["source"] for row in rows), entry.name
            keys = [row[columns[0]] for row in rows]
            assert len(set(keys)) == len(keys), entry.name
            home = (f"{Path(entry.name).stem}/",) if package is defects else tuple(f"{name}/" for name in READERS)
            assert all(key.startswith(home) for key in keys), entry.name
            assert all(canonical(row["emotion"]) == row["emotion"] for row in rows if row.get("emotion")), entry.name
    for dataset in READERS:
        table = contents.expected(dataset)
        if table is not None:
            labels = [name for name in contents.LABELS if name in table]
            assert (
                set(table) == {*labels, "clips"} and not table.duplicated(labels).any() and (table["clips"] > 0).all()
            )


def test_meld_contents_are_the_real_labels(real_rows: dict[str, dict[str, str]]) -> None:
    assert ABSENT in real_rows
    counted = Counter(
        (SPLITS[clip_id.split("/")[1]], DATASET_LABELS["meld"][row["Emotion"]])
        for clip_id, row in real_rows.items()
        if clip_id != ABSENT
    )
    table = contents.expected("meld")
    assert table is not None and {(r.split, r.emotion): r.clips for r in table.itertuples()} == counted
    whole = [{"split": split, "emotion": emotion} for (split, emotion), n in counted.items() for _ in range(n)]
    assert contents.missing("meld", whole).empty  # type: ignore[union-attr]
    lacking = contents.missing("meld", [row for row in whole if row != {"split": "val", "emotion": "fear"}])
    assert lacking is not None and lacking.to_dict("records") == [
        {"split": "val", "emotion": "fear", "clips": 40, "found": 0}
    ]


def test_meld_defects_are_what_the_times_say(real_rows: dict[str, dict[str, str]]) -> None:
    table = {row.key: row.reason for row in defects.table("meld")}
    assert table.keys() <= real_rows.keys()
    length = {key: _seconds(row["EndTime"]) - _seconds(row["StartTime"]) for key, row in real_rows.items()}
    assert {key for key, seconds in length.items() if seconds < 0.1} == {k for k, r in table.items() if "empty" in r}
    assert {key for key, seconds in length.items() if seconds > 40} == {k for k, r in table.items() if "overlong" in r}
    assert defects.find("meld", "meld/dev/dia125_utt3") is None  # the broken one of this name is in train


def test_lists_are_selected_by_name_or_file(tmp_path: Path) -> None:
    clips = [_clip(f"meld/test/{take}") for take in ("dia5_utt8", "dia5_utt9", "dia7_utt2")]
    chosen, absent = lists.select("cmet-sarcastic", clips)
    assert [(clip.clip_id, clip.emotion) for clip in chosen] == [
        ("meld/test/dia5_utt8", "sarcastic"),
        ("meld/test/dia7_utt2", "sarcastic"),
    ]
    assert len(absent) == 10 and "meld/test/dia201_utt5" in absent
    own = tmp_path / "own.csv"
    own.write_text("\ufeffclip_id\r\nmeld/test/dia5_utt9\r\n", encoding="utf-8")
    assert [(clip.clip_id, clip.emotion) for clip in lists.select(str(own), clips)[0]] == [
        ("meld/test/dia5_utt9", "neutral")
    ]
    with pytest.raises(UserError, match=r"give one of .*cmet-sarcastic"):
        lists.select("cmet-ironic", clips)
    own.write_text("file\nx\n")
    with pytest.raises(UserError, match="no column `clip_id`"):
        lists.select(str(own), clips)
    with pytest.raises(UserError, match="none of the 12 clips"):
        lists.select("cmet-sarcastic", clips[1:2])


def test_clips_that_were_not_asked_for_stand_in_the_ledger(small_mead: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("clip_id,emotion\nmead/M901/front/happy/2/003,smug\nmead/M901/front/neutral/1/001,\n")
    summary = preprocess(
        "mead",
        small_mead,
        tmp_path / "out",
        ProcessingSettings(clips=str(own)),
        run=QUIET,
        selection=Selection(limit=1),
    )
    shards = ShardSet(summary.out)
    assert list(shards.clips["clip_id"]) == ["mead/M901/front/happy/2/003"]
    assert list(shards.clips["emotion"]) == ["smug"]
    left_out = shards.ledger[shards.ledger["reason"] == "not-asked"]
    assert Counter(left_out["detail"]) == {"not in the list own.csv": 6, "not of the first 1 clips": 1}
    assert set(left_out["status"]) == {"excluded"}
