"""Audio2Mouth, CEM-Net's lip network: predicts lips and jaw from audio, reference faces, and the upper face.

Audio2Mouth is IP-LAP's landmark generator (Weizhi-Zhong/IP_LAP, models/landmark_generator.py) with N = 5 references and
windows of T = 5 frames. Its coordinates differ from the coordinates in CEM-Net and IP-LAP: points are three-dimensional
and in the head's frame (see `cmet_reference.geometry`). The output is a displacement from the mean of the references.
With these coordinates, a network that is trained on four speakers also works for a fifth. With pixels of a crop, a
network of this size memorises the faces of the training speakers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cmet_reference.cem_net import audio as sound
from cmet_reference.training import checkpoints

# MediaPipe's indices in the order of IP-LAP (train_landmarks_generator.py, ori_sequence_idx). The order follows the
# lines of the face, so that neighbours in a list are neighbours on the face. This matters, because the convolutions run
# along the list.
# fmt: off
JAW = (132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361)
LIPS = (
    61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146,
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95,
)
UPPER = (
    162, 127, 234, 93, 323, 454, 356, 389,
    70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 336, 296, 334, 293, 300, 276, 283, 282, 295, 285,
    168, 6, 197, 195, 5, 48, 115, 220, 45, 4, 275, 440, 344, 278,
    33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7,
    362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382,
)
# fmt: on
POINTS = JAW + LIPS  # the 57 points of the output
_ALL = UPPER + POINTS  # the 131 points of a reference

KIND = "audio2mouth"


@dataclass(frozen=True)
class Audio2MouthNetSettings:
    """The network's sizes. The defaults are the paper's values, or IP-LAP's if the paper gives none."""

    references: int = 5  # N, number of reference faces (IP-LAP: 15)
    frames: int = 5  # T, frames per window
    width: int = 512
    heads: int = 4
    layers: int = 4  # IP-LAP
    feed_forward: int = 1024  # IP-LAP
    dropout: float = 0.1  # IP-LAP
    # The output tokens from which lips and jaw are predicted. "pose": lips and jaw are predicted from the pose tokens,
    # which are the last T tokens, as in the paper's formula z_(N+T+t). "ip-lap": the lips are predicted from the audio
    # tokens and the jaw from the pose tokens, as in IP-LAP's code.
    read: Literal["pose", "ip-lap"] = "pose"


class Audio2Mouth(nn.Module):
    """The network that predicts the motion of lips and jaw from audio, reference faces and the upper face."""

    template: Tensor  # (478, 3), mean face in the head's frame
    positions: Tensor  # (T, width), position encodings
    unit: Tensor  # scalar: standard deviation of the mouth's displacements, in eye distances

    def __init__(
        self,
        settings: Audio2MouthNetSettings | None = None,
        template: np.ndarray | None = None,
        unit: float = 1.0,
    ) -> None:
        super().__init__()
        self.settings = s = settings or Audio2MouthNetSettings()
        self.mel_encoder = _mel_encoder(s.width)
        self.reference_encoder = _point_encoder(s.width, strided_from=1)
        self.pose_encoder = _point_encoder(s.width, strided_from=2)
        self.norm = nn.LayerNorm(s.width)  # shared by all three encoders, as in IP-LAP
        self.modality = nn.Embedding(3, s.width)  # rows: pose, audio, reference
        self.dropout = nn.Dropout(s.dropout)
        layer = nn.TransformerEncoderLayer(s.width, s.heads, s.feed_forward, s.dropout, batch_first=True)
        self.fusion = nn.TransformerEncoder(layer, s.layers, enable_nested_tensor=False)
        self.jaw = nn.Linear(s.width, 3 * len(JAW))
        self.lips = nn.Linear(s.width, 3 * len(LIPS))
        self.register_buffer("positions", _positions(s.frames, s.width), persistent=False)
        given = torch.zeros(478, 3) if template is None else torch.from_numpy(np.asarray(template, np.float32))
        self.register_buffer("template", given)
        self.register_buffer("unit", torch.tensor(unit, dtype=torch.float32))

    def forward(self, mels: Tensor, references: Tensor, upper: Tensor) -> Tensor:
        """The mouth's displacement from the references' mean.

        Args:
            mels: (B, T, 80, 16) windows of the mel spectrogram, -4 to 4.
            references: (B, N, 131, 3) in the head's frame; points of the upper face, then jaw, then lips.
            upper: (B, T, 74, 3) points of the upper face in the head's frame.

        Returns:
            (B, T, 57, 3) in eye distances; jaw, then lips.
        """
        return self.fuse(self.reference_tokens(references), self.audio_tokens(mels), self.pose_tokens(upper))

    def audio_tokens(self, mels: Tensor) -> Tensor:
        """Encodes mel windows (B, T, 80, 16) as tokens (B, T, width)."""
        return self._tokens(self.mel_encoder(mels.flatten(0, 1)[:, None]), len(mels))

    def reference_tokens(self, references: Tensor) -> Tensor:
        """Encodes reference faces (B, N, 131, 3) as tokens (B, N, width)."""
        return self._tokens(self.reference_encoder(self._standard(references, _ALL)), len(references))

    def pose_tokens(self, upper: Tensor) -> Tensor:
        """Encodes upper faces (B, T, 74, 3) as tokens (B, T, width)."""
        return self._tokens(self.pose_encoder(self._standard(upper, UPPER)), len(upper))

    def fuse(self, references: Tensor, audio: Tensor, pose: Tensor) -> Tensor:
        """Predicts displacements (B, T, 57, 3) from the tokens of B windows.

        Args:
            references: (B, N, width).
            audio, pose: (B, T, width).
        """
        n, t, kind = references.shape[1], audio.shape[1], self.modality.weight
        at = self.positions[:t]
        # References get no position, because their order has no meaning.
        tokens = torch.cat([references + kind[2], audio + at + kind[1], pose + at + kind[0]], dim=1)
        out = self.fusion(self.dropout(tokens))
        of_pose = out[:, n + t :]
        of_lips = of_pose if self.settings.read == "pose" else out[:, n : n + t]
        return torch.cat([self.jaw(of_pose), self.lips(of_lips)], dim=2).unflatten(2, (-1, 3)) * self.unit

    def _tokens(self, encoded: Tensor, batch: int) -> Tensor:
        return self.norm(encoded.flatten(1)).unflatten(0, (batch, -1))

    def _standard(self, points: Tensor, index: tuple[int, ...]) -> Tensor:
        """Converts points (B, S, P, 3) to (B S, 3, P), relative to the template and divided by `unit`."""
        return ((points - self.template[list(index)]) / self.unit).flatten(0, 1).transpose(1, 2)

    @torch.inference_mode()
    def mouth(self, audio: np.ndarray, references: np.ndarray, upper: np.ndarray, frames: int) -> np.ndarray:
        """Predicts lips and jaw of a whole clip.

        The network predicts every possible window of T frames. The result for a frame is the mean of its predictions in
        T windows. IP-LAP's inference uses windows that do not overlap, which causes a jump every T frames.

        Args:
            audio: (N,) int16, 16 kHz, 640 samples per frame. It is truncated to `frames`, or padded with silence.
            references: (R, 478, 3) float32 in the head's frame of this network's template, no NaN. Only N evenly spaced
                references are read (5 by default). The displacement is added to the mean of these N references.
            upper: (F, 478, 3) in the same head's frame: the face whose upper part is read in each frame. If there are
                more than `frames` frames, the rest is ignored; if there are fewer, the last frame is repeated.
            frames: the number of output frames.

        Returns:
            (frames, 57, 3) float32 in the head's frame: MediaPipe's points `POINTS`.
        """
        self.eval()
        device = self.template.device
        t = self.settings.frames
        take = np.linspace(0, len(references) - 1, self.settings.references).round().astype(int)
        known = torch.from_numpy(np.ascontiguousarray(references[take][:, _ALL], np.float32)).to(device)
        # The first windows start before the clip, and the last windows end after the clip, so every frame is in T
        # windows.
        at = np.arange(1 - t, frames + t - 1)
        mels = torch.from_numpy(sound.mel_windows(sound.mel(sound.to_length(audio, frames)), at)).to(device)
        held = np.clip(at, 0, min(frames, len(upper)) - 1)
        pose = torch.from_numpy(np.ascontiguousarray(upper[held][:, UPPER], np.float32)).to(device)
        # The tokens of a frame are the same in all windows, so they are computed only once.
        references_of, audio_of, pose_of = (
            self.reference_tokens(known[None]),
            self.audio_tokens(mels[None]),
            self.pose_tokens(pose[None]),
        )
        total = torch.zeros(len(at), len(POINTS), 3, device=device)
        for part in torch.arange(len(at) - t + 1, device=device).split(256):
            index = part[:, None] + torch.arange(t, device=device)
            moved = self.fuse(references_of.expand(len(part), -1, -1), audio_of[0, index], pose_of[0, index])
            total.index_add_(0, index.flatten(), moved.flatten(0, 1))
        mean = known[:, len(UPPER) :].mean(dim=0)
        return (mean + total[t - 1 : t - 1 + frames] / t).cpu().numpy()

    def record(self) -> dict[str, object]:
        """JSON values that `build` needs in addition to the tensors."""
        return asdict(self.settings)


def build(record: Mapping[str, Any], state: Mapping[str, Tensor]) -> Audio2Mouth:
    """The network of a loaded checkpoint, in evaluation mode. `record`: the result of `Audio2Mouth.record`."""
    net = Audio2Mouth(Audio2MouthNetSettings(**record))
    net.load_state_dict(dict(state))
    return net.eval()


def load(path: Path) -> Audio2Mouth:
    """The network of a checkpoint file, in evaluation mode. Raises UserError if the file cannot be used."""
    state, record = checkpoints.load(path, KIND)
    with checkpoints.as_saved(path, KIND):
        return build(record, state)


def loss(predicted: Tensor, truth: Tensor, weight: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the loss L1 + weight * continuity, and its two parts by name, in the units of the arguments.

    The continuity loss compares the steps between successive frames. A step is one vector with the motion of all
    points. The continuity loss is the length of the difference between predicted and true step, averaged over steps.
    CEM-Net's paper uses this loss; IP-LAP calls it the velocity loss. The weight is 1 in both papers.

    Args:
        predicted, truth: (B, T, P, 3).
    """
    far = (predicted - truth).abs().mean()
    steps = (predicted.diff(dim=1) - truth.diff(dim=1)).flatten(2)
    # As in torch's pairwise_distance, 1e-6 is added, so that the gradient of the square root is finite at zero.
    jump = (steps + 1e-6).norm(dim=2).mean()
    return far + weight * jump, {"l1": far, "continuity": jump}


# -- encoders ----------------------------------------------------------------------------------------------------------


class _Conv(nn.Module):
    """A convolution, batch norm and an activation. The input is added before the activation if the shapes are equal."""

    def __init__(
        self,
        dims: int,
        n_in: int,
        n_out: int,
        size: int = 3,
        stride: int | tuple[int, int] = 1,
        padding: int = 1,
        last: bool = False,
        residual: bool = True,
    ) -> None:
        super().__init__()
        conv: Callable[..., nn.Module] = nn.Conv1d if dims == 1 else nn.Conv2d
        norm: Callable[..., nn.Module] = nn.BatchNorm1d if dims == 1 else nn.BatchNorm2d
        self.conv, self.norm = conv(n_in, n_out, size, stride, padding), norm(n_out)
        self.residual = residual and n_in == n_out and stride == 1
        self.act: nn.Module = nn.Tanh() if last else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return self.act(y + x if self.residual else y)


def _mel_encoder(width: int) -> nn.Sequential:
    """13 two-dimensional convolutions that map (B, 1, 80, 16) to (B, width, 1, 1).

    At a width of 512 they have 32, 64, 128, 256 and 512 channels.
    """
    a, b, c, d = (max(4, width // k) for k in (16, 8, 4, 2))
    return nn.Sequential(
        *(_Conv(2, 1, a), _Conv(2, a, a), _Conv(2, a, a)),
        *(_Conv(2, a, b, stride=(3, 1)), _Conv(2, b, b), _Conv(2, b, b)),
        *(_Conv(2, b, c, stride=3), _Conv(2, c, c), _Conv(2, c, c)),
        *(_Conv(2, c, d, stride=(3, 2)), _Conv(2, d, d)),
        *(_Conv(2, d, width, padding=0), _Conv(2, width, width, 1, padding=0, last=True, residual=False)),
    )


def _point_encoder(width: int, strided_from: int) -> nn.Sequential:
    """One-dimensional convolutions along the list of points: (B, 3, 131 or 74) to (B, width, 1).

    The encoder has seven levels. From level to level the number of channels doubles; at width 512 it rises from 4 to
    256. Level `strided_from` and all later levels halve the number of points. The second-to-last convolution joins the
    last 3 positions. As in IP-LAP, the encoder of the references has 20 layers and the encoder of the pose has 21. The
    last layer of the pose encoder adds its input to its output.
    """
    channels = [max(4, width >> k) for k in range(7, 0, -1)]
    layers: list[nn.Module] = [_Conv(1, 3, channels[0])]
    for k, n_out in enumerate(channels[1:], start=1):
        layers += [_Conv(1, channels[k - 1], n_out, stride=2 if k >= strided_from else 1)]
        layers += [_Conv(1, n_out, n_out), _Conv(1, n_out, n_out)]
    if strided_from == 1:
        del layers[-1]
    layers += [
        _Conv(1, channels[-1], width, padding=0),
        _Conv(1, width, width, 1, padding=0, last=True, residual=strided_from > 1),
    ]
    return nn.Sequential(*layers)


def _positions(n: int, width: int) -> Tensor:
    """Position encodings, (n, width): sines in even columns, cosines in odd columns (Vaswani et al. 2017, 3.5)."""
    at = torch.arange(n)[:, None] * torch.exp(torch.arange(0, width, 2) * (-np.log(10000.0) / width))
    return torch.stack([at.sin(), at.cos()], dim=2).flatten(1).float()
