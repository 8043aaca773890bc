"""On a GPU every torch network gives the CPU's numbers to 1e-3 of their size (skipped by name without one), and every
wrapper asks one function where to run."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talking_face.pretrained import (
    arcface,
    emotion_fan,
    evaluator_networks,
    fan,
    i3d,
    inception,
    lpips_alex,
    store,
    syncnet,
    torch_nets,
)
from tests.i3d_stand_in import variables
from tests.models import models
from tests.stand_ins import seeded
from tests.syncnet_stand_in import babble, official_form, reference_net, smooth_frames

torch = pytest.importorskip("torch")
LOADED = (
    *(arcface.cached_r100, emotion_fan.cached_network, fan.cached_points_network, fan.cached_boxes_network),
    *(i3d.cached_network, inception.cached_network, lpips_alex.cached_features, lpips_alex.cached_heads),
    syncnet.cached_syncnet,
)
CORPUS_LABELS = tuple("abcdefgh")


def _fan_maps() -> np.ndarray:
    net, where = fan.cached_points_network(store.weight_file("fan_2d_4", files=models()))
    with torch_nets.inference():
        return np.asarray(net(torch.from_numpy(shown(1, 256).transpose(0, 3, 1, 2) / np.float32(255)).to(where)).cpu())


def _s3fd_maps() -> np.ndarray:
    net, where = fan.cached_boxes_network(store.weight_file("fan_s3fd", files=models()))
    with torch_nets.inference():
        levels = net(torch.from_numpy(shown(1, 128).transpose(0, 3, 1, 2).astype(np.float32) - 110).to(where))
    return np.concatenate([part.cpu().numpy().ravel() for level in levels for part in level])


def _corpus() -> np.ndarray:
    torch.manual_seed(0)
    mouths = smooth_frames(9, 96, 3)[..., 0].copy()
    net = evaluator_networks.LipSyncEvaluator(evaluator_networks.build_syncnet(), "stand-in", torch_nets.device())
    return np.concatenate([net.lip(mouths).ravel(), net.sound(babble(11 * 640, 2), 5).ravel()])


def shown(n: int, side: int) -> np.ndarray:
    return smooth_frames(n, side, 1)


# What the folder must hold for each wrapper, and a call of it.
CASES: dict[str, tuple[Callable[[], Mapping[str, Any]], Callable[[], np.ndarray]]] = {
    "inception": (
        lambda: {inception.NAME: seeded(inception.build())},
        lambda: inception.inception_features(shown(2, 120), files=models()),
    ),
    "arcface": (
        lambda: {arcface.R100: seeded(arcface.iresnet())},
        lambda: arcface.embed_r100(shown(2, 112), files=models()),
    ),
    "emotion-fan-7": (
        lambda: {emotion_fan.SEVEN: seeded(emotion_fan.build(emotion_fan.SEVEN))},
        lambda: emotion_fan.emotions(shown(2, 224), emotion_fan.SEVEN, files=models()),
    ),
    "emotion-fan-8": (
        lambda: {emotion_fan.EIGHT: seeded(emotion_fan.build(emotion_fan.EIGHT))},
        lambda: emotion_fan.emotions(shown(2, 224), emotion_fan.EIGHT, files=models()),
    ),
    "fan": (lambda: {"fan_2d_4": seeded(fan.fan_network())}, _fan_maps),
    "fan-s3fd": (lambda: {"fan_s3fd": seeded(fan.s3fd_network())}, _s3fd_maps),
    "syncnet-lips": (
        lambda: {"syncnet_v2": official_form(reference_net())},
        lambda: syncnet.syncnet(files=models()).lip(shown(6, 224)),
    ),
    "syncnet-sound": (
        lambda: {"syncnet_v2": official_form(reference_net())},
        lambda: syncnet.syncnet(files=models()).sound(babble(11 * 640, 2), 6),
    ),
    "corpus": (dict, _corpus),
    "i3d": (lambda: {i3d.NAME: variables()}, lambda: i3d.i3d_logits(shown(9, 64), files=models())),
    "lpips": (
        lambda: {
            lpips_alex.BACKBONE: seeded(lpips_alex.build_features()),
            lpips_alex.HEADS: {
                f"lin{k.split('.')[0]}.model.1.weight": value for k, value in seeded(lpips_alex.build_heads()).items()
            },
        },
        lambda: lpips_alex.lpips_alex(shown(2, 64), shown(4, 64)[2:], files=models()),
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in which alone the store looks for files, whose hashes it does not ask for."""
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CMET_EVAL_CACHE", str(tmp_path / "cache"))
    free = {k: v.model_copy(update={"sha256": None, "wheel": None}) for k, v in store.registry().items()}
    monkeypatch.setattr(store, "registry", lambda: free)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    for cached in LOADED:
        cached.cache_clear()


@pytest.mark.parametrize("name", CASES)
def test_the_gpu_gives_the_cpus_numbers(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU: its numbers are not compared with the CPU's")
    found = {}
    hold(folder, CASES[name][0]())
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(torch_nets, "device", lambda device=device: device)
        monkeypatch.setattr(fan, "device", torch_nets.device)
        forget()
        found[device] = CASES[name][1]()
    size = np.abs(found["cpu"]).max()
    np.testing.assert_allclose(found["cuda"] / size, found["cpu"] / size, atol=1e-3)


def test_every_wrapper_asks_the_one_helper_where_to_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's `meta` device computes nothing: whatever runs on it cannot give a number."""
    asked = []
    monkeypatch.setattr(torch_nets, "device", lambda: asked.append(1) or "meta")
    monkeypatch.setattr(fan, "device", torch_nets.device)
    for name in ("emotion-fan-7", "lpips", "corpus", "syncnet-sound"):
        hold(folder, CASES[name][0]())
        asked.clear()
        with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
            CASES[name][1]()
        assert asked, name


def hold(folder: Path, states: Mapping[str, Any]) -> None:
    for name, state in states.items():
        path = folder / store.weight(name).file
        if name == i3d.NAME:
            path.write_bytes(pickle.dumps(state))
        else:
            torch.save(state, path)
