"""What a video is scored against: labels, reference and ground truth enter the key where a metric reads them, and only
there; and videos without a ground truth, or of another size, have the scores that need none."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from cmet_eval.measuring.score_records import current_scores
from cmet_eval.protocol.setting import get_setting
from cmet_eval.runs import leakage
from cmet_eval.runs.evaluate import RunSummary
from cmet_eval.runs.metrics import Scoring
from cmet_eval.runs.result_rows import losses
from cmet_eval.runs.score import Expected, Job, score_video, scoring_key
from cmet_eval.runs.score_submissions import Scored
from cmet_metrics.base import Labels, Sample
from cmet_metrics.jitter import Jitter
from cmet_metrics.lse import Lse
from cmet_metrics.psnr import Psnr
from cmet_metrics.registry import METRICS, in_profile
from cmet_pipelines.shards import ShardSet
from talking_face.clip import Pair
from talking_face.files import sha256_of
from talking_face.media.writing import write_video
from talking_face.pretrained import trained_evaluators
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import Reason, UserError
from tests.cmet_eval.conftest import make_record, write_shard_set
from tests.hostile import media_clips as clips
from tests.hostile.media_clips import Recipe
from tests.metrics.by_key import by_key

PAIR = Pair(
    pair_id="x/A/sad>happy/s0/0001",
    setting="x",
    seed=0,
    speaker="A",
    reference_clip="clips/A/sad/1",
    reference_frames=(3, 5),
    reference_emotion="sad",
    source_clip="clips/A/neutral/1",
    driving_clip="clips/A/happy/1",
    target_emotion="happy",
    intensity=None,
    ground_truth_clip="clips/A/happy/1",
)


def test_labels_and_reference_are_in_the_key_where_a_metric_reads_them() -> None:
    def key(pair: Pair, *metrics: object) -> str:
        return scoring_key("aa", Expected.of(pair, metrics), "dd", [])  # type: ignore[arg-type]

    other_label, other_frames = replace(PAIR, reference_emotion="angry"), replace(PAIR, reference_frames=(3, 6))
    assert (
        key(PAIR, Psnr(), by_key("csim:dlib"))
        == key(other_label, Psnr(), by_key("csim:dlib"))
        == key(other_frames, Psnr(), by_key("csim:dlib"))
    )
    assert key(PAIR, Psnr(), by_key("ea:fer")) != key(other_label, Psnr(), by_key("ea:fer"))
    assert key(PAIR, by_key("ea:fer")) == key(other_frames, by_key("ea:fer"))
    assert key(PAIR, by_key("csim:dlib-ref")) != key(other_frames, by_key("csim:dlib-ref"))
    assert key(PAIR, Psnr()) != key(replace(PAIR, ground_truth_clip="clips/A/happy/2"), Psnr())
    seen = Expected.of(PAIR, [by_key("ea:fer"), by_key("csim:dlib-ref")])
    assert (seen.labels.emotion, seen.labels.reference_emotion, seen.labels.speaker) == ("happy", "sad", "A")
    assert (seen.reference_clip, seen.reference_frames) == ("clips/A/sad/1", (3, 5))
    # The ground truth too: what needs none is the same number for any.
    other_truth = replace(PAIR, ground_truth_clip=None)
    assert key(PAIR, Jitter(), by_key("ea:fer")) == key(other_truth, Jitter(), by_key("ea:fer"))
    assert key(PAIR, by_key("jitter:ratio")) != key(other_truth, by_key("jitter:ratio"))


def test_evaluators_that_know_a_training_clip_by_id_and_sound_may_not_judge_what_shows_it(tmp_path: Path) -> None:
    wave = np.arange(12 * 640, dtype=np.int16)
    records = [make_record(k, 12, clip_id=f"c/{k}", speaker="A", audio=wave + k, split="train") for k in range(3)]
    records.append(make_record(3, 12, clip_id="c/3", speaker="B", audio=wave + 3, split="test"))
    shards = ShardSet(write_shard_set(tmp_path, records))
    sounds = {k: trained_evaluators.sound_id(wave + k) for k in range(4)}
    files = ModelFiles(evaluators=(tmp_path / trained_evaluators.FOLDER,))
    assert not leakage.knows_training_split("emotion", shards, files)  # there is none
    for ids, heard, data, knows in (
        ((0, 1, 2), (0, 1, 2), shards.digest, True),
        ((1,), (1,), "another", True),  # a part of these shards, or of ones that were preprocessed otherwise
        ((0, 1, 2), (), "another", False),  # the same names in a corpus of another seed
        ((), (0, 1, 2), "another", False),  # under other names: not seen
        ((3,), (3,), "another", False),  # no training clip of these shards
    ):
        told = trained_evaluators.TrainedOn(
            "emotion", data, tuple(f"c/{k}" for k in ids), tuple(sounds[k] for k in heard), 0, ("happy", "sad")
        )
        trained_evaluators.save(tmp_path / trained_evaluators.FOLDER / trained_evaluators.FILES["emotion"], {}, told)
        assert leakage.knows_training_split("emotion", shards, files) is knows
        assert not leakage.knows_training_split("syncnet", shards, files)  # each kind is asked for itself
    corpus = [metric for metric in METRICS if metric.variant == "corpus"]
    assert {metric.name: metric.evaluator for metric in corpus} == {
        **dict.fromkeys(("ea", "emotion_leak"), "emotion"),
        **dict.fromkeys(("lse_c", "lse_d", "lse_offset"), "syncnet"),
    }


def test_what_is_infinite_or_not_asked_is_no_loss() -> None:
    same = {"method": "m", "setting": "s", "pair_id": "p", "metric": "x:y", "detail": ""}
    rows = [SimpleNamespace(**same, reason=reason) for reason in ("", "infinite", "not-asked", "no-face")]
    assert list(losses(rows)) == [("m", "no-face")]  # type: ignore[arg-type]


def test_which_metrics_need_a_ground_truth() -> None:
    alone = {metric.key for metric in METRICS if not metric.needs_target}
    assert {key.split(":")[0] for key in alone} == {
        *("ea", "emotion_leak", "lip_energy", "lse_c", "lse_d", "lse_offset", "jitter", "csim")
    }
    assert {key for key in alone if key.split(":")[0] in ("jitter", "csim")} == {
        *("jitter:output", "csim:dlib-ref", "csim:aligned-ref")
    }
    assert Lse(crop="lm", audio="source").needs_target


def face(n: int = 4, size: int = 192) -> np.ndarray:
    """(n, size, size, 3) uint8: a face that trembles."""
    picture = astronaut()[:300, 70:370]
    still = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return np.stack([np.roll(still, 2 * (k % 2), axis=1) for k in range(n)])


def test_a_pair_without_a_ground_truth_has_the_scores_that_need_none(shards: Path, tmp_path: Path) -> None:
    keys = ("psnr:frame-mean", "jitter:output", "jitter:ratio", "ea:fer")
    write_video(tmp_path / "a.mp4", face())
    for truth, why in ((None, "no-ground-truth"), ("clips/A/happy/1", "size-mismatch")):  # 192 px against 64
        job = Job(
            "k",
            str(tmp_path / "a.mp4"),
            sha256_of(tmp_path / "a.mp4"),
            Expected(truth, Labels("happy")),
            str(tmp_path / "a.json"),
            keys,
        )
        scores = score_video(job, str(shards), ModelFiles()).by_metric
        assert [scores[key].reason for key in keys] == [why, None, why, None]
        assert scores["jitter:output"].value > 1 and scores["ea:fer"].n == 4


def test_a_video_that_is_too_long_jumps_or_changes_its_size_is_one_reason(shards: Path, tmp_path: Path) -> None:
    """The ground truth has 12 frames of 64 px. Without limits, the gap of 20 minutes takes 6 GB at 256 px."""
    plain = Recipe(face(12, 64))
    stream = replace(plain, suffix="ts", codec="mpeg2video")
    clips.write(tmp_path / "gap.mp4", replace(plain, times=[*(k / 25 for k in range(11)), 1200.0]))
    clips.write(tmp_path / "long.mp4", replace(plain, frames=face(500, 64)))
    for name, frames in (("a", face(12, 64)), ("b", face(12, 32))):
        clips.write(tmp_path / name, replace(stream, frames=frames))
    (tmp_path / "sizes.ts").write_bytes((tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes())
    for name, why in (("gap.mp4", "decode-error"), ("long.mp4", "too-long"), ("sizes.ts", "decode-error")):
        path = tmp_path / name
        job = Job("k", str(path), sha256_of(path), Expected("clips/A/happy/1"), str(tmp_path / "x.json"), ("psnr",))
        (score,) = score_video(job, str(shards), ModelFiles()).scores
        assert score.reason == why and name in score.detail, score


BROKEN = """
import numpy as np
from cmet_metrics.base import Metric, Score


class Broken(Metric):
    name = "broken"
    title = "Broken"
    higher_is_better = True

    def settings(self):
        return {}

    def compute(self, pred, target):
        return np.zeros(3) @ np.zeros(4)


class Number(Broken):
    def compute(self, pred, target):
        return 0.5


class Half(Broken):
    def compute(self, pred, target):
        return Score(np.float32(0.5), 1)


class Stats(Broken):
    def compute(self, pred, target):
        return Score(0.5, 1, stats={"a": None})
"""


def test_a_metric_that_crashes_is_one_reason_and_the_others_keep_their_values(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_metric.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_video(tmp_path / "a.mp4", face(12, 64))
    own = [f"broken_metric:{name}" for name in ("Broken", "Number", "Half", "Stats")]
    job = Job(
        "k",
        str(tmp_path / "a.mp4"),
        sha256_of(tmp_path / "a.mp4"),
        Expected("clips/A/happy/1"),
        str(tmp_path / "a.json"),
        ("psnr", *own),
    )
    scores = score_video(job, str(shards), ModelFiles()).by_metric
    assert scores["psnr:frame-mean"].value is not None and scores[own[2]].value == 0.5
    details = [scores[key].detail for key in (own[0], own[1], own[3])]
    assert {scores[key].reason for key in (own[0], own[1], own[3])} == {"crashed"}
    assert re.fullmatch(r"broken_metric:Broken: ValueError: .+ \(broken_metric\.py:15\)", details[0])
    assert details[1] == "broken_metric:Number: compute returned a float, not a Score"
    assert details[2].startswith("broken_metric:Stats: TypeError: ") and str(tmp_path) not in "".join(details)
    assert current_scores(Path(job.out), job.key) is None, "scored again, because the metric may be mended"


def test_a_named_metric_that_is_not_valid_in_a_setting_has_a_line() -> None:
    setting, files = get_setting("cmet-mead"), ModelFiles()
    named = Scoring(["psnr", "jitter:output", "ssim"])
    assert [metric.key for metric in named.in_setting(setting, files)] == ["jitter:output"]
    assert named.not_computed_in(setting, files).startswith(
        "psnr:frame-mean, ssim:wang2004 are not among the metrics of cmet-mead and are not computed there; "
    )
    assert "`valid_in` of the metric's class" in named.not_computed_in(setting, files)
    assert not named.not_computed_in(get_setting("cross-emotion"), files)
    assert not Scoring(profile="embedded").not_computed_in(setting, files), "the user named none"


def test_a_profile_with_other_metrics_is_refused() -> None:
    with pytest.raises(UserError, match="--metrics names psnr; give one of the two"):
        Scoring(["psnr"], "paper")
    assert Scoring(in_profile("embedded"), "embedded").metrics == in_profile("embedded")


def test_the_summary_of_a_run_names_metrics_that_are_not_computed() -> None:
    line = Scoring(["psnr", "jitter:output"]).not_computed_in(get_setting("extended"), ModelFiles())
    summary = RunSummary(Scored((), 0, 0, {}, ()), pairs=1, generated=2, kept=0, seconds=0, not_computed=(line,))
    assert str(summary).splitlines() == [
        "1 pair; 2 videos generated, 0 scored, 0 kept from an earlier run, in 0 s; every score is there",
        line,
    ]
    assert line.startswith("psnr:frame-mean is not among the metrics of extended and is not computed there; ")


def test_a_metric_that_needs_no_ground_truth_gives_the_same_number_with_any() -> None:
    sample, blank = Sample(face(), labels=Labels("happy")), Sample(np.zeros((9, 8, 8, 3), np.uint8), fps=30)
    for metric in (Jitter(), by_key("ea:fer")):
        assert metric.score(sample, None) == metric.score(sample, blank) == metric.score(sample, sample)
    assert by_key("jitter:ratio").score(sample, None).reason is Reason.NO_GROUND_TRUTH
    assert Jitter().score(Sample(face(1)), None).reason is Reason.TOO_SHORT
