"""Reports: numbers by hand on small inputs, the pairs that methods have in common, the same bytes twice."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmet_eval.protocol.draw import Draw
from cmet_eval.protocol.pair_files import read_pairs
from cmet_eval.protocol.pairs import pair_file_name
from cmet_eval.reports import emotion_proportion as proportion
from cmet_eval.reports.confusion import confusion_tables
from cmet_eval.reports.emotion_proportion import Selection, emotion_proportion
from cmet_eval.reports.identity_deterioration import identity_deterioration
from cmet_eval.reports.report import Report, write
from cmet_eval.reports.set_fid import dataset_fid
from cmet_eval.reports.times import aitv
from cmet_eval.runs import evaluate
from cmet_eval.runs.metrics import Scoring
from cmet_leaderboards.results import Results, read_results, write_results
from cmet_leaderboards.row import ResultRow
from cmet_metrics import fid
from cmet_metrics.base import Sample, Settings
from cmet_metrics.classifiers import Classifier
from cmet_pipelines.shards import ShardSet
from talking_face.execution.options import RunOptions
from talking_face.media.reading import read_frames
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.reasons import UserError

HERE = RunOptions(workers=0, quiet=True)
KEYS = {"setting": "x", "revision": "1", "dataset": "d", "data_digest": "dd", "data_signature": "s", "rules": "r",
        "pairs_digest": "pp", "profile": "embedded", "suite_version": "1", "unit": "", "higher_is_better": True,
        "notes": "", "codec": "", "video_sha256": "v", "detail": "", "seed": 0, "intensity": None,
        "ground_truth_clip": None, "n": 50}  # fmt: skip


def results(
    folder: Path, method: str, metric: str, pairs: list[tuple[str, str, float | None, dict[str, float]]]
) -> None:
    """Rows of one method: (reference's emotion, target emotion, value, stats), a speaker each."""
    rows: list[dict[str, Any]] = [
        {**KEYS, "method": method, "metric": metric, "signature": f"{metric}|v", "pair_id": f"p{i}", "speaker": f"s{i}",
         "reference_emotion": seen, "target_emotion": meant, "value": value, "stats": stats,
         "reason": None if value is not None else "no-face"}
        for i, (seen, meant, value, stats) in enumerate(pairs)
    ]  # fmt: skip
    write_results(map(ResultRow.of, rows), folder, {"method": {"name": method}})


def table(report: Report) -> list[dict[str, Any]]:
    return [dict(zip(report.head, row, strict=True)) for row in report.rows]


def twice(report: Callable[[], Report], tmp_path: Path) -> str:
    """Writes it twice, compares every byte, returns the Markdown."""
    paths = [write(report(), tmp_path / name) for name in ("one", "two")]
    names = sorted(path.name for path in paths[0].parent.iterdir() if path.is_file())
    assert all((tmp_path / "one" / n).read_bytes() == (tmp_path / "two" / n).read_bytes() for n in names)
    assert any(name.endswith(".png") for name in names) and paths[0].with_suffix(".csv").exists()
    return paths[0].read_text()


class StandIn(Classifier):
    """A classifier of sad and happy that predicts what `rows` returns."""

    name = "t"

    def __init__(self, rows: Callable[[Sample], np.ndarray]) -> None:
        self.rows = rows

    def labels(self, files: ModelFiles) -> tuple[str, ...]:
        return "sad", "happy"

    def settings(self, files: ModelFiles) -> Settings:
        return {}

    def classify(self, sample: Sample, files: ModelFiles) -> np.ndarray:
        return self.rows(sample)


def ea_results(folder: Path) -> Results:
    half, right = {"happy>happy": 0.5, "happy>sad": 0.5}, {"sad>sad": 1.0, "sad>happy": 0.0}
    results(folder, "a", "ea:t", [("sad", "happy", 0.5, half), ("sad", "happy", 0.5, half), ("sad", "sad", 1.0, right)])
    results(folder, "b", "ea:t", [("sad", "happy", 0.5, half), ("sad", "happy", None, {}), ("sad", "sad", 1.0, right)])
    return read_results(folder)


def test_confusion_is_by_hand_and_on_common_pairs(tmp_path: Path) -> None:
    rows = ea_results(tmp_path / "rows")
    found = {(r["method"], r["asked_for"], r["said"]): (r["clips"], r["clips_asked_for"])
             for r in table(confusion_tables(rows))}  # fmt: skip
    # Method b has no value for the second pair, so a is judged without it.
    for method in "ab":
        assert found[method, "happy", "happy"] == (0.5, 1.0) and found[method, "sad", "sad"] == (1.0, 1.0)
    text = twice(lambda: confusion_tables(rows), tmp_path)
    assert "### a @ 1 (2 of 3)" in text and "| all | 2 | 75.0 |" in text  # the mean of 0.5 and 1


def test_identity_deterioration_takes_the_pairs_that_change_the_emotion(tmp_path: Path) -> None:
    values = [("sad", "happy", 0.9, {}), ("angry", "happy", 0.7, {}), ("sad", "sad", 0.1, {})]
    results(tmp_path / "rows", "a", "csim:dlib-ref", values)
    rows = read_results(tmp_path / "rows")
    (row,) = table(identity_deterioration(rows))
    assert row["deterioration"] == pytest.approx(0.2) and (row["n"], row["expected"]) == (2, 2)
    assert row["low"] < 0.2 < row["high"]
    assert "| x | a | 1 | csim:dlib-ref | 0.2 |" in twice(lambda: identity_deterioration(rows), tmp_path)
    with pytest.raises(UserError, match="ea:fer"):
        confusion_tables(rows)


def test_emotion_proportion_pools_frames_and_keeps_what_it_found(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, np.ndarray]] = []

    def classify(sample: Sample) -> np.ndarray:
        assert sample.frames.shape[1:] == (256, 256, 3)
        p = (np.arange(len(sample.frames)) + 1.0) / 20
        rows = np.stack([p, 1 - p], axis=1)
        rows[0] = np.nan  # no face in the first frame
        seen.append((sample.name, rows[1:]))
        return rows

    monkeypatch.setattr(proportion, "classifiers", lambda: {"t": StandIn(classify)})
    make = lambda: emotion_proportion(shards, "t", tmp_path / "kept", Selection(per_label=3), HERE)  # noqa: E731
    text = twice(make, tmp_path)
    assert len(seen) == 3 * 3, "three of each label, and none of them again"
    for row in table(make()):
        rows = np.concatenate([r for name, r in seen if row["label"] in (name.split("/")[2], "all")])
        assert row["frames"] == len(rows) and row["clips"] == row["with a face"] == (9 if row["label"] == "all" else 3)
        assert (row["sad"], row["happy"]) == pytest.approx(tuple(rows.mean(axis=0)))
    assert "47.25% neutral" in text
    with pytest.raises(UserError, match="there are t"):
        emotion_proportion(shards, "fer2", tmp_path)

    def absent(sample: Sample) -> np.ndarray:
        raise MissingWeights("its file is not here")

    monkeypatch.setattr(proportion, "classifiers", lambda: {"t": StandIn(absent)})
    with pytest.raises(UserError, match="its file is not here"):
        emotion_proportion(shards, "t", tmp_path / "other", Selection(per_label=1), HERE)


def test_fid_over_a_set(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With eight features a frame in the place of Inception's: those are tested in tests/metrics; 2048 take 10 s."""
    run, methods = tmp_path / "run", ("ground-truth", "static-reference")
    evaluate.run(
        methods,
        ["neutral-base"],
        data=shards,
        out=run,
        draw=Draw(seeds=1, max_pairs=6),
        scoring=Scoring(["psnr"]),
        options=HERE,
    )
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CMET_EVAL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingWeights, match="Inception"):
        dataset_fid(run, shards, HERE)
    (tmp_path / "pt_inception-2015-12-05-6726825d.pth").write_bytes(b"a file")

    def eight(frames: np.ndarray) -> np.ndarray:
        return frames.reshape(len(frames), 8, -1).astype(np.float64).mean(axis=2)

    monkeypatch.setattr(fid, "inception_features", lambda sample, files: eight(sample.frames))
    rows = {row["method"]: row for row in table(dataset_fid(run, shards, HERE))}
    pairs, data = read_pairs(run / "pairs" / "neutral-base.parquet").pairs, ShardSet(shards)
    real = np.concatenate([eight(data.frames(str(pair.ground_truth_clip))) for pair in pairs])
    for method in methods:
        files = [run / "videos" / method / "neutral-base" / f"{pair_file_name(p.pair_id)}.mp4" for p in pairs]
        ours = np.concatenate([eight(read_frames(path)) for path in files])
        assert rows[method]["fid"] == pytest.approx(fid.frechet_distance_of(ours, real), rel=1e-3, abs=1e-3)
        assert (rows[method]["n"], rows[method]["frames"], rows[method]["compared"]) == (6, len(ours), True)
    assert rows["ground-truth"]["fid"] < 0.1 * rows["static-reference"]["fid"]
    # A video that is gone takes its pair out of every method's set; features are kept.
    monkeypatch.setattr(fid, "inception_features", lambda sample, files: pytest.fail("found before"))
    files[0].unlink()
    again = table(dataset_fid(run, shards, HERE))
    assert {(row["n"], row["expected"]) for row in again} == {(5, 6)}


def test_aitv_is_written(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no times"):
        aitv(tmp_path)
    evaluate.run(
        ["static-reference"],
        ["neutral-base"],
        data=shards,
        out=tmp_path,
        draw=Draw(seeds=1, max_pairs=2),
        scoring=Scoring(["psnr"]),
        options=HERE,
    )
    path = write(aitv(tmp_path), tmp_path / "reports")
    (row,) = csv.DictReader(path.with_suffix(".csv").read_text().splitlines())
    assert row["method"] == "static-reference" and "cores" in row["hardware"] and float(row["cmet_s"]) > 0
