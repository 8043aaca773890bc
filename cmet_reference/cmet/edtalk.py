"""C-MET's EDTalk codec: the code of a frame is EDTalk's ten expression weights, and EDTalk's generator draws the face.

This file has no code of EDTalk. The user names a git checkout with the authors' weights. It is a checkout of
tanshuai0219/EDTalk, or of ChanHyeok-Choi/C-MET, which contains EDTalk's networks. The code of the checkout runs in this
process, so name only a checkout that you trust. Source of the calls: networks/generator.py of EDTalk (compute_alpha_D,
test_EDTalk_AV_use_exp_weight) and inference.py of C-MET.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from cmet_reference.cem_net import audio as sound
from cmet_reference.cmet.codec import Face, held, smoothed_lips
from talking_face.reasons import UserError

SIZE = 256
_PACKAGES = ("src/EDTalk/networks", "networks")  # folders of the networks in C-MET's and EDTalk's checkout
_WEIGHTS = ("pretrained_weights", "ckpts")
_BATCH = 16


class EDTalkCodec:
    """Runs EDTalk's encoder, audio-to-lip network and generator."""

    name = "edtalk"
    size = 10

    def __init__(self, checkout: Path, device: str = "cpu") -> None:
        """Raises UserError if the checkout lacks the code or a weight file, or if a weight file does not fit."""
        checkout = Path(checkout)
        folder = next((checkout / p for p in _PACKAGES if (checkout / p / "generator.py").is_file()), None)
        if folder is None:
            raise UserError(
                f"{checkout} is not a checkout of EDTalk or C-MET: it has no {' or '.join(_PACKAGES)} with generator.py"
                ". Clone https://github.com/tanshuai0219/EDTalk and name its folder: codec = 'edtalk:FOLDER'"
            )
        self.device = torch.device(device)
        generator, lips = import_from(folder, "generator"), import_from(folder, "audio_encoder")
        self.net = generator.Generator(
            SIZE, style_dim=512, lip_dim=20, pose_dim=6, exp_dim=self.size, channel_multiplier=1
        )
        self.audio2lip = lips.Audio2Lip()
        for net, file, key in ((self.net, "EDTalk.pt", "gen"), (self.audio2lip, "Audio2Lip.pt", "audio2lip")):
            _fill(net, _weights(checkout, file), key)
            net.eval().to(self.device)

    @torch.inference_mode()
    def encode(self, face: Face) -> np.ndarray:
        pictures = _pictures(face.need("frames", self.name))
        codes = []
        for part in pictures.split(_BATCH):
            style = self.net.enc(part.to(self.device), None)[0]
            codes.append(self.net.exp_fc(self.net.fc(style)).cpu())
        return torch.cat(codes).numpy()

    @torch.inference_mode()
    def lips(self, audio: np.ndarray, identity: Face, frames: int) -> np.ndarray:
        """(frames, 20) lip weights of the audio, smoothed as in C-MET."""
        mels = sound.mel_windows(sound.mel(sound.to_length(audio, frames)), np.arange(frames))
        given = torch.from_numpy(mels)[:, None].to(self.device)
        return smoothed_lips(self.audio2lip(given, 1, frames)[0].cpu().numpy())

    @torch.inference_mode()
    def decode(self, identity: Face, lips: np.ndarray, pose: Face, codes: np.ndarray) -> np.ndarray:
        """Draws (T, 256, 256, 3) uint8 RGB. Only the first frame of `identity` is used.

        The generator's values are clamped to [-1, 1]. C-MET's save_video instead stretches the values of each video to
        the full range.
        """
        net, n = self.net, len(lips)
        who = _pictures(identity.need("frames", self.name)[:1]).to(self.device)
        poses = _pictures(pose.need("frames", self.name)[:n])
        style, _, features, _ = net.enc(who, None)
        out = []
        for i in range(n):
            posed = net.enc(poses[min(i, len(poses) - 1)][None].to(self.device), None)[0]
            weights = torch.cat(
                [
                    torch.from_numpy(lips[i : i + 1]).to(self.device),
                    net.pose_fc(net.fc(posed)),
                    torch.from_numpy(np.ascontiguousarray(held(codes, n)[i : i + 1])).to(self.device),
                ],
                dim=1,
            )
            bank = net.direction_lipnonlip.weight
            expression = net.direction_exp.get_exp_latent(net.direction_exp.get_shared_out(weights, bank))
            with stays_on(self.device):
                out.append(
                    net.dec(style + net.direction_exp(weights, bank), [f.clone() for f in features], expression).cpu()
                )
        video = torch.cat(out).clamp(-1, 1).add(1).mul(127.5).round().byte()
        return np.ascontiguousarray(video.permute(0, 2, 3, 1).numpy())


@contextmanager
def stays_on(device: torch.device) -> Iterator[None]:
    """Inside the block, `tensor.cuda()` does `tensor.to(device)`, because the authors' layers always call `cuda()`."""
    before = torch.Tensor.cuda
    torch.Tensor.cuda = lambda self, *_, **__: self.to(device)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        torch.Tensor.cuda = before  # type: ignore[method-assign]


def _pictures(frames: np.ndarray) -> Tensor:
    """Converts (T, H, W, 3) uint8 RGB to (T, 3, 256, 256) float32 in [-1, 1]."""
    fit = np.stack([cv2.resize(f, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for f in frames])
    return torch.from_numpy(fit).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def _weights(checkout: Path, file: str) -> Path:
    for folder in _WEIGHTS:
        if (path := checkout / folder / file).is_file():
            return path
    raise UserError(
        f"{checkout / _WEIGHTS[0] / file} is absent. The authors' weights are in coldhyuk/C-MET on the model hub: "
        f"pretrained_weights/{file}"
    )


def _fill(net: nn.Module, path: Path, key: str) -> None:
    """Load the state dict called `key` of a torch file into the network. Only tensors are read, no code runs."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        state = found[key]
        if not isinstance(state, Mapping):
            raise TypeError(f"{key} is a {type(state).__name__}")
        net.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not the expected file ({str(error).splitlines()[0]})") from None
    except Exception as error:  # e.g. pickle.UnpicklingError, if the file has more than tensors
        raise UserError(f"{path} cannot be read as tensors ({str(error).splitlines()[0]})") from None


def import_from(folder: Path, name: str) -> ModuleType:
    """Imports a module of the checkout's package under a unique package name.

    The unique name must be the name of a package, because the modules of the checkout import each other relatively.
    """
    package = f"_edtalk_{abs(hash(folder.resolve())):x}"
    if package not in sys.modules:
        parent = ModuleType(package)
        parent.__path__ = [str(folder)]
        sys.modules[package] = parent
    try:
        return importlib.import_module(f"{package}.{name}")
    except ImportError as error:
        raise UserError(f"{folder / name}.py cannot be imported ({error})") from None
