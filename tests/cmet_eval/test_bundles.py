"""Bundles by the real command: honest ones pass and give the same bytes; every forged one is refused by its name."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmet_eval import cli
from cmet_eval.bundles.form import Fault
from cmet_eval.bundles.sample import sample_of
from cmet_eval.bundles.writing import Source, write_bundle
from cmet_eval.protocol.draw import Draw
from cmet_eval.protocol.pair_files import read_pairs, write_pairs
from cmet_eval.protocol.pairs import pair_file_name
from cmet_eval.runs import evaluate
from cmet_eval.runs.metrics import Scoring
from cmet_eval.runs.submissions import from_elsewhere
from cmet_leaderboards.results import read_results
from cmet_leaderboards.standing import read_standing
from cmet_metrics.registry import get_metric
from cmet_pipelines.shards import CARD, CLIPS
from talking_face.clip import Pair
from talking_face.execution.options import RunOptions
from talking_face.files import sha256_of
from talking_face.pretrained.evaluator_networks import build_emotion
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.trained_evaluators import FILES, TrainedOn, save
from talking_face.sealed import read_sealed_table, write_sealed_json, write_sealed_table

METRICS = ("psnr:frame-mean", "ssim:wang2004")
Edit = Callable[[Path], None]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def done(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with 12 pairs of neutral-base: two methods of the suite, and the videos of one again as `mine`."""
    out = tmp_path_factory.mktemp("run")
    scoring, options = Scoring(METRICS), RunOptions(workers=0, quiet=True)
    methods, settings = ("static-reference", "source-video"), ("neutral-base",)
    evaluate.run(methods, settings, data=shards, out=out, draw=Draw(seeds=1), scoring=scoring, options=options)
    (out / "videos" / "mine").mkdir()
    for number, path in enumerate(sorted((out / "videos" / "static-reference").rglob("*.mp4"))):
        target = out / "videos" / "mine" / "neutral-base" / path.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes() + bytes(number + 1))  # another SHA-256 of every video, the same picture
    method = {"name": "mine", "revision": "1", "title": "Mine", "role": "method", "summary": "A test.", "sees": []}
    pairs = read_pairs(out / "pairs" / "neutral-base.parquet")
    submission = from_elsewhere(out / "videos" / "mine" / "neutral-base", pairs, method)
    evaluate.score(submission, data=shards, out=out, scoring=scoring, options=options)
    return out


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def main(*words: str | Path) -> tuple[int, str, str]:
        """Exit status, standard output and standard error of the command."""
        monkeypatch.setattr(sys, "argv", ["cmet-eval", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return main


@pytest.fixture(scope="module")
def honest(done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest bundle, as `cmet-eval submit` writes it into a folder."""
    out = tmp_path_factory.mktemp("bundle") / "mine"
    lists = sorted((done / "pairs").glob("*.parquet"))
    source = Source(read_results(done / "results"), lists, done / "videos", ModelFiles())
    return write_bundle(source, ("mine", "1"), out)


@pytest.fixture
def bundle(honest: Path, tmp_path: Path) -> Path:
    """A copy of an honest bundle."""
    return Path(shutil.copytree(honest, tmp_path / "mine"))


# -- forging -----------------------------------------------------------------------------------------------------------


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "bundle.json").read_text())
    return found


def sealed(folder: Path, change: Callable[[dict[str, Any]], None] = lambda value: None) -> None:
    """Writes the manifest with right hashes and a right digest, as a forger would."""
    value = manifest(folder)
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "bundle.json")
    value["files"] = {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(paths)}
    change(value)
    write_sealed_json(folder / "bundle.json", value, indent=1)


def field(change: Callable[[dict[str, Any]], None]) -> Edit:
    return lambda folder: sealed(folder, change)


def cells(name: str, change: Callable[[list[dict[str, str]]], None]) -> Edit:
    """An edit of the rows of a CSV file of the first table."""

    def edit(folder: Path) -> None:
        path = folder / "tables" / "01" / name
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        change(rows)
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(buffer.getvalue())
        sealed(folder)

    return edit


def value_of_row(text: str, row: int = -1, reason: str = "") -> Edit:
    return cells("values.csv", lambda rows: rows[row].update(value=text, reason=reason))


def sampled(folder: Path) -> tuple[str, Path]:
    """The pair of the sample, and its video."""
    videos = csv.DictReader(io.StringIO((folder / "tables/01/videos.csv").read_text()))
    pairs = read_pairs(folder / "tables/01/pairs.csv")
    (pair,) = sample_of(pairs, [row["pair"] for row in videos])
    return pair, folder / "tables/01/sample" / f"{pair_file_name(pair)}.mp4"


def edit_value_of_the_sample(folder: Path) -> None:
    pair, _ = sampled(folder)

    def change(rows: list[dict[str, str]]) -> None:
        row = next(row for row in rows if row["pair"] == pair and row["value"])
        row["value"] = repr(float(row["value"]) + 1e-3)

    cells("values.csv", change)(folder)


def swap_video(folder: Path) -> None:
    _, video = sampled(folder)
    video.write_bytes(video.read_bytes() + b"\0")
    sealed(folder)


def swap_video_unsealed(folder: Path) -> None:
    _, video = sampled(folder)
    video.write_bytes(video.read_bytes() + b"\0")


def remove_video(folder: Path) -> None:
    sampled(folder)[1].unlink()
    sealed(folder)


def add_video(folder: Path) -> None:
    video = sampled(folder)[1]
    shutil.copy(video, video.with_name("another.mp4"))
    sealed(folder)


def another_sample(folder: Path) -> None:
    video = sampled(folder)[1]
    video.rename(video.with_name("another.mp4"))
    sealed(folder)


def with_pairs(change: Callable[[Any], Any], **key: str) -> Edit:
    """Replaces the pair list, and the fields of the table's key that follow from it."""

    def edit(folder: Path) -> None:
        path = folder / "tables/01/pairs.csv"
        changed = change(read_pairs(path))
        write_pairs(changed, path)
        keys = {"pairs_digest": changed.digest, **key}
        sealed(folder, lambda value: value["tables"][0]["key"].update(keys))

    return edit


def chosen_pairs(folder: Path) -> None:
    """Leaves out the pairs with the lowest values, as someone would who chooses the pairs after the scores."""
    kept: list[Pair] = []

    def some(pairs: Any) -> Any:
        kept.extend(pairs.pairs[2:])
        return replace(pairs, pairs=tuple(kept))

    with_pairs(some)(folder)
    ids = {pair.pair_id for pair in kept}
    for name in ("values.csv", "videos.csv"):
        cells(name, lambda rows: rows.__setitem__(slice(None), [row for row in rows if row["pair"] in ids]))(folder)
    shutil.rmtree(folder / "tables/01/sample")
    _, video = sampled(folder)
    video.parent.mkdir()
    done = next(path for path in (folder.parent, *folder.parents) if (path / "run").is_symlink()) / "run"
    shutil.copy(done / "videos/mine/neutral-base" / video.name, video)
    sealed(folder)


def make_link(folder: Path) -> None:
    path = folder / "tables/01/values.csv"
    path.rename(folder.parent / "values.csv")
    path.symlink_to(folder.parent / "values.csv")


def make_fifo(folder: Path) -> None:
    path = folder / "tables/01/values.csv"
    path.unlink()
    os.mkfifo(path)


def large_file(folder: Path) -> None:
    with sampled(folder)[1].open("r+b") as file:
        file.truncate(300 << 20)


def many_files(folder: Path) -> None:
    for number in range(20_001):
        (folder / "tables/01/sample" / f"{number}.mp4").touch()


def write(name: str, data: bytes = b"") -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return edit


def set_table(name: str, text: str) -> Edit:
    return field(lambda value: value["tables"][0]["key"].update({name: text}))


def set_metric(**facts: object) -> Edit:
    return field(lambda value: value["tables"][0]["metrics"][0].update(facts))


def set_method(**facts: object) -> Edit:
    return field(lambda value: value["method"].update(facts))


def second_table(folder: Path) -> None:
    shutil.copytree(folder / "tables/01", folder / "tables/02")
    sealed(folder, lambda value: value["tables"].append(value["tables"][0]))


def second_metric(folder: Path) -> None:
    sealed(folder, lambda value: value["tables"][0]["metrics"].append(value["tables"][0]["metrics"][0]))


def two_titles(folder: Path) -> None:
    """A reviewer reads the first title, and a program the second one."""
    path = folder / "bundle.json"
    path.write_text(path.read_text().replace('"title": "Mine"', '"title": "Reviewed",\n  "title": "Mine"'))


def deep(value: dict[str, Any]) -> None:
    for _ in range(400):
        value["method"] = {"name": value["method"]}


FORGED: list[tuple[str, Fault, Edit]] = [
    ("a video after the bundle was written", Fault.SWAPPED_VIDEO, swap_video_unsealed),
    ("a video that was not scored", Fault.SWAPPED_VIDEO, swap_video),
    ("no video of the sample", Fault.ABSENT_VIDEO, remove_video),
    ("a listed video that is not there", Fault.ABSENT_VIDEO, lambda folder: sampled(folder)[1].unlink()),
    ("a video more", Fault.EXTRA_VIDEO, add_video),
    ("an unlisted video more", Fault.EXTRA_VIDEO, write("tables/01/sample/another.mp4")),
    ("the video of another pair", Fault.OTHER_SAMPLE, another_sample),
    ("a text that was edited by hand", Fault.CHANGED_FILE, write("tables/01/values.csv", b"pair\n")),
    ("a manifest that was edited by hand", Fault.CHANGED_FILE, write("bundle.json", b'{"format": "x", "sha256": "0"}')),
    ("a manifest that is not JSON", Fault.CHANGED_FILE, write("bundle.json", b"[" * 100_000)),
    ("an environment that was edited by hand", Fault.CHANGED_FILE, lambda f: (f / "bundle.json").write_text(
        (f / "bundle.json").read_text().replace('"python": "3', '"python": "2'))),
    ("an environment without NumPy", Fault.EDITED_ENVIRONMENT, field(lambda v: v["environment"].update(packages={}))),
    ("an unknown package", Fault.EDITED_ENVIRONMENT, field(lambda v: v["environment"]["packages"].update(evil="1"))),
    ("a version that is none", Fault.EDITED_ENVIRONMENT, field(lambda v: v["environment"]["packages"].update(av="x"))),
    ("a later format", Fault.FUTURE_FORMAT, field(lambda value: value.update(format="cmet-eval-bundle-2"))),
    ("another format", Fault.NOT_A_BUNDLE, field(lambda value: value.update(format="zip"))),
    ("a bundle of another version", Fault.OTHER_VERSION, field(lambda v: v["environment"].update(suite="9.9"))),
    ("rows of another version", Fault.OTHER_VERSION, set_table("suite_version", "9.9")),
    ("a script as title", Fault.HTML, set_method(title="<script>alert(1)</script>")),
    ("an image as revision", Fault.HTML, set_method(revision="<img src=x>")),
    ("a script in the notes", Fault.HTML, cells("values.csv", lambda rows: rows[0].update(notes="<b>"))),
    ("a script as codec", Fault.HTML, cells("videos.csv", lambda rows: rows[0].update(codec="<svg onload=x>"))),
    ("a summary of a megabyte", Fault.LONG_TEXT, set_method(summary="a" * 1_000_000)),
    ("a detail of a megabyte", Fault.BAD_FIELD, cells("values.csv", lambda r: r[0].update(detail="a" * 1_000_000))),
    ("a long detail", Fault.LONG_TEXT, cells("values.csv", lambda rows: rows[0].update(detail="a" * 2000))),
    ("a field more", Fault.BAD_FIELD, field(lambda value: value.update(winner=True))),
    ("fields in fields", Fault.BAD_FIELD, field(deep)),
    ("control characters", Fault.BAD_FIELD, set_method(summary="a\x1b[31m")),
    ("a method that is a path", Fault.BAD_FIELD, set_method(name="../mine")),
    ("a ceiling, which has no rank", Fault.FOREIGN_METHOD, set_method(role="ceiling")),
    ("a title that looks like another one", Fault.FOREIGN_METHOD, set_method(title="GROUND  Truth.")),
    ("the title of another method", Fault.FOREIGN_METHOD, set_method(title="Ground truth")),
    ("a published method", Fault.FOREIGN_METHOD, set_method(name="cmet-published")),
    ("other inputs than the catalogue's", Fault.FOREIGN_METHOD, set_method(name="retrieval", title="Retrieval")),
    ("an unknown setting", Fault.FOREIGN_SETTING, set_table("setting", "easy")),
    ("other rules", Fault.FOREIGN_SETTING, set_table("rules", "00000000")),
    ("the rows of another list", Fault.FOREIGN_PAIRS, set_table("pairs_digest", "0" * 16)),
    ("a list that is none", Fault.FOREIGN_PAIRS, lambda f: [write("tables/01/pairs.csv", b"x")(f), sealed(f)][0]),
    ("pairs that were chosen", Fault.FOREIGN_PAIRS, chosen_pairs),
    ("pairs of the training split", Fault.TRAINING_CLIPS, with_pairs(lambda pairs: replace(pairs, split="train"))),
    ("pairs of all splits", Fault.TRAINING_CLIPS, with_pairs(lambda pairs: replace(pairs, split="all"))),
    ("rows of other data than the pairs", Fault.OTHER_DATA, set_table("data_digest", "e" * 32)),
    ("other data", Fault.OTHER_DATA, with_pairs(lambda p: replace(p, data_digest="e" * 32), data_digest="e" * 32)),
    ("drawn data as recorded", Fault.OTHER_DATA, set_table("origin", "recorded")),
    ("an origin that there is not", Fault.BAD_FIELD, set_table("origin", "real")),
    ("another name of the data", Fault.OTHER_DATA, set_table("dataset", "mead")),
    ("the same table twice", Fault.DUPLICATE_TABLE, second_table),
    ("the same row twice", Fault.DUPLICATE_PAIR, cells("values.csv", lambda rows: rows.append(rows[0]))),
    ("the same video twice", Fault.DUPLICATE_PAIR, cells("videos.csv", lambda rows: rows.append(rows[0]))),
    ("a row less", Fault.ABSENT_PAIR, cells("values.csv", lambda rows: rows.pop(3) and None)),
    ("a video less", Fault.ABSENT_PAIR, cells("videos.csv", lambda rows: rows.pop(3) and None)),
    ("a pair of no list", Fault.UNKNOWN_PAIR, cells("values.csv", lambda rows: rows[0].update(pair="x/y"))),
    ("a metric of no number", Fault.UNKNOWN_METRIC, cells("values.csv", lambda rows: rows[0].update(metric="99"))),
    ("a metric that there is not", Fault.UNKNOWN_METRIC, set_metric(metric="psnr:best")),
    ("code as metric", Fault.UNKNOWN_METRIC, set_metric(metric="os:System")),
    ("the same metric twice", Fault.DUPLICATE_METRIC, second_metric),
    ("another direction", Fault.EDITED_METRIC, set_metric(higher_is_better=False)),
    ("another ideal value", Fault.EDITED_METRIC, set_metric(ideal=5.0)),
    ("a metric of the other profile", Fault.FOREIGN_METRIC, set_table("profile", "best")),
    ("another signature", Fault.FOREIGN_SIGNATURE, set_metric(signature="psnr|variant:frame-mean|version:1.0.0")),
    ("a video without SHA-256", Fault.NO_HASH, cells("videos.csv", lambda r: r[0].update(sha256="", suffix=""))),
    ("a SHA-256 that is none", Fault.NO_HASH, cells("videos.csv", lambda rows: rows[0].update(sha256="x" * 64))),
    ("not a number", Fault.NOT_FINITE, value_of_row("nan")),
    ("an infinite value", Fault.NOT_FINITE, value_of_row("inf")),
    ("a value that is infinite when it is read", Fault.NOT_FINITE, value_of_row("1e999")),
    ("a similarity of 1.5", Fault.OUT_OF_RANGE, value_of_row("1.5")),
    ("a negative number of decibels", Fault.OUT_OF_RANGE, value_of_row("-3.0", 0)),
    ("a word as value", Fault.BAD_FIELD, value_of_row("best")),
    ("a value and a reason", Fault.VALUE_OR_REASON, value_of_row("0.5", reason="silent")),
    ("neither value nor reason", Fault.VALUE_OR_REASON, value_of_row("")),
    ("an unknown reason", Fault.VALUE_OR_REASON, value_of_row("", reason="bad-luck")),
    ("a value that is left out", Fault.TRAINED_ON, value_of_row("", reason="trained-on")),
    ("a value in other digits", Fault.NOT_CANONICAL, cells("values.csv", lambda r: r[-1].update(n="0" + r[-1]["n"]))),
    ("rows in another order", Fault.NOT_CANONICAL, cells("videos.csv", lambda rows: rows.reverse())),
    ("two titles in one record", Fault.NOT_CANONICAL, two_titles),
    ("a score without its model file", Fault.NO_WEIGHTS, value_of_row("", reason="missing-weights")),
    ("an edited value", Fault.EDITED_VALUE, edit_value_of_the_sample),
    ("a link", Fault.LINK, make_link),
    ("a pipe", Fault.LINK, make_fifo),
    ("a pickle", Fault.EXTRA_FILE, write("tables/01/model.pkl", b"cos\nsystem\n(S'true'\ntR.")),
    ("a listed file of no table", Fault.EXTRA_FILE, lambda f: [write("tables/07/pairs.csv")(f), sealed(f)][0]),
    ("a name that is not ASCII", Fault.BAD_PATH, write("tables/01/sample/a\u202egpj.mp4")),
    ("a name with a backslash", Fault.BAD_PATH, write("tables\\..\\..\\x")),
    ("no pair list", Fault.ABSENT_FILE, lambda folder: (folder / "tables/01/pairs.csv").unlink()),
    ("too many files", Fault.TOO_MANY_FILES, many_files),
    ("a video of 300 MiB", Fault.TOO_LARGE, large_file),
]  # fmt: skip


@pytest.mark.parametrize("name, fault, edit", FORGED, ids=[name for name, *_ in FORGED])
def test_a_forged_bundle_is_refused_by_name(
    name: str, fault: Fault, edit: Edit, bundle: Path, done: Path, shards: Path, run: Run
) -> None:
    (bundle.parent / "run").symlink_to(done)
    edit(bundle)
    status, out, err = run("verify", bundle, "--data", shards, "--workers", "0", "--quiet")
    assert (status, err.count("\n")) == (1, 1), (out, err)
    assert f"is refused, {fault.value}: " in err


def packed(folder: Path, target: Path, **more: tuple[zipfile.ZipInfo, bytes]) -> Path:
    """The files of a bundle in a zip file of Python's own, with further members."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(folder))
        for info, data in more.values():
            archive.writestr(info, data)
    return target


def link_info() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("tables/01/sample/link.mp4")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def compressed_info() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("tables/01/sample/bomb.mp4")
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


ZIPPED: list[tuple[Fault, zipfile.ZipInfo, bytes]] = [
    (Fault.BAD_PATH, zipfile.ZipInfo("../../evil.py"), b""),
    (Fault.BAD_PATH, zipfile.ZipInfo("/etc/passwd"), b""),
    (Fault.BAD_PATH, zipfile.ZipInfo("C:\\evil.py"), b""),
    (Fault.LINK, link_info(), b"/etc/passwd"),
    (Fault.TOO_LARGE, compressed_info(), bytes(50_000_000)),  # 48 kB in the file
    (Fault.NOT_CANONICAL, zipfile.ZipInfo("bundle.json"), b"{}"),  # a second file of this name
    (Fault.NOT_CANONICAL, zipfile.ZipInfo("tables/01/sample/last.mp4", (2026, 1, 1, 0, 0, 0)), b""),
]


@pytest.mark.parametrize("fault, info, data", ZIPPED, ids=[f"{fault}-{info.filename}" for fault, info, _ in ZIPPED])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_forged_zip_file_is_refused_by_name(
    fault: Fault, info: zipfile.ZipInfo, data: bytes, bundle: Path, tmp_path: Path, run: Run
) -> None:
    path = packed(bundle, tmp_path / "b.zip", more=(info, data))
    status, _, err = run("verify", path)
    assert (status, err.count("\n")) == (1, 1) and f"is refused, {fault.value}: " in err
    assert not (tmp_path.parent / "evil.py").exists()


def test_other_zip_files_are_refused(bundle: Path, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "b.zip"
    for data, fault in (
        (b"no zip file", Fault.NOT_A_BUNDLE),
        (packed(bundle, path).read_bytes()[:-1], Fault.NOT_A_BUNDLE),  # cut
        (packed(bundle, path).read_bytes() + b"x", Fault.NOT_A_BUNDLE),  # more after its end
        (b"#!/bin/sh\n" + packed(bundle, path).read_bytes(), Fault.NOT_CANONICAL),  # also a script
    ):
        path.write_bytes(data)
        status, _, err = run("verify", path)
        assert (status, err.count("\n")) == (1, 1) and f"is refused, {fault.value}: " in err, (fault, err)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20_001):
            archive.writestr(f"tables/01/sample/{number}.mp4", b"")
    assert f"is refused, {Fault.TOO_MANY_FILES.value}: " in run("verify", path)[2]
    (tmp_path / "empty").mkdir()
    assert f"is refused, {Fault.NOT_A_BUNDLE.value}: " in run("verify", tmp_path / "empty")[2]


# -- against a board, and with other data ------------------------------------------------------------------------------


def test_a_method_of_the_board_is_refused_and_rows_are_merged_once(
    bundle: Path, done: Path, shards: Path, tmp_path: Path, run: Run
) -> None:
    board = tmp_path / "board"
    board.mkdir()
    words = ("verify", bundle, "--data", shards, "--board", board, "--workers", "0", "--quiet")
    assert run(*words[:4], "--merge")[0] == 2 and not any(board.iterdir())  # without a board
    status, out, _ = run(*words, "--merge")
    assert status == 0 and "merged: " in out
    own = read_results(next((done / "results").rglob("mine@1*"))).frame().drop(columns="value")
    merged = read_standing(board).frame()
    assert merged.drop(columns="value").equals(own) and len(own) == 48
    status, _, err = run(*words, "--merge")
    assert status == 1 and f"is refused, {Fault.DUPLICATE_METHOD.value}: " in err
    set_method(revision="2")(bundle)
    assert "mine @ 2" in run(*words)[1]
    set_method(revision="2", name="theirs")(bundle)
    assert f"is refused, {Fault.FOREIGN_METHOD.value}: 'Mine' is the title of mine" in run(*words)[2]
    set_method(title="Theirs")(bundle)
    assert f"is refused, {Fault.COPIED_VIDEOS.value}: " in run(*words)[2]


def shard_set(shards: Path, target: Path, split: dict[str, str]) -> Path:
    """A copy of the shard set in which some clips have another split."""
    shutil.copytree(shards, target)
    table = read_sealed_table(target / CLIPS, "")
    names = [
        split.get(clip, old) for clip, old in zip(*(table[n].to_pylist() for n in ("clip_id", "split")), strict=True)
    ]
    place = table.schema.get_field_index("split")
    write_sealed_table(table.set_column(place, table.schema.field("split"), pa.array(names)), target / CLIPS)
    assert (target / CARD).is_file()
    return target


def test_clips_of_the_training_split_are_refused(bundle: Path, shards: Path, tmp_path: Path, run: Run) -> None:
    pair = read_pairs(bundle / "tables/01/pairs.csv").pairs[0]
    data = shard_set(shards, tmp_path / "data", {pair.driving_clip: "train"})
    status, _, err = run("verify", bundle, "--data", data)
    assert status == 1 and f"is refused, {Fault.TRAINING_CLIPS.value}: {pair.pair_id} has" in err


def evaluator(data: Path, clips: tuple[str, ...], seed: int) -> ModelFiles:
    """Writes an emotion classifier that claims to have been trained on these clips."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(seed)
    labels = ("happy", "neutral", "sad")
    record = TrainedOn("emotion", "d" * 32, clips, (), seed, labels)
    save(data / "evaluators" / FILES["emotion"], build_emotion(len(labels)).state_dict(), record)
    return ModelFiles(evaluators=(data / "evaluators",))


def with_corpus_metric(folder: Path, files: ModelFiles) -> None:
    """Adds the metric `ea:corpus` with rows that have a reason."""
    from cmet_eval.runs.submissions import RULES

    metric = get_metric("ea:corpus", files)
    count = len(manifest(folder)["tables"][0]["metrics"])
    pairs = [pair.pair_id for pair in read_pairs(folder / "tables/01/pairs.csv").pairs]
    rest = {"value": "", "reason": "no-face", "detail": "", "n": "0", "stats": "", "notes": ""}
    new = [{"pair": pair, "metric": str(count), **rest} for pair in pairs]
    cells("values.csv", lambda rows: rows.extend(new))(folder)
    facts = {"metric": metric.key, "signature": RULES.signature(metric), "higher_is_better": True}
    facts |= {"ideal": None, "unit": metric.unit}
    sealed(folder, lambda value: value["tables"][0]["metrics"].append(facts))


def test_evaluators_that_know_the_clips_or_are_others_than_the_boards_are_refused(
    bundle: Path, shards: Path, tmp_path: Path, run: Run
) -> None:
    data, honest = shutil.copytree(shards, tmp_path / "data"), shutil.copytree(bundle, tmp_path / "honest")
    clip = read_pairs(bundle / "tables/01/pairs.csv").pairs[0].driving_clip
    with_corpus_metric(bundle, evaluator(data, (clip,), 1))
    words = ("verify", bundle, "--data", data, "--workers", "0", "--quiet")
    assert f"is refused, {Fault.TRAINED_ON.value}: the emotion evaluator was trained on {clip}" in run(*words)[2]
    evaluator(data, ("clips/Z/happy/1",), 2)  # another evaluator with the data than the bundle's
    assert f"is refused, {Fault.FOREIGN_SIGNATURE.value}: ea:corpus" in run(*words)[2]
    # Without the data no evaluator is there, so its signature is compared with the board's.
    assert "not checked" in run("verify", bundle)[1]
    with_corpus_metric(honest, ModelFiles(evaluators=(data / "evaluators",)))
    board = tmp_path / "board"
    board.mkdir()
    status, out, err = run("verify", honest, "--data", data, "--board", board, "--merge", "--workers", "0", "--quiet")
    assert status == 0, (out, err)
    set_method(revision="2")(bundle)
    assert f"is refused, {Fault.FOREIGN_SIGNATURE.value}: ea:corpus" in run("verify", bundle, "--board", board)[2]


# -- honest bundles ----------------------------------------------------------------------------------------------------


def test_honest_bundles_pass_and_have_the_same_bytes(done: Path, shards: Path, tmp_path: Path, run: Run) -> None:
    for method in ("mine", "static-reference", "source-video@1"):
        for name in ("a.zip", "b.zip", "folder"):
            status, out, _ = run("submit", done, "--method", method, "--out", tmp_path / method / name)
            assert status == 0 and "check it" in out
        assert (tmp_path / method / "a.zip").read_bytes() == (tmp_path / method / "b.zip").read_bytes()
        for name in ("a.zip", "folder"):
            words = ("verify", tmp_path / method / name, "--data", shards, "--workers", "0", "--quiet")
            status, out, err = run(*words)
            assert (status, err) == (0, "") and "1 of 12 videos, chosen by the digest" in out and "to the bit" in out
    words = ("verify", tmp_path / "mine" / "a.zip", "--data", shards, "--workers", "0", "--quiet")
    status, out, _ = run(*words, "--videos", done / "videos", "--share", "0.5", "--seed", "7")
    assert status == 0 and "6 of 12 videos, drawn with seed 7" in out
    assert "no video was scored again" in run("verify", tmp_path / "mine" / "a.zip")[1]


def test_more_videos_find_a_value_that_the_sample_does_not(bundle: Path, done: Path, shards: Path, run: Run) -> None:
    """A forger who knows the sample edits another pair. Videos that are drawn afterwards show it."""
    pair, _ = sampled(bundle)

    def change(rows: list[dict[str, str]]) -> None:
        row = next(row for row in rows if row["pair"] != pair and row["value"])
        row["value"] = repr(float(row["value"]) + 1.0)

    cells("values.csv", change)(bundle)
    words = ("verify", bundle, "--data", shards, "--workers", "0", "--quiet")
    assert run(*words)[0] == 0
    status, _, err = run(*words, "--videos", done / "videos", "--share", "1")
    assert status == 1 and f"is refused, {Fault.EDITED_VALUE.value}: mine, " in err and err.count("\n") == 1


def test_the_workflow_checks_the_bundles_that_are_new(bundle: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / ".ci" / "bundles"
    for place in ("suite", "proposed"):
        (tmp_path / place / "leaderboards/submissions").mkdir(parents=True)
        shutil.copytree(bundle, tmp_path / place / "leaderboards/submissions/old")
    new = shutil.copytree(bundle, tmp_path / "proposed/leaderboards/submissions/new")
    (new.parent / "link").symlink_to(new)

    def check() -> tuple[int, str]:
        words = [str(script), str(tmp_path / "suite"), str(tmp_path / "proposed")]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PATH": path})
        return done.returncode, done.stdout + done.stderr

    status, text = check()
    assert status == 1 and "submissions/link is refused, link: " in text and "submissions/new is" not in text
    assert "submissions/new" in text and "submissions/old" not in text
    (new.parent / "link").unlink()
    assert check()[0] == 0
    swap_video(new)
    swap_video(new.parent / "old")  # a bundle of the board that the request changes
    status, text = check()
    assert status == 1 and text.count("is refused, swapped-video: ") == 2


def test_the_sample_follows_from_the_pair_list_alone(done: Path) -> None:
    pairs = read_pairs(done / "pairs" / "neutral-base.parquet")
    many = replace(pairs, pairs=tuple(replace(pairs.pairs[0], pair_id=f"a/{i}") for i in range(240)))
    ids = [pair.pair_id for pair in many.pairs]
    chosen = sample_of(many, ids)
    assert len(chosen) == 12 and chosen == sample_of(many, set(reversed(ids)))
    assert set(chosen) != set(sample_of(replace(many, pairs=many.pairs[:-1]), ids[:-1]))
    without = sample_of(many, [pair for pair in ids if pair != chosen[0]])
    assert len(without) == 12 and set(chosen[1:]) < set(without)
    # Every pair is chosen equally often: over many lists, the counts are those of draws at random.
    counts = np.zeros(240)
    for n in range(100):
        other = replace(many, pairs=tuple(replace(pair, seed=n) for pair in many.pairs))
        counts[[ids.index(pair) for pair in sample_of(other, ids)]] += 1
    assert counts.mean() == 5 and 0.7 < counts.var() / (5 * 0.95) < 1.4


def test_what_submit_needs_is_named(done: Path, tmp_path: Path, run: Run) -> None:
    out = ("--out", tmp_path / "x")
    for words, text in (
        ((done, *out), "name one of mine@1, source-video@1, static-reference@1 with --method"),
        ((done, "--method", "min", *out), "--method min fits 0 methods"),
        ((done, "--method", "mine", "--out", tmp_path), "exists; name another --out"),
        ((done, "--method", "mine", "--videos", tmp_path, *out), "name the folder of the scored videos with --videos"),
        ((done / "results", "--method", "mine", "--pairs", "no.parquet", *out), "no file no.parquet"),
    ):
        status, _, err = run("submit", *words)
        assert status == 2 and text in err and err.count("\n") == 1, err
    status, _, err = run("verify", tmp_path / "nothing")
    assert status == 2 and "no folder" in err
    status, _, err = run("verify", done, "--run", done)
    assert status == 2 and "--run is not an option of `cmet-eval verify BUNDLE`" in err


def test_every_fault_has_a_forged_bundle_and_a_line_in_the_docs() -> None:
    elsewhere = {Fault.DUPLICATE_METHOD, Fault.COPIED_VIDEOS}
    assert {fault for _, fault, _ in FORGED} | elsewhere == set(Fault)
    page = (Path(__file__).parents[2] / "docs/how_to/submit.md").read_text()
    assert not [fault.value for fault in Fault if f"| `{fault.value}` |" not in page]


def test_a_score_that_was_left_out_is_not_a_difference(done: Path, shards: Path, tmp_path: Path, run: Run) -> None:
    """Rows with the reason `trained-on` have a score when the video alone is scored again."""
    from cmet_leaderboards.results import write_results
    from cmet_leaderboards.row import ResultRow

    for part in ("videos", "pairs"):
        shutil.copytree(done / part, tmp_path / part)
    path = next((done / "results").rglob("static-reference*"))
    rows = [{**row, "value": None, "reason": "trained-on"} for row in pq.read_table(path).to_pylist()]
    write_results(map(ResultRow.of, rows), tmp_path / "results", {})
    status, out, _ = run("verify", "--run", tmp_path, "--data", shards, "--workers", "0", "--quiet")
    assert status == 0 and "all agree" in out


def test_training_seeds_are_kept_and_not_added_twice(done: Path, shards: Path, tmp_path: Path, run: Run) -> None:
    board = tmp_path / "board"
    board.mkdir()
    words = ("--data", shards, "--board", board, "--merge", "--workers", "0", "--quiet")
    assert run("submit", done, "--method", "mine", "--training-seed", "3", "--out", tmp_path / "a")[0] == 0
    assert run("verify", tmp_path / "a", *words)[0] == 0
    assert [record.method.training_seeds for record in read_standing(board).records] == [(3,)]
    set_method(revision="2")(tmp_path / "a")
    status, _, err = run("verify", tmp_path / "a", *words)
    assert status == 1 and f"is refused, {Fault.DUPLICATE_METHOD.value}: the training seed 3 of mine is there" in err


def test_a_machine_without_the_evaluator_refuses_none(bundle: Path, shards: Path, tmp_path: Path, run: Run) -> None:
    data = shutil.copytree(shards, tmp_path / "data")
    with_corpus_metric(bundle, evaluator(data, ("clips/Z/happy/1",), 2))
    status, _, err = run("verify", bundle, "--data", shards, "--workers", "0", "--quiet")
    assert status == 2 and "corpus_emotion.safetensors" in err and "is refused" not in err


def test_overlapping_files_of_a_zip_are_refused(bundle: Path, tmp_path: Path, run: Run) -> None:
    """Two entries of the list name the same bytes, so that a small zip file becomes a large folder."""
    path = packed(bundle, tmp_path / "b.zip", more=(zipfile.ZipInfo("tables/01/sample/z.mp4"), bytes(100_000)))
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\5\6")
    first = int.from_bytes(data[end + 16 : end + 20], "little")
    last = data.rindex(b"PK\1\2")
    entry = data[last:end]
    data[end:end] = entry.replace(b"z.mp4", b"y.mp4")
    end += len(entry)
    count = int.from_bytes(data[end + 10 : end + 12], "little") + 1
    for place, number, size in ((8, count, 2), (10, count, 2), (12, end - first, 4)):
        data[end + place : end + place + size] = number.to_bytes(size, "little")
    path.write_bytes(data)
    status, _, err = run("verify", path)
    assert status == 1 and f"is refused, {Fault.TOO_LARGE.value}: the files of b.zip overlap" in err
