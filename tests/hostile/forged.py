"""Gives forged result rows, pair lists and records to the real commands. All digests in the forged files are right.

    python -m tests.hostile.forged --tries N --seed S

A forged file has to be refused by name: the exit status is not 0, and nothing is written outside the folder of the
command. `--tries` is the number of pairs of a form and a command; by default every form is tried with every command.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cmet_eval.measuring.score_records import write_record
from cmet_eval.protocol.pair_files import write_pairs
from cmet_eval.protocol.pairs import PairList
from cmet_eval.runs.records import GenerationRecord, Timing
from cmet_leaderboards.results import SCHEMA
from talking_face.clip import Pair
from talking_face.sealed import read_sealed_json, read_sealed_table, write_sealed_json, write_sealed_table
from tests.hostile.tally import Ended, Tally, report, run

Rows = list[dict[str, Any]]
Runner = Callable[[Sequence[str], Path], Ended]
SCRIPT = "<script>alert(1)</script>"


def rows() -> Rows:
    """Six rows of two methods, which every command accepts."""
    same = {
        **{"setting": "cross-emotion", "revision": "1", "seed": 0, "speaker": "A", "reference_emotion": "sad"},
        **{"target_emotion": "happy", "intensity": 1, "ground_truth_clip": "clips/A/happy/1"},
        **{"metric": "psnr:frame-mean", "signature": "psnr|version:1", "higher_is_better": True, "ideal": None},
        **{"unit": "dB", "value": 20.0, "reason": None, "detail": "", "n": 10, "stats": [("x", 1.0)], "notes": ""},
        **{"codec": "h264", "dataset": "clips", "data_digest": "d" * 32, "data_signature": "shards|version:1"},
        **{"pairs_digest": "p" * 16, "rules": "r" * 8, "profile": "embedded", "suite_version": "0.1.0"},
        "origin": "unknown",
    }
    return [
        same | {"method": method, "pair_id": f"cross-emotion/A/{i}", "value": 20.0 + i + m, "video_sha256": "0" * 64}
        for m, method in enumerate(("one", "two"))
        for i in range(3)
    ]


def write_rows(path: Path, made: Rows, record: object = None, schema: pa.Schema = SCHEMA) -> None:
    """A file of these rows with a right digest, as a stranger can write it."""
    metadata = {b"cmet_eval.results": record if isinstance(record, bytes) else json.dumps(record or {}).encode()}
    table = pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in made], schema=schema)
    write_sealed_table(table.replace_schema_metadata(metadata), path)


def _cells(**values: object) -> Callable[[Path], None]:
    """A file in which every row has these values."""
    return lambda path: write_rows(path, [row | values for row in rows()[:3]])


def _record(record: object) -> Callable[[Path], None]:
    return lambda path: write_rows(path, rows()[:3], record)


def _column(name: str, kind: pa.DataType, value: object) -> Callable[[Path], None]:
    """A file in which a column has another type."""
    schema = SCHEMA.set(SCHEMA.get_field_index(name), pa.field(name, kind))
    return lambda path: write_rows(path, [row | {name: value} for row in rows()[:3]], schema=schema)


def _without_column(path: Path) -> None:
    write_rows(path, rows()[:3], schema=SCHEMA.remove(SCHEMA.get_field_index("rules")))


def _two_keys(path: Path) -> None:
    write_rows(path, rows())


def _two_values(path: Path) -> None:
    made = rows()[:3]
    write_rows(path, [*made, made[0] | {"value": 99.0}])


def _two_videos(path: Path) -> None:
    made = rows()[:3]
    write_rows(path, [*made, made[0] | {"metric": "ssim:y", "signature": "s", "video_sha256": "1" * 64}])


def _not_utf8(path: Path) -> None:
    column = pa.array([b"\xff\xfe"] * 3, pa.binary()).view(pa.string())
    table = pa.Table.from_pylist(rows()[:3], schema=SCHEMA)
    write_sealed_table(table.set_column(SCHEMA.get_field_index("notes"), "notes", column), path)


def _bytes(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data)


def _changed(path: Path) -> None:
    """A file in which one value was changed without a new digest."""
    write_rows(path, rows()[:3])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


ROWS: Mapping[str, Callable[[Path], None]] = {
    "a setting that is an absolute path": _cells(setting="/tmp/evil"),
    "a setting with ..": _cells(setting="../../evil"),
    "a setting called board": _cells(setting="board"),
    "a setting called index": _cells(setting="index"),
    "a setting called board.schema": _cells(setting="board.schema"),
    "a setting that begins with a dot": _cells(setting=".hidden"),
    "an empty setting": _cells(setting=""),
    "a setting of 1 MB": _cells(setting="x" * 1_000_000),
    "no setting": _cells(setting=None),
    "a method with ..": _cells(method="../../../X"),
    "a method with a backslash": _cells(method="..\\X"),
    "a method with a line break": _cells(method="a\nb"),
    "a method with a terminal escape": _cells(method="a\x1b[2Jb"),
    "a method that turns the direction of text": _cells(method="a\u202eb"),
    "a method that is a formula": _cells(method="=cmd|' /C calc'!A0"),
    "no method": _cells(method=None),
    "a revision that is a formula": _cells(revision="=1+1"),
    "a revision that begins with @": _cells(revision="@SUM(A1)"),
    "no revision": _cells(revision=None),
    "a pair id with ..": _cells(pair_id="../../etc/passwd"),
    "an absolute pair id": _cells(pair_id="/etc/passwd"),
    "an empty pair id": _cells(pair_id=""),
    "no pair id": _cells(pair_id=None),
    "a metric that is a formula": _cells(metric="+x:y"),
    "no metric": _cells(metric=None),
    "no signature": _cells(signature=None),
    "a detail of 1 MB": _cells(detail="x" * 1_000_000, value=None, reason="no-face"),
    "a note with a NUL character": _cells(notes="a\0b"),
    "a text that is not UTF-8": _not_utf8,
    "a speaker with a line break": _cells(speaker="A\nB"),
    "the value NaN": _cells(value=math.nan),
    "the value infinity": _cells(value=math.inf),
    "a value and a reason": _cells(reason="no-face"),
    "neither a value nor a reason": _cells(value=None),
    "an unknown reason": _cells(value=None, reason="because"),
    "a negative n": _cells(n=-1),
    "NaN in the statistics": _cells(stats=[("x", math.nan)]),
    "null in the statistics": _cells(stats=[("x", None)]),
    "a wrong direction": _cells(higher_is_better=False),
    "an ideal value that the metric does not have": _cells(ideal=20.0),
    "an infinite ideal value": _cells(metric="own:metric", ideal=math.inf),
    "no direction": _cells(higher_is_better=None),
    "values that are text": _column("value", pa.string(), "20"),
    "a seed that is text": _column("seed", pa.string(), "0"),
    "a setting that is a list": _column("setting", pa.list_(pa.string()), ["x"]),
    "a setting that is a number": _column("setting", pa.int64(), 3),
    "n of 64 bits": _column("n", pa.int64(), 2**40),
    "stats that is text": _column("stats", pa.string(), "{}"),
    "a missing column": _without_column,
    "two methods in one file": _two_keys,
    "two values of one pair": _two_values,
    "two videos of one pair": _two_videos,
    "a record that is a list": _record([1]),
    "a record that is not JSON": _record(b"{"),
    "a record that is nested deeply": _record(b"[" * 100_000),
    "an unknown role": _record({"method": {"role": "winner"}}),
    "a title of 1 MB": _record({"method": {"title": "x" * 1_000_000}}),
    "a title that is a list": _record({"method": {"title": ["x"]}}),
    "a title with a terminal escape": _record({"method": {"title": "a\x1b[2J"}}),
    "a command with a line break": _record({"command": "cmet-eval\nrm"}),
    "a number of pairs that is text": _record({"pairs": {"drawn": "many"}}),
    "a negative number of pairs": _record({"pairs": {"drawn": -1}}),
    "inputs that are numbers": _record({"method": {"sees": [1, 2]}}),
    "text instead of Parquet": _bytes(b"no"),
    "an empty file": _bytes(b""),
    "a head of Parquet without an end": _bytes(b"PAR1" + b"\0" * 100),
    "a changed bit": _changed,
}

PAIR = Pair(
    pair_id="cross-emotion/A/1",
    setting="cross-emotion",
    seed=0,
    speaker="A",
    reference_clip="clips/A/sad/1",
    reference_frames=(3, 5),
    reference_emotion="sad",
    source_clip="clips/A/sad/1",
    driving_clip="clips/A/happy/1",
    target_emotion="happy",
    intensity=1,
    ground_truth_clip="clips/A/happy/1",
)


def _pairs(suffix: str = ".parquet", **values: object) -> Callable[[Path], None]:
    """A pair list whose pair has these values. Its digests are right."""

    def write(path: Path) -> None:
        fields = {name: getattr(PAIR, name) for name in PAIR.__dataclass_fields__} | values
        pair = Pair(**fields)
        name = str(values.get("setting", "cross-emotion"))
        write_pairs(PairList(name, "d" * 32, (pair,)), path.with_suffix(suffix))

    return write


def _pair_types(path: Path) -> None:
    write_pairs(PairList("cross-emotion", "d" * 32, (PAIR,)), path)
    table = read_sealed_table(path, "")
    text = pa.array(["zero"], pa.string())
    write_sealed_table(table.set_column(table.schema.get_field_index("seed"), "seed", text), path)


def _pair_columns(path: Path) -> None:
    write_pairs(PairList("cross-emotion", "d" * 32, (PAIR,)), path)
    write_sealed_table(read_sealed_table(path, "").drop_columns(["speaker"]), path)


def _pair_metadata(path: Path) -> None:
    write_pairs(PairList("cross-emotion", "d" * 32, (PAIR,)), path)
    write_sealed_table(read_sealed_table(path, "").replace_schema_metadata({"cmet_eval.pairs": "[1]"}), path)


def _twice(path: Path) -> None:
    write_pairs(PairList("cross-emotion", "d" * 32, (PAIR, PAIR)), path)


PAIRS: Mapping[str, Callable[[Path], None]] = {
    "a pair id with ..": _pairs(pair_id="../../evil"),
    "a pair id with .. in CSV": _pairs(".csv", pair_id="../../evil"),
    "an absolute pair id": _pairs(pair_id="/tmp/evil"),
    "a pair id with a line break": _pairs(pair_id="a\nb"),
    "a pair id of 1 MB": _pairs(pair_id="x" * 1_000_000),
    "a setting with ..": _pairs(setting="../../evil"),
    "a setting called board": _pairs(setting="board"),
    "a setting that is an absolute path in CSV": _pairs(".csv", setting="/tmp/evil"),
    "a clip id with ..": _pairs(driving_clip="../x"),
    "a pool with an absolute clip id": _pairs(emotion_audio=("/etc/passwd",)),
    "a negative frame": _pairs(reference_frames=(-1,)),
    "no reference frame": _pairs(reference_frames=()),
    "a negative seed": _pairs(seed=-1),
    "no speaker": _pairs(speaker=None),
    "a speaker with a terminal escape": _pairs(speaker="a\x1b[2J"),
    "an unknown part that is visible": _pairs(visible="everything"),
    "a seed that is text": _pair_types,
    "a missing column": _pair_columns,
    "metadata that is a list": _pair_metadata,
    "a pair twice": _twice,
    "text instead of a list": _bytes(b"no"),
}


def _generation(**values: object) -> Callable[[Path], None]:
    """A generation record with these values and a right digest."""

    def write(path: Path) -> None:
        timing = Timing(1.0, 0.1, True, "a processor", 1)
        write_record(path, GenerationRecord("one", "1", 10, "key", "p", "h264", 10, "0" * 64, [], timing))
        write_sealed_json(path, read_sealed_json(path, "") | values)

    return write


RECORDS: Mapping[str, Callable[[Path], None]] = {
    "a method with ..": _generation(method="../../X"),
    "a revision that is a formula": _generation(revision="=1+1"),
    "hardware with an absolute path": _generation(
        timing={"seconds": 1.0, "reading": 0.1, "warm": True, "hardware": "/home/me/x", "workers": 1}
    ),
    "a negative number of frames": _generation(n_frames=-1),
    "notes that are numbers": _generation(notes=[1, 2]),
    "a hash that is none": _generation(video_sha256="x"),
    "text instead of JSON": _bytes(b"no"),
    "JSON without a digest": _bytes(b'{"method": "one"}'),
    "JSON that is nested deeply": _bytes(b"[" * 100_000),
}


def tries(world: Path) -> Iterator[tuple[str, str, Callable[[Path], None], Path, list[str]]]:
    """(kind, form, function that writes the forged file, its path, the command) of every try in the folder `world`."""
    results, out = world / "run" / "results", world / "run" / "out"
    commands = {
        "leaderboard": ["leaderboard", "--run", str(results), "--out", str(out), "--gallery", "0"],
        "compare": ["compare", "one", "two", "--run", str(results), "--out", str(out)],
        "verify": ["verify", "--run", str(results), "--videos", str(world / "videos"), "--data", str(world / "data")],
        "report": ["report", "confusion", "--run", str(world / "run"), "--out", str(out)],
    }
    for form, forge in ROWS.items():
        for name, command in commands.items():
            yield f"rows, {name}", form, forge, results / "forged.parquet", command
    for form, forge in PAIRS.items():
        path = world / ("forged.csv" if "CSV" in form else "forged.parquet")
        command = ["score", "--videos", str(world / "videos"), "--pairs", str(path), "--data", str(world / "data")]
        yield "pairs, score", form, forge, path, [*command, "--method-name", "x", "--out", str(out)]
    for form, forge in RECORDS.items():
        path = world / "run" / "records" / "one" / "s" / "forged.json"
        yield "records, report", form, forge, path, ["report", "aitv", "--run", str(world / "run"), "--out", str(out)]


def attempt(
    tally: Tally, world: Path, one: tuple[str, str, Callable[[Path], None], Path, list[str]], go: Runner
) -> None:
    """Writes one forged file, runs the command, and counts what went wrong.

    Faults are a status of 0, a message without the file's name or of several lines, and a changed or new file other
    than the command's log.
    """
    kind, form, forge, path, command = one
    for folder in (world / "videos", world / "data", world / "run" / "results", path.parent):
        folder.mkdir(parents=True, exist_ok=True)
    (world / "data" / "dataset.json").write_text("{}")  # looks like a shard set, so that the forged file is read
    good = world / "run" / "results" / "good.parquet"
    write_rows(good, rows()[:3])
    write_rows(good.with_name("good2.parquet"), rows()[3:])
    forge(path)
    before = _tree(world)
    ended = go(command, world)
    tally.add(ended, form)
    if ended.status == 0:
        tally.fault("silently_wrong", f"{kind}: {form}: accepted")
    elif "forged." not in ended.text or len(ended.text.strip().splitlines()) != 1:
        tally.fault("silently_wrong", f"{kind}: {form}: {ended.text.strip()[:300]}")
    if changed := {name for name, data in _tree(world).items() if before.get(name) != data}:
        tally.fault("silently_wrong", f"{kind}: {form}: wrote {sorted(changed)}")
    path.unlink(missing_ok=True)


def _tree(world: Path) -> dict[str, bytes]:
    files = (path for path in world.rglob("*") if path.is_file() and path.suffix != ".log")
    return {str(path.relative_to(world)): path.read_bytes() for path in files}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as name:
        world = Path(name) / "deep" / "world"
        every = list(tries(world))
        random.Random(args.seed).shuffle(every)
        for one in every[: args.tries]:
            attempt(tallies.setdefault(one[0], Tally(one[0])), world, one, lambda command, at: run(command, at, 120.0))
    return report(list(tallies.values()))


if __name__ == "__main__":
    raise SystemExit(main())
