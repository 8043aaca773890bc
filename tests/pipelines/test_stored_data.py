"""Stored data and its sources: damage is found and repaired, exchanged sources are followed, folders stay unnamed.

The clips are not decoded: a stand-in for `process_clip` draws a record from the bytes of the source files.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmet_eval.cli import build
from cmet_pipelines import card, clip_task
from cmet_pipelines.preprocess import PreprocessSummary, Selection, preprocess
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.readers.clips import ClipsOptions
from cmet_pipelines.shards import ShardSet
from talking_face.execution.workers import Task, run_tasks
from talking_face.reasons import UserError
from talking_face.sealed import Damaged, read_sealed_table
from tests.pipelines.drawn_clips import CODEC, draw
from tests.pipelines.run_options import QUIET

SETTINGS = ProcessingSettings(codec=CODEC, size=512)  # of this size, a shard has eight clips
TABLES = ("clips.parquet", "ledger.parquet")
Made = Callable[[], PreprocessSummary]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten files named as videos, half of them with a sound file and a label; one of them has no face."""
    monkeypatch.setattr(clip_task, "process_clip", draw)
    root = tmp_path / "home-of-SECRET" / "clips"
    root.mkdir(parents=True)
    for i in range(10):
        (root / f"{i}.mp4").write_bytes(bytes([i, 1, 2, 3]) if i != 7 else b"bad")
        if i % 2:
            (root / f"{i}.wav").write_bytes(bytes([i, 5]))
    (root / "labels.csv").write_text("file,emotion\n" + "".join(f"{i}.mp4,happy\n" for i in range(5)))
    return root


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Made:
    """Preprocesses the ten clips into OUT."""

    def again(**selection: bool) -> PreprocessSummary:
        return preprocess("clips", root, tmp_path / "out", SETTINGS, run=QUIET, selection=Selection(**selection))

    return again


def stored(out: Path) -> dict[str, bytes]:
    """The bytes of every file of a set, except the ledger, which holds times."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name not in (".lock", "ledger.parquet"))
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def flip(path: Path, rng: random.Random) -> bytes:
    """Flips one bit of a file; returns the bytes before."""
    before = path.read_bytes()
    data = bytearray(before)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return before


def values(out: Path) -> list[object]:
    """Everything that a ShardSet returns."""
    shards = ShardSet(out)
    found: list[object] = [shards.card, shards.clips.to_json(), shards.ledger.to_json()]
    for clip_id in shards.clips["clip_id"]:
        readers = (shards.frames, shards.audio, shards.landmarks, shards.blendshapes, shards.valid)
        found += [reader(clip_id).tobytes() for reader in (*readers, shards.crop_transform)]
        found.append(shards.landmarks(clip_id, smoothed=True).tobytes())
    return found


def test_a_flipped_bit_never_changes_a_value(run: Made) -> None:
    out, rng = run().out, random.Random(0)
    assert sorted(path.name for path in (out / "shards").iterdir())[1:], "two shards"
    right = values(out)
    for path in [*(out / name for name in (*TABLES, "dataset.json")), *(out / "shards").iterdir()] * 8:
        before = flip(path, rng)
        try:
            assert values(out) == right, path
        except Damaged as damage:
            assert str(path) in str(damage) and "\n" not in str(damage) and "preprocess" in str(damage)
        path.write_bytes(before)


def test_verify_names_every_damaged_file(run: Made) -> None:
    out, rng = run().out, random.Random(1)
    command = ["inspect", str(out), "--verify", "--clips", "0"]
    assert "5 of 5 files are as they were written" in CliRunner().invoke(build("inspect"), command).output
    hurt = [out / "ledger.parquet", sorted((out / "shards").iterdir())[0]]
    for path in hurt:
        flip(path, rng)
    told = CliRunner().invoke(build("inspect"), command)
    assert told.exit_code == 1 and "3 of 5 files" in told.output
    assert all(f"{path} is damaged" in told.output for path in hurt)


@pytest.mark.parametrize("what", ["shard", "gone", "clips.parquet", "ledger.parquet", "dataset.json", "both tables"])
def test_the_same_command_repairs(what: str, run: Made, capfd: pytest.CaptureFixture[str]) -> None:
    made = run()
    before, rng = stored(made.out), random.Random(2)
    first = sorted((made.out / "shards").iterdir())[0]
    hurt = {"shard": [first], "gone": [first], "both tables": [made.out / name for name in TABLES]}
    for path in hurt.get(what, [made.out / what]):
        flip(path, rng)
        if what == "gone":
            path.unlink()
    capfd.readouterr()
    again = run()
    told = capfd.readouterr().err
    assert stored(made.out) == before and again.digest == made.digest
    # Of a lost ledger, only the outcome of the dropped clip is lost; of both tables, everything but the shards.
    assert again.computed == {"shard": 7, "gone": 7, "ledger.parquet": 1, "both tables": 10}.get(what, 0)
    assert all(f"{path} is damaged" in told for path in hurt.get(what, [made.out / what]))
    assert run().computed == 0 and not capfd.readouterr().err


def test_without_a_check_only_sizes_and_footers_are_compared(run: Made) -> None:
    out = run().out
    shard = sorted((out / "shards").iterdir())[0]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert run(check=False).computed == 0
    shard.write_bytes(data[:-9])
    assert run(check=False).computed == 7


def test_a_damaged_clip_of_a_killed_run_is_processed_again(
    run: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmet_pipelines.assembly.write_shard", _killed)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.undo()
    monkeypatch.setattr(clip_task, "process_clip", draw)
    for path in sorted((tmp_path / "out" / ".staging").rglob("[!.]*"))[1:3]:
        flip(path, random.Random(3))  # the row and the outcome of one clip
    assert 3 <= run().computed <= 4 and run().kept == 9


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_every_source_of_a_clip_is_followed(root: Path, run: Made) -> None:
    first = run()
    (root / "1.wav").write_bytes(bytes([9, 9]))  # of the same size
    exchanged = run()
    assert exchanged.computed == 1 and exchanged.digest != first.digest
    (root / "1.wav").write_bytes(bytes([1, 5]))
    back = run()
    assert back.computed == 1 and back.digest == first.digest
    (root / "0.wav").write_bytes(b"new")
    assert run().computed == 1
    (root / "0.wav").unlink()
    assert run().computed == 1
    (root / "2.mp4").write_bytes(bytes([9, 9, 9, 9]))
    assert run().computed == 1
    (root / "labels.csv").write_text((root / "labels.csv").read_text().replace("3.mp4,happy", "3.mp4,sad"))
    assert run().computed == 1
    for path in root.iterdir():  # a copy on another machine: other times, same content
        os.utime(path, ns=(1, 1))
    assert run().computed == 0
    rows = read_sealed_table(first.out / "ledger.parquet", "").to_pylist()
    assert {row["source_mtime_ns"] for row in rows if row["clip_id"]} == {1}


def test_no_stored_byte_names_a_folder_of_the_machine(root: Path, tmp_path: Path) -> None:
    outside = (root / "labels.csv").rename(root.parent / "outside.csv")
    out = preprocess("clips", root, tmp_path / "out", SETTINGS, ClipsOptions(labels=outside), run=QUIET).out
    for path in sorted(out.rglob("*")):
        if path.suffix == ".parquet":
            table = read_sealed_table(path, "")
            assert "SECRET" not in f"{table.to_pylist()} {table.schema.metadata}", path
        if path.is_file():
            assert b"SECRET" not in path.read_bytes(), path
    details = [row["detail"] for row in read_sealed_table(out / "ledger.parquet", "").to_pylist()]
    assert "no face in 7.mp4, with fonts of a.ttf" in details
    assert "outside.csv: 5 of 5 rows" in json.dumps(ShardSet(out).card["notes"])


def _file(out: Path) -> None:
    out.write_text("")


def _loop(out: Path) -> None:
    out.symlink_to(out)


@pytest.mark.parametrize(
    ("prepare", "name", "words"),
    [(_file, "out", "exists"), (_loop, "out", None), (lambda _: None, "o" * 300, "too long"), (_file, "out/a", None)],
)
def test_an_impossible_folder_is_one_line(
    prepare: Callable[[Path], None], name: str, words: str | None, root: Path, tmp_path: Path
) -> None:
    if name != "o" * 300:
        prepare(tmp_path / "out")
    with pytest.raises(UserError, match=words) as told:
        preprocess("clips", root, tmp_path / name, SETTINGS, run=QUIET)
    assert "\n" not in str(told.value) and name in str(told.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.EIO, errno.EACCES])
def test_an_error_of_the_disk_is_one_line(number: int, run: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(card, "write_sealed_table", fail)
    with pytest.raises(UserError) as told:
        run()
    assert os.strerror(number) in str(told.value) and "\n" not in str(told.value)
    monkeypatch.undo()
    monkeypatch.setattr(clip_task, "process_clip", draw)
    assert run().computed == 0  # every clip was kept


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_used_with_a_warning(
    number: int, run: Made, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    assert run().kept == 9
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and "no locks" in told


def test_damaged_ground_truth_stops_generation_and_scoring_with_one_line(
    run: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # a worker's child imports `tests`
    out = run().out
    for shard in (out / "shards").iterdir():
        data = bytearray(shard.read_bytes())
        data[len(data) // 3] ^= 1
        shard.write_bytes(data)
    task = Task("a", (str(out),))
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"parquet is damaged \(clip clips/") as told:
            list(run_tasks("tests.pipelines.drawn_clips:read_frames_of", [task], workers=workers))
        assert "\n" not in str(told.value)
