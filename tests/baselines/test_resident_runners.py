"""Tests the runners of EDTalk, C-MET, PD-FGC, FLOAT and IP-LAP with stand-ins of their repositories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from cmet_baselines.adapters.recipe import RecipeMethod
from cmet_baselines.method import Case, CaseSpec
from cmet_baselines.registry import catalogue
from talking_face.faces.points68 import MEDIAPIPE_OF_IBUG68
from talking_face.reasons import ClipError, Reason
from tests import resident_stand_ins as stand_ins
from tests.recipe_stand_in import method_of

SIDE, FRAMES = 256, 6


class Stage:
    """Runs the recipe of a method with a stand-in, in its own process."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._methods = folder, list[RecipeMethod]()

    def method(self, name: str, files: dict[str, str], **options: int) -> RecipeMethod:
        entry = catalogue()[name]
        checkout = stand_ins.write(self._folder / "their code", files)
        expressions = checkout / "ckpts" / "predefined_exp_weights"
        expressions.mkdir(parents=True, exist_ok=True)
        np.save(expressions / "happy.npy", np.uint8(77))
        weights = {}
        for weight in entry.weights:
            weights[weight.file] = self._folder / weight.file
            weights[weight.file].write_text("weights")
        self._methods.append(method_of(name, checkout, weights, **options))
        return self._methods[-1]

    def close(self) -> None:
        for method in self._methods:
            method.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


def points(count: int) -> np.ndarray:
    """(count, 478, 3) px: a face that moves to the right by 2 px a frame; eyes 56 px apart, the mouth 54 px below."""
    rng = np.random.default_rng(1)
    face = rng.uniform((70, 80, 0), (186, 200, 1), (478, 3))
    for part, centre in ((slice(36, 42), (100, 110)), (slice(42, 48), (156, 110)), (slice(60, 68), (128, 164))):
        face[list(MEDIAPIPE_OF_IBUG68[part]), :2] = centre
    return np.asarray(face[None] + np.arange(count)[:, None, None] * (2, 0, 0), np.float32)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """(count, 256, 256, 3): a smooth picture, whose first pixel tells the number of the frame."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.integers(0, 255, (9, 9, 3), np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    video = np.repeat(smooth[None], count, 0)
    video[:, 0, 0] = (seed + np.arange(count))[:, None]
    return video


def make_case(method: RecipeMethod, source: int = 4, pool: int = 3, **given: object) -> Case:
    arrays: dict[str, object] = {
        "reference_frames": pictures(2, seed=50),
        "reference_landmarks": points(2),
        "source_frames": pictures(source, seed=100),
        "source_landmarks": points(source),
        "driving_audio": np.ones(FRAMES * 640, np.int16),
        "emotion_audio": [np.full(9, 328 * (i + 1), np.int16) for i in range(pool)],
        "neutral_audio": [np.full(9, 328, np.int16)] * pool,
        **given,
    }
    spec = CaseSpec(
        pair_id="p",
        setting="s",
        speaker="A",
        n_frames=FRAMES,
        size=(SIDE, SIDE),
        seed=0,
        target_emotion="happy",
        intensity=3,
    )
    return Case(spec, {name: lambda array=array: array for name, array in arrays.items()}, method.sees)  # type: ignore[misc]


def test_edtalk_draws_the_built_in_expression_and_loads_its_networks_once(stage: Stage) -> None:
    method = stage.method("edtalk", stand_ins.EDTALK)
    method.generate(make_case(method))
    case = make_case(method)
    frames = method.generate(case)
    assert frames.shape == (FRAMES, SIDE, SIDE, 3) and (frames[:, 0, 0] == 50).all()  # the first reference frame
    assert frames[:, 0, 1, 0].tolist() == [100, 101, 102, 103, 103, 103]  # the pose of the source, the last one held
    assert (frames[:, 0, 2] == 77).all() and (frames[:, 0, 3] == (1, 1, 0)).all()  # one network, one file read
    assert "built-in expression happy" in case.notes and "6 frames made, 6 wanted" in " ".join(case.notes)


def test_a_test_only_limit_is_noted_and_repeats_the_frames_in_turn(stage: Stage) -> None:
    method = stage.method("edtalk", stand_ins.EDTALK, frames=2)
    case = make_case(method)
    assert method.generate(case)[:, 0, 1, 0].tolist() == [100, 101, 100, 101, 100, 101]
    assert "test-only limit: 2 frames drawn, repeated in turn" in case.notes


def test_edtalk_with_another_clip_refuses_one_on_which_its_script_never_ends(stage: Stage) -> None:
    method = stage.method("edtalk-other-take", stand_ins.EDTALK)
    assert (method.generate(make_case(method, other_take_frames=pictures(21, seed=9)))[:, 0, 2] == 9).all()
    with pytest.raises(ClipError, match="the expression video has 20 frames; EDTalk needs 21") as caught:
        method.generate(make_case(method, other_take_frames=pictures(20, seed=9)))
    assert caught.value.reason is Reason.METHOD_FAILED


def test_cmet_gives_ten_vectors_of_each_pool_and_encodes_the_source_in_parts(stage: Stage) -> None:
    method = stage.method("cmet-published", stand_ins.CMET)
    case = make_case(method, source=25)
    frames = method.generate(case)
    assert (frames[:, 0, 0] == 124).all() and (frames[:, 0, 1] == 25).all()  # the last of 25 frames
    # Means of 10, 20 and 30, and of 10. The neutral clips and the first emotional one are equal: three are encoded.
    assert frames.shape[0] == FRAMES and (frames[:, 0, 2] == (20, 10, 3)).all()
    assert "emotion pool: mean of all 3 clips, where the script draws 10" in case.notes
    case = make_case(method, source=25, pool=12)
    method.generate(case)
    assert "emotion pool: 10 of 12 clips, none of the pair" in case.notes
    with pytest.raises(ClipError, match=r"the source has 24 frames; inference.py needs 25"):
        method.generate(make_case(method, source=24))


@pytest.mark.parametrize(
    ("name", "note"), [("pd-fgc", "of the source video, because"), ("pd-fgc-other-take", "of another clip")]
)
def test_pd_fgc_gets_aligned_frames_and_its_face_is_put_back(stage: Stage, name: str, note: str) -> None:
    method = stage.method(name, stand_ins.PD_FGC)
    case = make_case(method, other_take_frames=pictures(30, seed=9))
    frames = method.generate(case)
    assert frames.shape == (FRAMES, SIDE, SIDE, 3)  # with the silence, neither a frame too few nor too many
    middle = np.s_[90:190, 80:180]
    assert np.abs(frames[0][middle].astype(int) - case.reference_frames[0][middle]).mean() < 2
    assert any("silence of 2 frames before and 1 behind" in line for line in case.notes)
    assert any(f"expression and eyes {note}" in line for line in case.notes)


@pytest.mark.parametrize(("name", "mark", "note"), [("float", 10, "in the sound"), ("float-label", 20, "happy")])
def test_float_gets_the_known_box_and_its_square_is_put_back(stage: Stage, name: str, mark: int, note: str) -> None:
    method = stage.method(name, stand_ins.FLOAT)
    for _ in range(2):
        case = make_case(method)
        frames = method.generate(case)
        assert frames.shape == (FRAMES, SIDE, SIDE, 3) and any(note in line for line in case.notes)
        middle = np.s_[80:200, 70:186]
        assert np.abs(frames[0][middle].astype(int) - case.reference_frames[0][middle]).mean() < 1
        assert np.abs(frames[0, 58, 46].astype(int) - mark).max() < 3  # the corner of the square tells the label


def test_ip_lap_gets_the_landmarks_of_each_frame_and_enough_silence(stage: Stage) -> None:
    method = stage.method("ip-lap", stand_ins.IP_LAP, references=3)
    method.generate(make_case(method))
    case = make_case(method)
    frames = method.generate(case)
    assert frames.shape == (FRAMES, SIDE, SIDE, 3)
    # Frames of the source: the third one three times, then forwards and backwards; the face moves by 2 px a frame.
    jaw = points(4)[:, MEDIAPIPE_OF_IBUG68[0], 0]
    assert frames[:, 0, 0, 0].tolist() == [round(float(jaw[i])) for i in (2, 2, 2, 3, 3, 2)]
    assert (frames[:, 1, 0, ::-1] == (2, 3, 0)).all()  # two networks for two cases; three of 25 references
    assert "test-only limit: 3 of 25 reference pictures" in case.notes


def test_ip_lap_edits_the_real_upper_half_over_a_reference_frame(stage: Stage) -> None:
    method = stage.method("ip-lap-upper-half", stand_ins.IP_LAP)
    upper = pictures(FRAMES, seed=200)
    upper[:, SIDE // 2 :] = 0
    case = make_case(method, upper_half_frames=upper, ground_truth_landmarks=points(FRAMES))
    frame = method.generate(case)[0].astype(int)
    middle = SIDE // 2
    # The stand-in returns the frame that it edits; the lossless video between them costs a grey value.
    assert np.abs(frame[2:middle] - upper[2, 2:middle]).mean() < 2
    assert np.abs(frame[middle:] - case.reference_frames[0][middle:]).mean() < 2
