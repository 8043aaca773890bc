"""What a video is scored against: labels, reference and ground truth enter the key where a metric reads them, and only
there; and videos without a ground truth, or of another size, have the scores that need none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from cmet_eval import submissions
from cmet_eval.scoring import Expected, Job, score_video, scoring_key
from metrics.base import Labels, Sample
from metrics.csim import DlibCsim, DlibReferenceCsim
from metrics.emotion import FerFrame
from metrics.jitter import Jitter, JitterRatio
from metrics.lse import LseC
from metrics.psnr import Psnr
from metrics.registry import METRICS
from talking_face.clip import Pair
from talking_face.media.writing import write_video
from talking_face.pretrained import corpus_nets
from talking_face.reasons import Reason

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
        key(PAIR, Psnr(), DlibCsim()) == key(other_label, Psnr(), DlibCsim()) == key(other_frames, Psnr(), DlibCsim())
    )
    assert key(PAIR, Psnr(), FerFrame()) != key(other_label, Psnr(), FerFrame())
    assert key(PAIR, FerFrame()) == key(other_frames, FerFrame())
    assert key(PAIR, DlibReferenceCsim()) != key(other_frames, DlibReferenceCsim())
    assert key(PAIR, Psnr()) != key(replace(PAIR, ground_truth_clip="clips/A/happy/2"), Psnr())
    seen = Expected.of(PAIR, [FerFrame(), DlibReferenceCsim()])
    assert (seen.labels.emotion, seen.labels.reference_emotion, seen.labels.speaker) == ("happy", "sad", "A")
    assert (seen.reference_clip, seen.reference_frames) == ("clips/A/sad/1", (3, 5))
    # The ground truth too: what needs none is the same number for any.
    other_truth = replace(PAIR, ground_truth_clip=None)
    assert key(PAIR, Jitter(), FerFrame()) == key(other_truth, Jitter(), FerFrame())
    assert key(PAIR, JitterRatio()) != key(other_truth, JitterRatio())


def test_evaluators_of_another_corpus_may_judge_what_shows_training_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    shards = SimpleNamespace(digest="a" * 32)
    for data, knows in (("a" * 32, True), ("b" * 32, False)):
        found = SimpleNamespace(trained_on=SimpleNamespace(data=data))
        monkeypatch.setattr(corpus_nets, "find", lambda kind, found=found: found)
        assert submissions._evaluators_know(shards) is knows  # type: ignore[arg-type]


def test_which_metrics_need_a_ground_truth() -> None:
    alone = {metric.key for metric in METRICS if not metric.needs_target}
    assert {key.split(":")[0] for key in alone} == {
        *("ea", "emotion_leak", "lip_energy", "lse_c", "lse_d", "lse_offset", "jitter", "csim")
    }
    assert {key for key in alone if key.split(":")[0] in ("jitter", "csim")} == {
        *("jitter:output", "csim:dlib-ref", "csim:aligned-ref")
    }
    assert LseC("lm", audio="source").needs_target


def face(n: int = 4, size: int = 192) -> np.ndarray:
    """(n, size, size, 3) uint8: a face that trembles."""
    picture = astronaut()[:300, 70:370]
    still = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return np.stack([np.roll(still, 2 * (k % 2), axis=1) for k in range(n)])


def test_a_pair_without_a_ground_truth_has_the_scores_that_need_none(shards: Path, tmp_path: Path) -> None:
    keys = ("psnr:frame-mean", "jitter:output", "jitter:ratio", "ea:fer")
    write_video(tmp_path / "a.mp4", face(), crf=10, pix_fmt="yuv444p")
    for truth, why in ((None, "no-ground-truth"), ("clips/A/happy/1", "size-mismatch")):  # 192 px against 64
        job = Job("k", str(tmp_path / "a.mp4"), Expected(truth, Labels("happy")), str(tmp_path / "a.json"))
        scores = {item["metric"]: item for item in score_video(job, str(shards), keys)["scores"]}
        assert [scores[key]["reason"] for key in keys] == [why, None, why, None]
        assert scores["jitter:output"]["value"] > 1 and scores["ea:fer"]["n"] == 4


def test_a_metric_that_needs_no_ground_truth_gives_the_same_number_with_any() -> None:
    sample, blank = Sample(face(), labels=Labels("happy")), Sample(np.zeros((9, 8, 8, 3), np.uint8), fps=30)
    for metric in (Jitter(), FerFrame()):
        assert metric.score(sample, None) == metric.score(sample, blank) == metric.score(sample, sample)
    assert JitterRatio().score(sample, None).reason is Reason.NO_GROUND_TRUTH
    assert Jitter().score(Sample(face(1)), None).reason is Reason.TOO_SHORT
