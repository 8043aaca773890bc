"""Bundles against a board and a shard set: what is there already, training clips, evaluators, and the merge of rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from cmet_eval.bundles.form import Fault
from cmet_eval.protocol.pair_files import read_pairs
from cmet_leaderboards.results import read_results
from cmet_leaderboards.standing import read_standing
from cmet_metrics.registry import get_metric
from cmet_pipelines.shards import CARD, CLIPS
from talking_face.pretrained.evaluator_networks import build_emotion
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.trained_evaluators import FILES, TrainedOn, save
from talking_face.sealed import read_sealed_table, write_sealed_table
from tests.cmet_eval.bundles.forging import Run, cells, manifest, sampled, sealed, set_method


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


def test_a_machine_without_the_evaluator_refuses_none(bundle: Path, shards: Path, tmp_path: Path, run: Run) -> None:
    data = shutil.copytree(shards, tmp_path / "data")
    with_corpus_metric(bundle, evaluator(data, ("clips/Z/happy/1",), 2))
    status, _, err = run("verify", bundle, "--data", shards, "--workers", "0", "--quiet")
    assert status == 2 and "corpus_emotion.safetensors" in err and "is refused" not in err


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
