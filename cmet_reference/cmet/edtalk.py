"""C-MET's EDTalk codec: the code of a frame is EDTalk's ten expression weights, and EDTalk's generator draws the face.

This file has no code of EDTalk. The user names a git checkout with the authors' weights. It is a checkout of
tanshuai0219/EDTalk, or of ChanHyeok-Choi/C-MET, which contains EDTalk's networks. The code of the checkout runs in this
process, so name only a checkout that you trust. Source of the calls: networks/generator.py of EDTalk (compute_alpha_D,
test_EDTalk_AV_use_exp_weight) and inference.py of C-MET.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cmet_reference.cem_net import audio as sound
from cmet_reference.cmet.codec import Face, as_bytes, hash_of, held, smoothed_lips
from talking_face.reasons import UserError

SIZE = 256
_PACKAGES = ("src/EDTalk/networks", "networks")  # folders of the networks in C-MET's and EDTalk's checkout
_WEIGHTS = ("pretrained_weights", "ckpts")
# Pictures per batch. EDTalk's encoder needs 0.24 GB per picture. On a CPU, larger batches are not faster, and the
# generator's sums over one picture are rounded as in inference.py, which draws one picture at a time.
_BATCH, _CPU_BATCH = 32, 1


class EDTalkCodec:
    """Runs EDTalk's encoder, audio-to-lip network and generator."""

    name = "edtalk"
    size = 10

    def __init__(self, checkout: Path, device: str = "cpu", stretched: bool = False) -> None:
        """Loads the networks.

        Args:
            checkout: a folder with the code and the weights.
            device: a torch device.
            stretched: how the pictures are converted to bytes; see `codec.as_bytes`.

        Raises:
            UserError: the checkout lacks the code or a weight file, or a weight file does not fit.
        """
        folder, weights = files_of(checkout)
        self.device, self.stretched = torch.device(device), stretched
        self._batch = _CPU_BATCH if self.device.type == "cpu" else _BATCH
        self.revision = revision_of(checkout)
        generator, lips = import_from(folder, "generator"), import_from(folder, "audio_encoder")
        self.net = generator.Generator(
            SIZE, style_dim=512, lip_dim=20, pose_dim=6, exp_dim=self.size, channel_multiplier=1
        )
        self.audio2lip = lips.Audio2Lip()
        for net, path, key in zip((self.net, self.audio2lip), weights, ("gen", "audio2lip"), strict=True):
            _fill(net, path, key)
            net.eval().to(self.device)

    @torch.inference_mode()
    def encode(self, face: Face) -> np.ndarray:
        # All frames in one call, as in compute_alpha_D: a matrix product is rounded differently in batches of 1.
        codes = self.net.exp_fc(self.net.fc(self._styles(face.need("frames", self.name))))
        return np.asarray(codes.cpu().numpy())

    @torch.inference_mode()
    def lips(self, audio: np.ndarray, identity: Face, frames: int) -> np.ndarray:
        """(frames, 20) lip weights of the audio, smoothed as in C-MET."""
        mels = sound.mel_windows(sound.mel(sound.to_length(audio, frames)), np.arange(frames))
        given = torch.from_numpy(mels)[:, None].to(self.device)
        return smoothed_lips(self.audio2lip(given, 1, frames)[0].cpu().numpy())

    @torch.inference_mode()
    def decode(self, identity: Face, lips: np.ndarray, pose: Face, codes: np.ndarray) -> np.ndarray:
        """Draws (T, 256, 256, 3) uint8 RGB. Only the first frame of `identity` is used."""
        net, n = self.net, len(lips)
        who = _still(identity.need("frames", self.name)[0]).to(self.device)
        style, _, features, _ = net.enc(who, None)
        styles = self._styles(pose.need("frames", self.name)[:n])
        poses = torch.cat([net.pose_fc(net.fc(one)) for one in styles.split(1)])  # one at a time, as inference.py
        at = torch.arange(n, device=self.device).clamp(max=len(poses) - 1)
        given = (torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(self.device) for x in (lips, held(codes, n)))
        spoken, expressed = given
        weights = torch.cat([spoken, poses[at], expressed], dim=1)
        with stays_on(self.device):
            drawn = [self._drawn(style, features, part).cpu() for part in weights.split(self._batch)]
        return as_bytes(torch.cat(drawn), self.stretched)

    def _styles(self, frames: np.ndarray) -> Tensor:
        """The output of EDTalk's encoder for each frame of a video, (T, 512)."""
        parts = range(0, len(frames), self._batch)
        return torch.cat([self.net.enc(_pictures(frames[k : k + self._batch]).to(self.device), None)[0] for k in parts])

    def _drawn(self, style: Tensor, features: Sequence[Tensor], weights: Tensor) -> Tensor:
        """The pictures, (B, 3, 256, 256), of one face with B rows of weights: 20 lips, 6 pose, 10 expression."""
        net, bank = self.net, self.net.direction_lipnonlip.weight
        expression = net.direction_exp.get_exp_latent(net.direction_exp.get_shared_out(weights, bank))
        # A copy of the features for each picture: the generator's layers may change their input in place.
        same = [f.repeat(len(weights), *[1] * (f.ndim - 1)) for f in features]
        return net.dec(style + net.direction_exp(weights, bank), same, expression)


def files_of(checkout: Path) -> tuple[Path, tuple[Path, Path]]:
    """The folder of the networks' code, and the weight files EDTalk.pt and Audio2Lip.pt. UserError if one is absent."""
    folder = next((checkout / p for p in _PACKAGES if (checkout / p / "generator.py").is_file()), None)
    if folder is None:
        raise UserError(
            f"{checkout} is not a checkout of EDTalk or C-MET: it has no {' or '.join(_PACKAGES)} with generator.py"
            ". Clone https://github.com/tanshuai0219/EDTalk and name its folder: codec = 'edtalk:FOLDER'"
        )
    return folder, (_weights(checkout, "EDTalk.pt"), _weights(checkout, "Audio2Lip.pt"))


def revision_of(checkout: Path) -> str:
    """A digest of the code and the weights that the codec uses, 12 hexadecimal digits. Raises the errors of `files_of`.

    Hashing takes 0.5 s for each GB.
    """
    folder, weights = files_of(checkout)
    return hash_of((*folder.glob("*.py"), *weights), checkout)


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
    """Converts (T, H, W, 3) uint8 RGB to (T, 3, 256, 256) float32 in [-1, 1], as vid_preprocessing of C-MET does.

    The filter is that of torchvision's Resize for tensors: bilinear, with antialiasing. Frames of 256 x 256 px are not
    filtered. The result is contiguous, because convolutions of other memory layouts are rounded differently.
    """
    rows = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    pictures = (rows.float() / 255 - 0.5).mul(2).contiguous()
    if pictures.shape[2:] == (SIZE, SIZE):
        return pictures
    return interpolate(pictures, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)


def _still(frame: np.ndarray) -> Tensor:
    """Converts one frame, (H, W, 3) uint8 RGB, to (1, 3, 256, 256) float32 in [-1, 1], as img_preprocessing does.

    The result is contiguous; see `_pictures`.
    """
    fit = np.asarray(Image.fromarray(frame).resize((SIZE, SIZE)))
    picture = torch.from_numpy(fit.transpose(2, 0, 1)[None] / 255.0).float()
    return (picture - 0.5).mul(2).contiguous()


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
