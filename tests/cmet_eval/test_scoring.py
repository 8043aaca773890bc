"""What a video is scored against: labels and reference enter the key where a metric reads them, and only there."""

from __future__ import annotations

from dataclasses import replace

from cmet_eval.scoring import Expected, scoring_key
from metrics.csim import DlibCsim, DlibReferenceCsim
from metrics.emotion import FerFrame
from metrics.psnr import Psnr
from talking_face.clip import Pair

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
