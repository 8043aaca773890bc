"""The flow renderer: crops, shapes, gradients, losses by hand, one batch learnt by heart, and pictures put back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cmet_reference.clips import ClipArrays
from cmet_reference.render import crops, losses
from cmet_reference.render.flow import FlowRenderer
from cmet_reference.render.flow_nets import RendererNet, RendererSettings, sampling_grid
from cmet_reference.render.flow_stage import RendererStage
from cmet_reference.render.triangles import OVAL
from cmet_reference.training import checkpoints
from tests.models import models

SMALL = RendererSettings(
    size=32, references=2, window=3, narrow=4, wide=16, hidden=8, critic=4, batch=2, warm_up=1, perceptual="pixels"
)
T = 12


def track(n: int = T) -> np.ndarray:
    """(n, 478, 3): points within an ellipse in the middle of 96 px, the outline on its edge, moving to the right."""
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, 478), rng.uniform(0, 0.9, 478)
    angle[list(OVAL)] = np.linspace(0, 2 * np.pi, len(OVAL), endpoint=False) - np.pi / 2
    radius[list(OVAL)] = 1
    face = np.stack([44 + 24 * radius * np.cos(angle), 48 + 30 * radius * np.sin(angle), 0 * angle], axis=1)
    return (face + np.arange(n)[:, None, None] * [0.8, 0.2, 0]).astype(np.float32)


def clip(landmarks: np.ndarray) -> ClipArrays:
    n = len(landmarks)
    audio, shapes = np.zeros(640 * n, np.int16), np.zeros((n, 52), np.float32)
    return ClipArrays(Path("none"), "a", "d", "A", "happy", 1, None, landmarks, shapes, audio)


def pictures(landmarks: np.ndarray) -> np.ndarray:
    """(T, 96, 96, 3): a smooth face that moves with the landmarks."""
    y, x = np.mgrid[:96, :96].astype(np.float32) + 0.5
    out = []
    for points in landmarks:
        u, v = (x - points[:, 0].mean()) / 24, (y - points[:, 1].mean()) / 30
        face = np.clip(1.3 - u**2 - v**2, 0, 1)[..., None] * [230, 170, 140]
        out.append(40 + 0.8 * face + 30 * np.sin(4 * u + 6 * v)[..., None] * (face > 0))
    return np.clip(out, 0, 255).astype(np.uint8)


def stage(settings: RendererSettings = SMALL) -> RendererStage:
    made = RendererStage(settings, [clip(track())], [clip(track())], seed=3, files=models())
    box = crops.square(track())
    cut = crops.crop(pictures(track()), box, settings.size)
    made.crops["none", "a"] = crops.FaceCrops(cut, crops.in_crop(track(), box, settings.size))
    return made


def tensors(made: RendererStage, step: int = 5) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in made.batch(step).items()}


def test_batches_have_their_shapes_and_depend_on_seed_and_step_alone() -> None:
    made = stage()
    first, again, other = made.batch(5), stage().batch(5), made.batch(6)
    shapes = {"real": (2, 3, 32, 32), "masked": (2, 3, 32, 32), "wanted": (2, 9, 32, 32), "whole": ()}
    shapes |= {"pictures": (2, 2, 3, 32, 32), "sketches": (2, 2, 3, 32, 32)}
    assert {name: value.shape for name, value in first.items()} == shapes
    assert all(value.dtype == np.float32 and 0 <= value.min() <= value.max() <= 1 for value in first.values())
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["real"], other["real"])
    assert not first["masked"][..., 16:, :].any() and (first["masked"] == first["real"])[..., :16, :].all()
    assert first["whole"] == 1 and made.batch(0)["whole"] == 0


def test_gradients_reach_every_parameter_of_each_player() -> None:
    made = stage()
    made.net.train()
    for player, wanted in made.optimizers().items():
        made.net.zero_grad()
        loss, parts = made.loss(tensors(made), player)
        loss.backward()
        names = {id(p): name for name, p in made.net.named_parameters()}
        for parameter in wanted.parameters:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, names[id(parameter)]
        assert all(torch.isfinite(value) for value in parts.values())
    every = {id(p) for w in made.optimizers().values() for p in w.parameters}
    assert every == {id(p) for p in made.net.parameters()}


def test_one_batch_is_learnt_by_heart() -> None:
    made = stage(replace(SMALL, w_gan=0.0, w_fm=0.0))
    batch = tensors(made)
    made.net.train()
    optimizer = torch.optim.Adam(made.optimizers()["generator"].parameters, lr=5e-3)
    seen = []
    for _ in range(50):
        loss, parts = made.loss(batch, "generator")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append((parts["per"].item(), parts["warp"].item()))
    assert seen[-1][0] < 0.15 * seen[0][0] and seen[-1][1] < 0.4 * seen[0][1], (seen[0], seen[-1])


def test_no_flow_is_the_identity_and_flow_counts_pixels() -> None:
    picture = torch.rand(1, 3, 6, 10)
    still = F.grid_sample(picture, sampling_grid(torch.zeros(1, 2, 6, 10)), align_corners=False)
    torch.testing.assert_close(still, picture)
    move = torch.zeros(1, 2, 6, 10)
    move[:, 0] = 2.0  # looks two pixels to the right
    moved = F.grid_sample(picture, sampling_grid(move), align_corners=False)
    torch.testing.assert_close(moved[..., :8], picture[..., 2:])


def test_equal_weights_and_no_flow_give_the_mean_reference() -> None:
    net = RendererNet(SMALL).eval()
    for layer in (net.flow.flow, net.flow.weight[-1]):
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
    known = torch.rand(1, 2, 3, 32, 32)
    _, _, warped = net.flow(known, torch.rand(1, 2, 3, 32, 32), torch.rand(1, 9, 32, 32))
    torch.testing.assert_close(warped, known.mean(dim=1), atol=1e-4, rtol=1e-4)


def test_losses_by_hand() -> None:
    verdicts = [[torch.zeros(1, 2, 1, 1), torch.full((1, 1, 2, 2), 0.5)], [torch.full((1, 1, 1, 1), 3.0)]]
    assert float(losses.least_squares(verdicts, True)) == 0.25 + 4
    assert float(losses.least_squares(verdicts, False)) == 0.25 + 9
    a = [[torch.zeros(1, 1, 2, 2)] * 4 + [torch.zeros(1)]] * 2
    b = [[torch.full((1, 1, 2, 2), float(k)) for k in range(4)] + [torch.ones(1)]] * 2
    assert float(losses.feature_matching(a, b)) == 6.0  # (0 + 1 + 2 + 3) * 4 / 4, the same at both scales
    x = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    torch.testing.assert_close(losses.gram(x), torch.tensor([[[5.0, 11.0], [11.0, 25.0]]]) / 4)


def test_the_critic_halves_and_gives_a_verdict_a_patch() -> None:
    maps = losses.PatchCritic()(torch.rand(1, 3, 128, 128))
    assert [m.shape[1:] for m in maps[0]] == [(64, 65, 65), (128, 33, 33), (256, 17, 17), (512, 18, 18), (1, 19, 19)]
    assert len(maps) == 2 and maps[1][0].shape[1:] == (64, 33, 33)


def test_vgg19_has_torchvisions_layers() -> None:
    """Indices of the convolutions in torchvision 0.20's vgg19().features, and the channels of the five layers."""
    network = losses.Vgg19()
    assert network.indices == [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28]
    images = torch.rand(1, 3, 32, 32)
    assert [f.shape[1:] for f in network(images)] == [
        (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)]  # fmt: skip
    assert float(losses.perceptual(network, images, images)) == 0
    assert float(losses.perceptual(network, images, 1 - images)) > 0
    assert not any(p.requires_grad for p in network.parameters())


def test_a_crop_and_its_points_agree() -> None:
    frame = np.zeros((1, 96, 96, 3), np.uint8)
    frame[0, 40:43, 60:63] = 255  # centre at 61.5, 41.5 px
    box = np.array([20.0, 10.0, 64.0], np.float32)
    small = crops.crop(frame, box, 32)[0, ..., 0].astype(float)
    y, x = np.mgrid[:32, :32] + 0.5
    centre = [(small * x).sum() / small.sum(), (small * y).sum() / small.sum()]
    np.testing.assert_allclose(centre, crops.in_crop(np.array([[[61.5, 41.5, 0]]]), box, 32)[0, 0], atol=0.1)


@pytest.mark.parametrize("region", ["lower", "whole"])
def test_a_checkpoint_draws_only_its_region(region: str, tmp_path: Path) -> None:
    made = stage(replace(SMALL, region=region))  # type: ignore[arg-type]
    path = tmp_path / "renderer.safetensors"
    checkpoints.save(path, made.net.state_dict(), made.record(), {"trained_on": {}})
    renderer, marks = FlowRenderer(path), track(5)
    base = pictures(marks)
    out = renderer.frames(marks, base[:2], marks[:2], base, marks)
    assert out.shape == base.shape and out.dtype == np.uint8
    changed = (out != base).any(axis=(0, 3))
    box = crops.square(marks)
    top = box[1] + (box[2] / 2 if region == "lower" else 0)
    assert changed.any() and not changed[: int(top) - 1].any() and not changed[:, : int(box[0])].any()
    assert renderer.revision == f"flow-2-{checkpoints.revision(path)}"
    np.testing.assert_array_equal(out, FlowRenderer(path).frames(marks, base[:2], marks[:2], base, marks))
    assert renderer.frames(marks, base[:2], marks[:2]).shape == base.shape  # the first reference moves


@pytest.mark.parametrize("region", ["lower", "whole"])
def test_a_white_face_on_a_white_picture_has_no_border(region: str, tmp_path: Path) -> None:
    made = stage(replace(SMALL, region=region))  # type: ignore[arg-type]
    torch.nn.init.constant_(made.net.generator.last.bias, 1000)  # the sigmoid is 1: white
    path, marks = tmp_path / "renderer.safetensors", track(5)
    checkpoints.save(path, made.net.state_dict(), made.record(), {"trained_on": {}})
    white = np.full((5, 96, 96, 3), 255, np.uint8)
    np.testing.assert_array_equal(FlowRenderer(path).frames(marks, white[:2], marks[:2], white, marks), white)
