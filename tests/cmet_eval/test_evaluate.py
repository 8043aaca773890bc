"""The evaluation run on real files: ceiling and floors, resuming, submissions, and every failure as a row."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cmet_eval.protocol.draw import Draw, draw_pairs
from cmet_eval.protocol.pair_files import read_pairs
from cmet_eval.protocol.pairs import pair_file_name
from cmet_eval.protocol.setting import get_setting
from cmet_eval.runs import evaluate
from cmet_eval.runs.export import export_pairs
from cmet_eval.runs.generate import WRITER
from cmet_eval.runs.metrics import Scoring
from cmet_eval.runs.submissions import from_elsewhere
from cmet_leaderboards.board import build
from cmet_leaderboards.results import read_results
from cmet_leaderboards.tables import build_tables
from cmet_pipelines.shards import ShardSet
from talking_face.execution.options import RunOptions
from talking_face.media.reading import probe, read_audio, read_frames
from talking_face.media.writing import Encoding, write_video
from talking_face.reasons import UserError

T, SIZE = 12, 64  # of the shard set in conftest.py
METHODS = ("ground-truth", "static-reference", "source-video")
METRICS = ("psnr:frame-mean", "ssim:wang2004")


@pytest.fixture(scope="module")
def done(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the three methods in both settings, by a worker process."""
    out = tmp_path_factory.mktemp("run")
    summary = evaluate.run(
        METHODS,
        data=shards,
        out=out,
        draw=Draw(seeds=1),
        scoring=Scoring(METRICS),
        options=RunOptions(workers=1, quiet=True),
    )
    assert (summary.pairs, summary.generated, summary.kept, summary.lost) == (12 + 24, 36 * 3, 0, {})
    # Ground truth does not depend on the setting: 12 different videos, scored once.
    assert summary.scores.scored < 36 * 3 - 20
    return out


def test_ground_truth_is_the_ceiling_and_every_pair_is_there(done: Path) -> None:
    for table in build_tables(read_results(done / "results")):
        assert table.pairs == (12 if table.key["setting"] == "neutral-base" else 24)
        ceiling = table.rows[0]
        assert ceiling.method == "ground-truth" and ceiling.role == "ceiling"
        for i in range(len(METRICS)):
            top = ceiling.cells[i]
            assert top and top.interval and top.scored == top.expected == table.pairs and not top.best
            for row in table.rows[1:]:
                cell = row.cells[i]
                assert cell and cell.interval and cell.interval.high < top.interval.low
    assert build(done / "results", done / "board").exists()


def test_videos_are_what_the_methods_say_with_the_driving_sound(done: Path, shards: Path) -> None:
    data = ShardSet(shards)
    for pair in read_pairs(done / "pairs" / "neutral-base.parquet").pairs[:4]:
        path = done / "videos" / "static-reference" / "neutral-base" / f"{pair_file_name(pair.pair_id)}.mp4"
        frames = read_frames(path)
        wanted = data.frames(pair.reference_clip, [pair.reference_frames[0]])[0]
        n = int(data.clips.set_index("clip_id").at[pair.driving_clip, "n_frames"])
        assert frames.shape == (n, SIZE, SIZE, 3)
        assert np.abs(frames.astype(int) - wanted).mean() < 2
        info = probe(path)
        assert info.video and (info.video.codec, info.video.pix_fmt, info.video.fps) == ("h264", "yuv444p", 25)
        heard, meant = read_audio(path).astype(float), data.audio(pair.driving_clip).astype(float)
        k = min(len(heard), len(meant))
        assert np.corrcoef(heard[:k], meant[:k])[0, 1] > 0.95
    notes = read_results(done / "results").frame().query("method == 'source-video'")["notes"]
    assert notes.str.contains("cut-or-hold-last").any()


def test_the_same_frames_give_the_same_file(tmp_path: Path, moving_picture: Callable[..., np.ndarray]) -> None:
    frames, seen, junk = moving_picture(3), set(), []
    for _ in range(12):
        junk.append(np.random.default_rng(len(junk)).bytes(100_000 * (len(junk) % 5 + 1)))
        write_video(tmp_path / "a.mp4", frames, encoding=Encoding(**WRITER))
        seen.add((tmp_path / "a.mp4").read_bytes())
    assert len(seen) == 1


def test_run_again_keeps_everything_and_repairs_what_is_broken(done: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(done, out)
    before = {p: p.read_bytes() for p in sorted((out / "results").rglob("*.parquet"))}
    again = evaluate.run(
        METHODS,
        data=shards,
        out=out,
        draw=Draw(seeds=1),
        scoring=Scoring(METRICS),
        options=RunOptions(workers=0, quiet=True),
    )
    assert (again.generated, again.scores.scored) == (0, 0)
    videos = sorted((out / "videos").rglob("*.mp4"))
    videos[0].unlink()
    videos[5].write_bytes(videos[5].read_bytes()[:500])
    (stray := videos[0].with_name(f".{videos[0].stem}.77.part.mp4")).write_bytes(b"half")
    for path in sorted((out / "scores").rglob("*.json"))[:3]:
        path.write_text('{"key": "cut sho')
    mended = evaluate.run(
        METHODS,
        data=shards,
        out=out,
        draw=Draw(seeds=1),
        scoring=Scoring(METRICS),
        options=RunOptions(workers=0, quiet=True),
    )
    assert (mended.generated, mended.scores.scored) == (2, 3) and not stray.exists()
    assert {p: p.read_bytes() for p in sorted((out / "results").rglob("*.parquet"))} == before


def test_a_method_that_fails_ends_as_rows_with_reasons(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "troubled_method.py").write_text(
        "import os, numpy as np\n"
        "class Troubled:\n"
        "    'Fails in six ways.'\n"
        "    name, revision, sees = 'troubled', '1', frozenset({'reference-frames'})\n"
        "    def generate(self, case):\n"
        "        good = np.repeat(case.reference_frames[:1], case.n_frames, 0)\n"
        "        who = case.speaker + case.pair_id.split('>')[1][:1]\n"
        "        if who == 'Ah': raise RuntimeError('CUDA out of memory')\n"
        "        if who == 'Bh': os._exit(3)\n"
        "        if who == 'Ch': return good[:-2]\n"
        "        if who == 'Dh': return good[:, :32, :32]\n"
        "        if who == 'As': return good.astype(float)\n"
        "        if who == 'Bs': return case.ground_truth_frames\n"
        "        return good\n"
    )
    monkeypatch.chdir(tmp_path)
    summary = evaluate.run(
        ["troubled_method:Troubled"],
        ["neutral-base"],
        data=shards,
        out=tmp_path / "o",
        draw=Draw(seeds=1),
        scoring=Scoring(METRICS[:1]),
        options=RunOptions(1, quiet=True),
    )
    assert sum(loss.videos for loss in summary.lost.values()) == 6
    log = summary.lost["troubled", "method-failed"].log
    assert (tmp_path / "o" / log).read_text().endswith("CUDA out of memory\n") and f"(log: {log})" in str(summary)
    frame = read_results(tmp_path / "o" / "results").frame()
    lost = frame.dropna(subset=["reason"])
    got = {(r.speaker + r.target_emotion[0]): (r.reason, r.detail) for r in lost.itertuples()}
    assert got.keys() == {"Ah", "Bh", "Ch", "Dh", "As", "Bs"}
    assert got["Ah"][0] == "method-failed" and "CUDA out of memory" in got["Ah"][1]
    assert got["Bh"][0] == "crashed"
    assert got["Ch"][0] == "length-mismatch" and got["Dh"][0] == "size-mismatch"
    assert got["As"][0] == "method-failed" and "uint8" in got["As"][1]
    assert got["Bs"][0] == "method-failed" and "add it to `sees`" in got["Bs"][1]
    assert len(frame) == 12 and frame["value"].notna().sum() == 6


def test_a_folder_of_videos_is_scored_and_what_is_wrong_with_it_is_said(
    done: Path, shards: Path, tmp_path: Path, moving_picture: Callable[..., np.ndarray]
) -> None:
    pair_list = read_pairs(done / "pairs" / "neutral-base.parquet")
    videos = tmp_path / "videos"
    shutil.copytree(done / "videos" / "ground-truth" / "neutral-base", videos)
    names = [videos / f"{pair_file_name(p.pair_id)}.mp4" for p in pair_list.pairs]
    names[0].unlink()
    names[1].write_text("not a video")
    names[2].write_bytes(b"")
    write_video(names[3], moving_picture(0, 2 * T), fps=50)
    write_video(names[4], moving_picture(0, 1))
    record = {"name": "mine", "revision": "7", "title": "Mine", "role": "method", "summary": "", "sees": []}
    keys: dict[str, Any] = {"data": shards, "out": tmp_path / "out"}
    keys |= {"scoring": Scoring(METRICS[:1]), "options": RunOptions(0, quiet=True)}
    summary = evaluate.score(from_elsewhere(videos, pair_list, record), **keys)
    frame = read_results(tmp_path / "out" / "results").frame().set_index("pair_id").sort_index()
    assert set(frame["metric"]) == {METRICS[0], *evaluate.REGISTRATION}
    frame = frame[frame["metric"] == METRICS[0]]
    reasons = frame["reason"].fillna("")
    assert list(reasons.iloc[:5]) == ["missing-output", "not-media", "empty-file", reasons.iloc[3], "too-short"]
    assert names[0].name in frame["detail"].iloc[0]
    assert frame["notes"].iloc[3] == "resampled from 50 to 25 frames/s, nearest frame"
    assert frame["codec"].iloc[5] == "h264-yuv444p" and (reasons.iloc[5:] == "").all()
    ours = read_results(done / "results").frame().query("method == 'ground-truth' and metric == 'psnr:frame-mean'")
    assert frame["value"].iloc[5] == ours.set_index("pair_id").at[frame.index[5], "value"]
    assert summary.lost["mine", "missing-output"].videos == 1

    with pytest.raises(UserError, match=f"should be named {names[0].name}"):
        evaluate.score(from_elsewhere(tmp_path, pair_list, record), **keys)
    with pytest.raises(UserError, match="may contain"):
        evaluate.score(from_elsewhere(videos, pair_list, record, pattern="{clip}.mp4"), **keys)


def test_pairs_without_a_ground_truth_are_scored_by_what_needs_none(done: Path, shards: Path, tmp_path: Path) -> None:
    pair_list = read_pairs(done / "pairs" / "neutral-base.parquet")
    pairs = tuple(replace(pair, ground_truth_clip=None) for pair in pair_list.pairs[:3])
    summary = evaluate.score(
        from_elsewhere(
            done / "videos" / "static-reference" / "neutral-base",
            replace(pair_list, pairs=pairs),
            {"name": "mine", "revision": "1"},
        ),
        data=shards,
        out=tmp_path,
        scoring=Scoring(["psnr", "jitter:output"]),
        options=RunOptions(workers=0, quiet=True),
    )
    # The blobs have no face, but it was looked for.
    assert {k: v.videos for k, v in summary.lost.items()} == {("mine", "no-ground-truth"): 3, ("mine", "no-face"): 3}
    assert build(tmp_path / "results", tmp_path / "board").exists()


def test_a_metric_without_its_weights_is_one_line_and_the_others_finish(
    done: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMET_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CMET_EVAL_WEIGHTS", raising=False)
    pair_list = read_pairs(done / "pairs" / "neutral-base.parquet")
    summary = evaluate.score(
        from_elsewhere(
            done / "videos" / "static-reference" / "neutral-base",
            replace(pair_list, pairs=pair_list.pairs[:2]),
            {"name": "mine", "revision": "1"},
        ),
        data=shards,
        out=tmp_path / "out",
        scoring=Scoring(["psnr", "lpips", "ea:deepface-frame", "ea:deepface-video"]),
        options=RunOptions(workers=0, quiet=True),
    )
    assert {k: v.videos for k, v in summary.lost.items()} == {("mine", "missing-weights"): 2}
    emotion, lpips = sorted(summary.scores.to_get)
    assert emotion.startswith("ea:deepface-frame, ea:deepface-video: facial_expression_model_weights.onnx (")
    assert "run `cmet-eval weights fetch deepface_emotion`" in emotion
    assert lpips.startswith("lpips:alex: ") and "cmet-eval weights fetch alexnet" in lpips
    assert "registration of mine in neutral-base: no face was found in 2 videos" in str(summary)
    assert str(summary).splitlines()[2:] == list(summary.scores.to_get)


def test_pairs_of_other_data_are_refused(done: Path, shards: Path, tmp_path: Path) -> None:
    drawn = draw_pairs(ShardSet(shards).clips, get_setting("neutral-base"), Draw(seeds=1), data_digest="other")
    with pytest.raises(UserError, match="drawn from data other"):
        evaluate.score(from_elsewhere(done, drawn, {"name": "x", "revision": "1"}), data=shards, out=tmp_path)


def test_unknown_names_stop_before_any_work(shards: Path, tmp_path: Path) -> None:
    for methods, settings, metrics in (
        (["ground-trut"], ["neutral-base"], None),
        (["ground-truth"], ["neutral"], None),
        (["ground-truth"], ["neutral-base"], ["psnr:nope"]),
    ):
        with pytest.raises(UserError):
            evaluate.run(
                methods,
                settings,
                data=shards,
                out=tmp_path / "o",
                scoring=Scoring(metrics),
                options=RunOptions(quiet=True),
            )
    assert not (tmp_path / "o").exists()


def test_export_holds_what_a_method_elsewhere_needs_and_no_ground_truth(shards: Path, tmp_path: Path) -> None:
    data = ShardSet(shards)
    drawn = draw_pairs(data.clips, get_setting("cross-emotion"), Draw(max_pairs=2, seeds=1), data_digest=data.digest)
    table = export_pairs(drawn, data, tmp_path / "x", quiet=True)
    lines = list(csv.DictReader(table.read_text().splitlines()))
    assert [line["pair_id"] for line in lines] == [pair.pair_id for pair in drawn.pairs]
    for line, pair in zip(lines, drawn.pairs, strict=True):
        images = line["reference_images"].split()
        wanted = data.frames(pair.reference_clip, list(pair.reference_frames))
        for name, frame in zip(images, wanted, strict=True):
            assert np.array_equal(cv2.cvtColor(cv2.imread(str(table.parent / name)), cv2.COLOR_BGR2RGB), frame)
        assert np.array_equal(read_audio(table.parent / line["driving_audio"]), data.audio(pair.driving_clip))
        assert len(read_frames(table.parent / line["source_video"])) == len(data.frames(pair.source_clip))
        assert line["output"] == f"{pair_file_name(pair.pair_id)}.mp4" and line["n_frames"] == str(
            len(data.audio(pair.driving_clip)) // 640
        )
    assert len(list((tmp_path / "x").rglob("*.mp4"))) == 2
