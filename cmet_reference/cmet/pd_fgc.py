"""C-MET's PD-FGC codec: the code of a frame is the 30 emotion values that PD-FGC computes for the frame.

The C-MET paper tests with this codec whether the connector also works with another face generator than EDTalk. This
file has no code of PD-FGC. The user names a git checkout of Dorniwang/PD-FGC-inference with the authors' weights. The
code of the checkout runs in this process, so name only a checkout that you trust. Source of the calls:
lib/inferencer.py (Tester) and lib/data/voxtest_dataset.py.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from cmet_reference.cmet.codec import Face, hash_of, held, smoothed_lips
from cmet_reference.cmet.edtalk import stays_on
from cmet_reference.cmet.speech import tensors_only
from talking_face.reasons import UserError

SIZE, MARGIN = 224, 16
MOUTH_GAIN, EYE_GAIN, EMOTION_GAIN = 1.5, 1.2, 1.2
_PARTS = ("net_appearance", "net_motion", "net_audio", "net_generator")
_BATCH = 8
_CONFIG = "configs/inference.yaml"
# Values that the networks read and that inference.yaml leaves out. Source: lib/config/config.py of PD-FGC-inference.
_DEFAULTS: Mapping[str, Any] = {
    "data": {"num_classes": 5995, "img_size": SIZE},
    "model": {"net_motion": {"motion_dim": 0, "emo_dim": 30}, "net_audio": {"n_mel_T": 4}},
}


class PDFGCCodec:
    """Runs PD-FGC's appearance network, motion network, audio network and generator."""

    name = "pd-fgc"
    size = 30

    def __init__(self, checkout: Path, device: str = "cpu") -> None:
        """Raises UserError if the checkout has no code, no configuration or no weight file."""
        self.device = torch.device(device)
        settings = _checked_settings(checkout)
        self.revision = revision_of(checkout)
        with _importing(checkout) as load, tensors_only(), _loaded_on_cpu():
            nets = load("lib.model_builder").make_model(settings)
            self._audio = load("lib.data.AudioConfig").AudioConfig(num_frames_per_clip=5, hop_size=160)
        self.appearance, self.motion, self.audio, self.generator = (net.eval().to(self.device) for net in nets)

    @torch.inference_mode()
    def encode(self, face: Face) -> np.ndarray:
        return self._motion(face)[2].cpu().numpy()

    @torch.inference_mode()
    def lips(self, audio: np.ndarray, identity: Face, frames: int) -> np.ndarray:
        """(frames, 500) mouth embeddings of the audio, multiplied by 1.5 and smoothed as in C-MET.

        An embedding needs a window of five frames. The first two and the last two frames use the nearest full window.
        """
        wave = self._audio.audio_normalize(audio.astype(np.float64) / 32768)
        rows = np.asarray(self._audio.audio_to_spectrogram(wave), np.float32)  # (4 per frame, 80)
        a_frame, window = self._audio.num_bins_per_frame, 5 * self._audio.num_bins_per_frame
        if len(rows) < window:
            raise UserError(f"PD-FGC needs five frames of audio, got {len(rows) // a_frame}")
        start = np.clip((np.arange(frames) - 2) * a_frame, 0, len(rows) - window)
        windows = torch.from_numpy(np.stack([rows[s : s + window].T for s in start]))[:, None]
        mouths = [self.audio.forward(part.to(self.device))[1].cpu() for part in windows.split(_BATCH)]
        return smoothed_lips(MOUTH_GAIN * torch.cat(mouths).numpy())

    @torch.inference_mode()
    def decode(self, identity: Face, lips: np.ndarray, pose: Face, codes: np.ndarray) -> np.ndarray:
        """Draws (T, 224, 224, 3) uint8 RGB. Only the first frame of `identity` is used."""
        n = len(lips)
        who = _pictures(identity.need("frames", self.name)[:1]).to(self.device)
        with stays_on(self.device):
            feature, _ = self.appearance(who)
        head, eyes, _ = (x.cpu().numpy() for x in self._motion(pose))
        style = np.concatenate(
            [lips, EMOTION_GAIN * held(codes, n), EYE_GAIN * held(eyes, n), _three_means(held(head, n))], axis=1
        )
        out = []
        for part in torch.from_numpy(style.astype(np.float32)).split(_BATCH):
            whole = torch.cat([feature[0].repeat(len(part), 1), part.to(self.device)], dim=1)
            with stays_on(self.device):
                drawn, _ = self.generator([whole], identity_style=feature[1].repeat(len(part), 1, 1, 1))
            out.append(drawn.reshape(-1, 3, SIZE, SIZE).cpu())
        video = torch.cat(out).clamp(-1, 1).add(1).mul(127.5).byte()
        return np.ascontiguousarray(video.permute(0, 2, 3, 1).numpy())

    def _motion(self, face: Face) -> tuple[Tensor, Tensor, Tensor]:
        """The head pose, (T, 6), the motion of the eyes, (T, 6), and the emotion, (T, 30), of a video."""
        parts = []
        for part in _pictures(face.need("frames", self.name)).split(_BATCH):
            with stays_on(self.device):
                head, eyes, emotion, _ = self.motion(part.to(self.device))
            parts.append((head, eyes, emotion))
        head, eyes, emotion = (torch.cat(column) for column in zip(*parts, strict=True))
        return head, eyes, emotion


def revision_of(checkout: Path) -> str:
    """A digest of the code and the weights that the codec uses, 12 hexadecimal digits.

    Raises UserError if the checkout has no code, no configuration or no weight file.
    """
    model = _checked_settings(checkout).model
    weights = [Path(getattr(model, part).pretrained_model) for part in _PARTS]
    return hash_of((*(checkout / "lib").rglob("*.py"), checkout / _CONFIG, *weights), checkout)


def _checked_settings(checkout: Path) -> Any:
    """The settings of the checkout, with the paths of the weight files. UserError if code or weights are absent."""
    if not (checkout / "lib/model_builder.py").is_file() or not (checkout / _CONFIG).is_file():
        raise UserError(
            f"{checkout} is not a checkout of PD-FGC: it has no lib/model_builder.py and {_CONFIG}. "
            "Clone https://github.com/Dorniwang/PD-FGC-inference and name its folder: codec = 'pd-fgc:FOLDER'"
        )
    settings = _settings(checkout / _CONFIG)
    for part in _PARTS:
        model = getattr(settings.model, part)
        model.pretrained_model = str(checkout / model.pretrained_model)
        if not Path(model.pretrained_model).is_file():
            raise UserError(
                f"{model.pretrained_model} is absent; the README of PD-FGC-inference has the address of its weights"
            )
    return settings


@contextmanager
def _loaded_on_cpu() -> Iterator[None]:
    """Inside the block, torch.load puts tensors on the CPU, because the authors' code calls it without a device."""
    before = torch.load

    def load(path: str, **given: Any) -> Any:
        return before(path, **{"map_location": "cpu", **given})

    torch.load = load  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.load = before


def _pictures(frames: np.ndarray) -> Tensor:
    """Converts (T, H, W, 3) uint8 RGB to (T, 3, 224, 224) float32 in [-1, 1].

    Pictures are resized to 224 px. Then 16 px are removed from the left side, 16 px from the right side and 32 px from
    the bottom. The rest is resized to 224 px again.
    """
    out = []
    for frame in frames:
        fit = cv2.resize(frame, (SIZE, SIZE))[: SIZE - 2 * MARGIN, MARGIN : SIZE - MARGIN]
        out.append(cv2.resize(fit, (SIZE, SIZE)))
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _three_means(track: np.ndarray) -> np.ndarray:
    """Replaces each frame of (T, C) by the mean of the frame and its neighbours: two, or one at the ends."""
    return np.stack([track[max(0, i - 1) : i + 2].mean(axis=0) for i in range(len(track))])


def _settings(path: Path) -> Any:
    """The checkout's YAML file as an object with nested attributes."""
    try:
        import yaml
    except ImportError:
        raise UserError("PD-FGC's configuration is YAML: pip install pyyaml") from None

    def nested(value: Any) -> Any:
        return SimpleNamespace(**{k: nested(v) for k, v in value.items()}) if isinstance(value, Mapping) else value

    def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        inner = {k: merged(v, own[k]) for k, v in base.items() if isinstance(v, Mapping) and k in own}
        return {**base, **own, **inner}

    return nested(merged(_DEFAULTS, yaml.safe_load(path.read_text("utf-8"))))


@contextmanager
def _importing(checkout: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Gives a function that imports modules of the checkout, whose package is called `lib`.

    Other loaded modules called `lib` are hidden during the block and restored afterwards.
    """
    taken = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "lib"}
    sys.path.insert(0, str(checkout))

    def load(name: str) -> ModuleType:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"{checkout}/{name.replace('.', '/')}.py cannot be imported ({error})") from None

    try:
        yield load
    finally:
        sys.path.remove(str(checkout))
        for name in [name for name in sys.modules if name.split(".")[0] == "lib"]:
            del sys.modules[name]
        sys.modules.update(taken)
