"""The appearance model: the response is inverted, and creases are fitted, corrected and applied to a face."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cmet_reference.clips import ClipArrays
from cmet_reference.geometry import fit_pose, mean_face, template_of, to_head
from cmet_reference.render import appearance_stage, skin, skin_stage
from cmet_reference.render.appearance import SIDE, Appearance, Square, interpolated_between
from cmet_reference.render.appearance_stage import (
    AppearanceSettings,
    AppearanceStage,
    choose_clips,
    fit_creases,
    inverse_response,
)
from cmet_reference.render.mesh import MeshRenderer
from cmet_reference.render.skin import Skin
from cmet_reference.render.skin_stage import SkinSettings, SkinStage
from cmet_reference.render.triangles import N_SKIN, back_to_front, draw
from cmet_reference.training import checkpoints
from cmet_reference.training.loop import fit
from cmet_reference.training.options import TrainOptions
from embedded_corpus.draw import Renderer
from embedded_corpus.identity import get_identity
from embedded_corpus.pose import Pose
from embedded_corpus.rig import ACTION_INDEX, ACTIONS
from talking_face.pretrained.face_landmarker import FaceLandmarker
from talking_face.reasons import UserError
from tests.models import models

SPEAKERS = ("M901", "W901")
EXPRESSIONS = {"neutral": {}, "angry": {"brow_down": 1.2}, "surprised": {"brow_inner_up": 1.0, "brow_outer_up_l": 1.0}}


def drawn(speaker: str, actions: dict[str, float]) -> np.ndarray:
    weights = np.zeros(len(ACTIONS), np.float32)
    weights[[ACTION_INDEX["eye_l"], ACTION_INDEX["eye_r"]]] = 1.0
    for name, value in actions.items():
        weights[ACTION_INDEX[name]] = value
    return np.ascontiguousarray(Renderer(get_identity(speaker), 360, 256, detail=200).frame(weights, Pose())[:, 52:308])


@pytest.fixture(scope="module")
def faces() -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Each speaker in each expression: (256, 256, 3) and its points (478, 3)."""
    out = {}
    with FaceLandmarker("image", files=models()) as landmarker:
        for speaker in SPEAKERS:
            for emotion, actions in EXPRESSIONS.items():
                frame = drawn(speaker, actions)
                mesh = landmarker.detect(frame)
                assert mesh is not None
                out[speaker, emotion] = frame, mesh.landmarks
    return out


@pytest.fixture
def clips(
    faces: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> list[ClipArrays]:
    """Clips of 20 equal frames, read from memory."""
    out, pictures = [], {}
    for (speaker, emotion), (frame, points) in faces.items():
        name = f"{speaker}/{emotion}"
        pictures[name] = np.stack([frame] * 20)
        arrays = np.stack([points] * 20), np.zeros((20, 52), np.float32), np.zeros(20 * 640, np.int16)
        out.append(ClipArrays(Path(), name, "clips", speaker, emotion, 1, None, *arrays))

    class Pictures:
        def __init__(self, folder: Path) -> None: ...

        def frames(self, clip_id: str, at: list[int]) -> np.ndarray:
            return pictures[clip_id][at]

        def valid(self, clip_id: str) -> np.ndarray:
            return np.ones(20, bool)

    for module in (appearance_stage, skin_stage):
        monkeypatch.setattr(module, "ShardSet", Pictures)
    return out


def model(faces: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]], **changes: np.ndarray) -> Appearance:
    """Two axes, up and across for all points, in units of one eye distance."""
    points = faces["M901", "neutral"][1]
    axes = np.zeros((2, N_SKIN, 2), np.float32)
    axes[0, :, 1] = axes[1, :, 0] = N_SKIN**-0.5
    arrays = {
        "template": template_of(points[None]),
        "unit": np.ones(N_SKIN),
        "axes": axes.reshape(2, -1),
        "further": np.eye(2),
        "creases": np.zeros((2, SIDE, SIDE)),
    }
    return Appearance(arrays | changes)


def test_the_inverse_of_a_response_asks_for_more_and_noise_is_not_blown_up() -> None:
    rng = np.random.default_rng(0)
    response = np.diag([1.0, 0.5, 0.1]) + 0.05
    asked = rng.normal(size=(4000, 3))
    further, values = inverse_response(asked, asked @ response + rng.normal(0, 0.3, (4000, 3)), least=0.4)
    assert values == pytest.approx(np.linalg.svd(response)[1], abs=0.03)
    wanted = np.array([[1.0, 1.0, 0.0]])
    asked_for = wanted @ further
    assert asked_for[0, 1] > 1.6 and np.linalg.norm(asked_for) < 2.5 * np.linalg.norm(wanted)
    assert (asked_for @ response)[0, :2] == pytest.approx([1, 1], abs=0.12)


def test_a_face_that_is_not_moved_stays_and_one_that_is_goes_further(faces) -> None:
    base = faces["M901", "neutral"][1][None]
    learnt = model(faces, further=np.diag([2.0, 1.0]))
    frames = faces["M901", "neutral"][0][None]
    points, light = learnt.moved(base, base, frames)
    assert np.abs(points - base).max() < 1e-3 and (light == 1).all()
    # All brow points 0.1 eye distances up: along the first axis that is a mean of 0.1 * n / 468, which is doubled.
    target = base.copy()
    brows = appearance_stage.PARTS["brows"]
    target[:, brows, 1] -= 0.1 * np.linalg.norm(base[0, 33] - base[0, 263])
    pose = fit_pose(base, learnt.template)
    points, _ = learnt.moved(target, base, frames)
    gone = (to_head(points, pose) - to_head(target, pose))[0]
    assert gone[:N_SKIN, 1] == pytest.approx(-0.1 * len(brows) / N_SKIN, rel=0.1)
    assert np.abs(gone[:N_SKIN, 0]).max() < 1e-3 and np.abs(gone[N_SKIN:]).max() < 1e-4


def test_light_is_laid_over_the_face_alone(faces) -> None:
    frame, points = faces["M901", "neutral"]
    learnt, at = model(faces), points[:N_SKIN] - np.float32([0.5, 0.5, 0])
    skin = draw(at[:, :2], back_to_front(at), *frame.shape[:2])
    assert (learnt.lit(frame, at, np.ones((SIDE, SIDE), np.float32), skin) == frame).all()
    dark = learnt.lit(frame, at, np.full((SIDE, SIDE), 0.5, np.float32), skin)
    x, y = points[50, :2].astype(int)  # a cheek
    assert dark[y, x] == pytest.approx(frame[y, x] / 2, abs=1)
    assert (dark[:20, :20] == frame[:20, :20]).all() and (dark[240:, 120:136] == frame[240:, 120:136]).all()


def test_a_mean_face_is_of_frames_spread_over_all_clips() -> None:
    tracks = [np.random.default_rng(k).normal(size=(n, 478, 3)).astype(np.float32) for k, n in enumerate((3, 1, 9))]
    every = np.concatenate(tracks)
    assert (mean_face(tracks, 13) == template_of(every)).all()
    assert (mean_face(tracks, 5) == template_of(every[[0, 3, 6, 9, 12]])).all()


def test_only_frames_with_a_face_are_drawn_and_without_any_the_user_is_told(clips, monkeypatch) -> None:
    """Black pictures, of which the first half is marked as valid: no face is found, and no other frame is read."""
    asked: list[int] = []

    class Black:
        def __init__(self, folder: Path) -> None: ...

        def frames(self, clip_id: str, at: list[int]) -> np.ndarray:
            asked.extend(at)
            return np.zeros((len(at), 256, 256, 3), np.uint8)

        def valid(self, clip_id: str) -> np.ndarray:
            return np.arange(20) < 10

    monkeypatch.setattr(appearance_stage, "ShardSet", Black)
    with pytest.raises(UserError, match=r"of 12 frames .* 0 showed a face"):
        AppearanceStage(AppearanceSettings(axes=4, drawn=12), clips, [], seed=0, files=models()).solve()
    assert len(asked) == 12 and max(asked) < 10
    learnt = template_of(clips[0].landmarks), np.ones(N_SKIN), np.eye(2, 2 * N_SKIN)
    fit_creases(clips[:3], *learnt, AppearanceSettings(), np.random.default_rng(0))
    assert max(asked) < 10


def test_neutral_clips_are_kept_when_a_speaker_has_too_many(clips) -> None:
    many = [clips[1]] * 60 + [clips[0]] * 3 + [clips[2]] * 60  # clips[0] is neutral
    for seed in range(5):
        some = choose_clips(many, 16, np.random.default_rng(seed))
        assert len(some) == 16 and sum(c.emotion == "neutral" for c in some) == 3
    assert len(choose_clips([clips[0]] * 40, 16, np.random.default_rng(0))) == 16


def test_brightness_of_a_large_picture_is_that_of_a_small_one(faces) -> None:
    frame, points = faces["M901", "neutral"]
    square = Square(template_of(points[None]))
    noise = np.random.default_rng(0).normal(0, 20, (1536, 1536, 1))
    large = np.clip(cv2.resize(frame, (1536, 1536), interpolation=cv2.INTER_CUBIC) + noise, 0, 255).astype(np.uint8)
    half = np.float32(0.5)
    small, seen = (square.brightness(p, q - half) for p, q in ((frame, points[:468]), (large, 6 * points[:468])))
    assert np.abs(seen - small).mean() < 0.15  # 0.25 where single pixels are taken


def test_brows_go_where_they_are_seen_and_creases_come_with_them(clips, faces, tmp_path: Path, monkeypatch) -> None:
    settings = AppearanceSettings(axes=4, drawn=40, held_drawn=6, ridge=0.01)
    stage = AppearanceStage(settings, clips, clips[:3], seed=0, files=models())
    again = AppearanceStage(settings, clips, [], seed=0, files=models())
    again.solve()
    card = fit(stage, tmp_path, TrainOptions(quiet=True))
    assert card["seconds"] > 0 and all(
        torch.equal(v, again.net.state_dict()[k]) for k, v in stage.net.state_dict().items()
    )
    third = AppearanceStage(settings, clips, clips[:3], seed=0, files=models())
    with monkeypatch.context() as patch:
        patch.setattr(third, "solve", lambda: pytest.fail("what is finished is not fitted again"))
        assert fit(third, tmp_path, TrainOptions(quiet=True)) == card and torch.equal(third.net.axes, stage.net.axes)
    assert 0.3 < card["held_out"]["response_brows"] < card["held_out"]["further_brows"] < 1.3
    learnt = appearance_stage.load(tmp_path / "appearance.safetensors")
    assert learnt.revision == f"appearance-{checkpoints.revision(tmp_path / 'appearance.safetensors')}"

    (frame, base), (truth, target) = faces["M901", "neutral"], faces["M901", "surprised"]
    given = frame[None], base[None], frame[None], base[None]
    plain = MeshRenderer().frames(target[None], *given)[0]
    better = MeshRenderer(expression=learnt).frames(target[None], *given)[0]
    with FaceLandmarker("image", files=models()) as landmarker:
        seen = [landmarker.detect(picture) for picture in (plain, better)]
    asked = (target - base)[appearance_stage.PARTS["brows"], 1].mean()
    shares = [(s.landmarks - base)[appearance_stage.PARTS["brows"], 1].mean() / asked for s in seen if s]
    assert shares[0] < 0.9 and abs(shares[1] - 1) < abs(shares[0] - 1), shares

    # The lines of a raised forehead: the picture shows the lines of the drawing.
    square = Square(learnt.template)
    lines = square.brightness(truth, target) - square.brightness(frame, base)
    made = square.brightness(better, target) - square.brightness(plain, target)
    forehead = square.y < SIDE * 0.28
    assert np.corrcoef(lines[forehead], made[forehead])[0, 1] > 0.5


def test_a_correction_is_learnt_where_there_are_creases_and_what_is_to_stay_stays(clips, faces, tmp_path) -> None:
    learnt = model(faces)
    stage = SkinStage(
        skin.SkinNetSettings(width=8, strength=1.0), SkinSettings(steps=240, batch=6), learnt, clips, clips, 0
    )
    before = stage.held_out()
    assert before["explained"] == before["explained_alike"] == 0  # it begins with everyone's creases: here, none
    card = fit(stage, tmp_path, TrainOptions(quiet=True))
    assert card["held_out"]["explained"] > 0.4 and card["held_out"]["explained_fine"] > 0.4
    net = skin_stage.load(tmp_path / "skin.safetensors")
    assert all(torch.equal(v, stage.net.state_dict()[k]) for k, v in net.state_dict().items())

    # The lines of a raised forehead: the picture shows the lines of the drawing, and they vanish again.
    learnt.correction, square = net, learnt.square
    (frame, base), (truth, target) = faces["M901", "neutral"], faces["M901", "surprised"]
    forehead = square.y < SIDE * 0.28
    lines = square.brightness(truth, target) - square.brightness(frame, base)

    def change(picture: np.ndarray, points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        _, light = learnt.moved(wanted[None], points[None], picture[None])
        return np.log(light[0])[square.y, square.x]

    comes, goes = change(frame, base, target), change(truth, target, base)
    assert np.corrcoef(lines[forehead], comes[forehead])[0, 1] > 0.5
    assert np.corrcoef(-lines[forehead], goes[forehead])[0, 1] > 0.5
    assert np.abs(comes).mean() > 0.01 and np.abs(change(frame, base, base)).max() < 1e-5


def test_a_batch_is_of_pairs_of_one_speaker(clips, faces) -> None:
    stage = SkinStage(skin.SkinNetSettings(width=8), SkinSettings(batch=16), model(faces), clips, [], 0)
    batch, seen = stage.batch(3), stage.train
    assert all((x == y).all() for x, y in zip(batch.values(), stage.batch(3).values(), strict=True))
    flat = seen.skins.astype(np.float32).reshape(-1, SIDE, SIDE)
    of = np.repeat(seen.speakers, seen.skins.shape[1])
    for before, change in zip(batch["skin"], batch["change"], strict=True):
        a, b = (of[np.abs(flat - x).max(axis=(1, 2)) < 1e-3] for x in (before, before + change))
        assert set(a) & set(b)
    assert stage.held_out() == {}
    lonely = [clips[0], clips[3]]
    with pytest.raises(UserError, match="no speaker of these shards has two"):
        SkinStage(skin.SkinNetSettings(width=8), SkinSettings(), model(faces), lonely, [], 0)


def test_every_parameter_of_the_skin_learns_and_the_loss_is_as_by_hand() -> None:
    torch.manual_seed(0)
    net = Skin(skin.SkinNetSettings(width=8), axes=2)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    predicted = net(
        torch.randn(2, SIDE, SIDE), torch.randn(2, SIDE, SIDE), torch.randn(2, 2), torch.randn(2, 2), torch.zeros(2, 2)
    )
    skin.loss(predicted, torch.zeros_like(predicted), torch.ones_like(predicted))[0].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 1e-6 for p in net.parameters())  # more than rounding
    # An unpredicted change of 1 costs 1 - 0.03 / 2, one of 0.01 costs 0.01^2 / 0.06; neither has a fine part away from
    # the rim.
    inside = torch.zeros(1, SIDE, SIDE)
    inside[:, 8:-8, 8:-8] = 1
    for change, cost in ((1.0, 0.985), (0.01, 0.01**2 / 0.06)):
        total, parts = skin.loss(torch.zeros(1, SIDE, SIDE), torch.full((1, SIDE, SIDE), change), inside)
        assert [float(parts["all"]), float(parts["fine"]), float(total)] == pytest.approx([cost, 0, cost], abs=1e-6)
    # A single pixel's fine part is 80/81 there and -1/81 on the 80 around it.
    dot = torch.zeros(1, SIDE, SIDE)
    dot[0, 60, 60] = 0.81
    _, parts = skin.loss(torch.zeros_like(dot), dot, inside)
    by_hand = (0.8 - 0.015 + 80 * 0.01**2 / 0.06) / 112**2
    assert float(parts["fine"]) == pytest.approx(by_hand, rel=1e-4)


def test_light_goes_straight_from_look_to_look() -> None:
    values = np.array([[0.0], [6.0], [3.0]], np.float32)
    assert interpolated_between(values, np.array([0, 6, 7]))[:, 0] == pytest.approx([0, 1, 2, 3, 4, 5, 6, 3])
    assert interpolated_between(values[:1], np.array([0]))[:, 0].tolist() == [0]
