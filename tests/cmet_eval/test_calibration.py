"""The calibration suite: steps of zero change nothing, the sound's shift comes back, claims are read rightly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cmet_eval.calibration.answers import BASE, STAND_IN, Answer
from cmet_eval.calibration.calibrate import again, write
from cmet_eval.calibration.degradations import (
    DEGRADATIONS,
    NOISE,
    CalibrationClip,
    NotMakeable,
    blur,
    change_codec,
    freeze_mouth,
    hold,
    jpeg,
    move,
    reencode,
    remove,
    scale_mouth,
    shift_sound,
)
from cmet_eval.calibration.measure import calibrate, shifted_sound
from cmet_eval.calibration.noise import bands, differences, noise_table, verdict
from cmet_eval.calibration.redraw import changed_weights
from cmet_eval.calibration.tables import tables
from cmet_metrics.base import DEFAULT_FILES, Sample
from cmet_metrics.landmarks import mediapipe_68
from cmet_metrics.psnr import Psnr
from cmet_metrics.registration import Registration
from embedded_corpus.clip import ClipSpec, draw, perform
from embedded_corpus.speech import sentences
from tests.metrics.by_key import by_key

BY_NAME = {how.name: how for how in DEGRADATIONS}
SPEC = ClipSpec("W901", "happy", 3, 1, tuple(sorted(sentences())), seconds=1.68, width=240, height=240)


@pytest.fixture(scope="module")
def clip() -> CalibrationClip:
    """42 drawn frames of 192 px: lip energy needs 35."""
    act = perform(SPEC, 25)
    frames = np.stack([cv2.resize(frame, (192, 192), interpolation=cv2.INTER_AREA) for frame in draw(act)])
    return CalibrationClip(
        "drawn", "embedded", frames, act.sound[::3].copy(), mediapipe_68(Sample(frames), DEFAULT_FILES)
    )


def test_a_step_of_zero_changes_nothing(clip: CalibrationClip) -> None:
    for apply in (reencode, move, blur, jpeg, change_codec, hold, remove, freeze_mouth, shift_sound):
        frames, audio = apply(clip, 0)
        assert np.array_equal(frames, clip.frames) and np.array_equal(audio, clip.audio), apply.__name__


def test_degradations_are_what_they_say(clip: CalibrationClip) -> None:
    assert np.array_equal(move(clip, 2).frames[:, :, 2:], clip.frames[:, :, :-2])
    held = hold(clip, 4).frames
    assert np.array_equal(held[3], clip.frames[2]) and np.array_equal(held[4], clip.frames[4])
    assert len(remove(clip, 5).frames) == len(clip.frames) - 5
    assert np.array_equal(shift_sound(clip, 3).audio[:-1920], clip.audio[1920:])
    assert np.array_equal(shift_sound(clip, -3).audio[1920:], clip.audio[:-1920])
    frozen = freeze_mouth(clip, 1).frames
    changed = np.abs(frozen.astype(int) - clip.frames).max(axis=-1) > 8
    assert changed.any() and not changed[:, : clip.frames.shape[1] // 2].any()  # the mouth, and nothing above the nose
    assert np.array_equal(frozen[0], clip.frames[0]) or np.abs(frozen[0].astype(int) - clip.frames[0]).max() <= 1
    with pytest.raises(NotMakeable):
        scale_mouth(clip, 0.5)


def test_a_mouth_at_half_amplitude_and_another_emotion_keep_the_rest() -> None:
    act = perform(SPEC, 25)
    assert changed_weights(act) is act.weights and changed_weights(act, emotion="happy") is act.weights
    shut = changed_weights(act, mouth=0.0)
    half = changed_weights(act, mouth=0.5)
    # Closing lips act on the expression, so half is near the mean of whole and shut, not on it.
    assert np.abs(half - (act.weights + shut) / 2).mean() < 0.02
    there_and_back = changed_weights(replace(act, weights=changed_weights(act, emotion="sad")), emotion="happy")
    assert np.array_equal(there_and_back, changed_weights(act, emotion="sad"))  # happy is its own: nothing to do
    assert np.abs(changed_weights(act, emotion="sad") - act.weights).max() > 0.5


def test_two_metrics_on_three_degradations(clip: CalibrationClip, tmp_path: Path) -> None:
    metrics = [Psnr(), by_key("lip_energy:offset")]
    few = [replace(BY_NAME["sound-shift"], steps=(-4, 3)), replace(BY_NAME["blur"], steps=(1, 4)),
           replace(BY_NAME["mouth-amplitude"], steps=(0.5,))]  # fmt: skip
    rows = list(calibrate([clip], metrics, few, [replace(NOISE[1], steps=(1,))]))
    value = {(row.metric, row.degradation, row.step): row for row in rows}
    offset = by_key("lip_energy:offset").key
    unmoved = value[offset, BASE, ""].offset
    assert unmoved is not None
    for k in (-4, 3):
        assert value[offset, "sound-shift", str(k)].offset == unmoved + k
    assert ("psnr:frame-mean", "sound-shift", "3") not in value  # it does not hear
    psnr = {key[1:]: row.value for key, row in value.items() if key[0] == "psnr:frame-mean"}
    assert psnr["blur", "4"] < psnr["blur", "1"] < psnr[BASE, ""]  # type: ignore[operator]
    assert value[offset, "mouth-amplitude", "0.5"].reason == "not-makeable"
    assert all((row.value is None) == bool(row.reason) for row in rows)
    write(tmp_path / "a", rows, metrics)
    once = [path.read_bytes() for path in again([tmp_path / "a" / "values.csv"], tmp_path / "b")]
    assert once == [path.read_bytes() for path in again([tmp_path / "b" / "values.csv"], tmp_path / "c")]
    assert len(once) == 6 and all(once)


def test_the_sound_alone_is_moved(clip: CalibrationClip) -> None:
    """Points that are given are taken: with none in any frame nothing can be said."""
    rows = list(shifted_sound([clip], [Psnr(), by_key("lip_energy:offset")]))
    start = rows[0].offset
    assert {row.metric for row in rows} == {"lip_energy:offset"}
    assert {row.group for row in rows} == {"embedded-sound"}
    assert start is not None and len(rows) == 21
    assert np.mean([row.offset == float(row.step) + start for row in rows[1:]]) >= 0.9
    nothing = np.full((42, 478, 3), np.nan, np.float32), np.full((42, 52), np.nan, np.float32)
    assert all(row.reason for row in shifted_sound([replace(clip, mesh=nothing)], [by_key("lip_energy:offset")]))


def answer(metric: str, degradation: str, step: str, clip: str, value: float) -> Answer:
    return Answer(metric, degradation, step, "real", clip, value, "", None)


def test_bands_and_verdicts() -> None:
    """A metric that moves by 1 where noise moves it by 0.5 on one clip and by -0.5 on the other."""
    metric = Registration()
    rows = []
    for clip, sign in (("a", 1), ("b", -1)):
        rows += [answer(metric.key, STAND_IN, "", clip, 3.0), answer(metric.key, BASE, "", clip, 0.0)]
        rows += [answer(metric.key, f"{STAND_IN}+reencode", step, clip, 3 + 0.5 * sign) for step in ("18", "23")]
        rows += [answer(metric.key, f"{STAND_IN}+move", step, clip, 3 + px) for step, px in (("1", 1.0), ("2", 2.0))]
        rows += [answer(metric.key, "move", "2", clip, 0.4 if clip == "a" else 0.6)]
        rows += [answer(metric.key, "blur", "4", clip, 2.5), answer(metric.key, "jpeg", "5", clip, 0.9)]
        rows += [answer(metric.key, f"{STAND_IN}+evaluator", "seed 1", clip, 3 + 0.7 * sign)]
    found = {(row["noise"], row["step"]): (float(row["change"]), row["in_band"]) for row in noise_table(rows, [metric])}
    assert found == {
        ("reencode", "18"): (0.5, "yes"),
        ("reencode", "23"): (0.5, "yes"),
        ("move", "1"): (1, "yes"),
        ("move", "2"): (2, "no"),
        ("evaluator", "seed 1"): (0.7, "yes"),
    }
    (band,) = bands(rows, [metric])
    assert (band["metric"], band["source"], float(band["band"])) == (metric.key, "real", 1)
    assert band["signature"] == str(metric.signature())
    assert verdict(rows, metric, BY_NAME["move"], "real") == ("does not move", 0.5)
    assert verdict(rows, metric, BY_NAME["blur"], "real") == ("moves", 2.5)
    assert verdict(rows, metric, BY_NAME["jpeg"], "real") == ("", 0.9)
    assert differences(rows, metric.key, BASE, ("move", "2"), "real").tolist() == [0.4, 0.6]
    assert "**↑ +0.5**" in tables(rows, [metric]) and "**= +2.5**" in tables(rows, [metric])


def test_metrics_claim_something_of_known_degradations() -> None:
    from cmet_metrics.registry import METRICS

    known = {how.name for how in DEGRADATIONS}
    for metric in METRICS:
        assert metric.worsened_by | metric.unchanged_by <= known, metric.key
        assert not metric.worsened_by & metric.unchanged_by, metric.key
