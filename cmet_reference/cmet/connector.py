"""C-MET's connector network, the only trained part: maps a direction of speech to a direction of expression codes.

Compare src/connector.py of ChanHyeok-Choi/C-MET. Tokens, tokenizers and the order of operations are the released ones.
A code of another size than 10 leaves several positions after the strided convolutions, and their mean is used; with 10
there is one. The released class cannot read such codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

REFERENCE, SPEECH, INPUT = 1, 2, 3  # rows of the modality embedding; row 0 is its unused padding
_MAX_LENGTH = 512  # of the position table


@dataclass(frozen=True)
class ConnectorSettings:
    """The defaults are the paper's: 27,691,096 parameters."""

    code: int = 10  # numbers of an expression code: EDTalk and blendshapes 10, PD-FGC 30
    speech: int = 1024  # numbers of an utterance vector: emotion2vec_plus_large 1024
    width: int = 1024
    layers: int = 4
    heads: int = 4
    feed_forward: int = 1024
    dropout: float = 0.1
    window: int = 5  # frames of a block


class Tokens(NamedTuple):
    """The tokenizers' outputs before positions are added, for the contrastive loss. Each (B, n, width)."""

    reference: Tensor
    speech: Tensor
    input: Tensor


class ConvBlock(nn.Module):
    """Convolution, batch norm, the input added where `residual`, activation."""

    def __init__(
        self, n_in: int, n_out: int, size: int, stride: int, pad: int, residual: bool = False, tanh: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, size, stride, pad)
        self.norm = nn.BatchNorm1d(n_out)
        self.residual = residual
        self.act = nn.Tanh() if tanh else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, L) to (N, n_out, L')."""
        out = self.norm(self.conv(x))
        return self.act(out + x if self.residual else out)


class VisualTokenizer(nn.Module):
    """One code to one token, each frame alone, by 13 convolutions along the code: length 10, 5, 3, 1.

    Batch norm mixes all frames of a batch while training.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # Below a width of 1024 the last layers have at most this width.
        c = [min(n, width) for n in (64, 128, 256, 512)]
        self.blocks = nn.Sequential(
            ConvBlock(1, 4, 3, 1, 1),
            ConvBlock(4, 8, 3, 2, 1),
            ConvBlock(8, 8, 3, 1, 1, residual=True),
            ConvBlock(8, 8, 3, 1, 1, residual=True),
            ConvBlock(8, 16, 3, 2, 1),
            ConvBlock(16, 16, 3, 1, 1, residual=True),
            ConvBlock(16, 16, 3, 1, 1, residual=True),
            ConvBlock(16, 32, 2, 2, 0),
            ConvBlock(32, c[0], 1, 1, 0),
            ConvBlock(c[0], c[1], 1, 1, 0),
            ConvBlock(c[1], c[2], 1, 1, 0),
            ConvBlock(c[2], c[3], 1, 1, 0),
            ConvBlock(c[3], width, 1, 1, 0, tanh=True),
        )

    def forward(self, codes: Tensor) -> Tensor:
        """(B, n, code) to (B, n, width)."""
        batch, n, size = codes.shape
        return self.blocks(codes.reshape(batch * n, 1, size)).mean(dim=-1).reshape(batch, n, -1)


class SpeechTokenizer(nn.Module):
    """Linear, GELU, layer norm: the activation is before the norm."""

    def __init__(self, speech: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(speech, width)
        self.act = nn.GELU()
        self.norm = nn.LayerNorm(width)

    def forward(self, vector: Tensor) -> Tensor:
        """(B, 1, speech) to (B, 1, width)."""
        return self.norm(self.act(self.linear(vector)))


class Connector(nn.Module):
    """A transformer over {reference directions} || {speech direction} || {input codes}: 5 + 1 + 5 tokens."""

    position: Tensor

    def __init__(self, settings: ConnectorSettings | None = None) -> None:
        super().__init__()
        s = self.settings = settings or ConnectorSettings()
        self.modality = nn.Embedding(4, s.width, padding_idx=0)
        self.dropout = nn.Dropout(s.dropout)
        layer = nn.TransformerEncoderLayer(s.width, s.heads, s.feed_forward, s.dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, s.layers, enable_nested_tensor=False)
        self.input_tokenizer = VisualTokenizer(s.width)
        self.reference_tokenizer = VisualTokenizer(s.width)
        self.speech_tokenizer = SpeechTokenizer(s.speech, s.width)
        self.head = nn.Sequential(nn.Linear(s.width, s.code), nn.GELU(), nn.Linear(s.code, s.code))
        self.apply(_initialise)
        self.visual_norm = nn.LayerNorm(s.width)  # one for both visual tokenizers
        self.register_buffer("position", _sinusoids(_MAX_LENGTH, s.width), persistent=False)

    def forward(self, reference: Tensor, speech: Tensor, codes: Tensor) -> tuple[Tensor, Tokens]:
        """The direction to add to the codes.

        Args:
            reference: (B, window, code) directions of the block before, zeros for the first.
            speech: (B, 1, speech) utterance vectors of the target emotion minus those of the source emotion.
            codes: (B, window, code) expression codes to change.

        Returns:
            (B, window, code) direction, and the tokens.
        """
        tokens = Tokens(
            self.visual_norm(self.reference_tokenizer(reference)),
            self.speech_tokenizer(speech),
            self.visual_norm(self.input_tokenizer(codes)),
        )
        kind = self.modality.weight
        n = codes.shape[1]
        joined = torch.cat(
            [
                tokens.reference + self.position[: reference.shape[1]] + kind[REFERENCE],
                tokens.speech + kind[SPEECH],  # no position
                tokens.input + self.position[:n] + kind[INPUT],  # counts from 0 again
            ],
            dim=1,
        )
        return self.head(self.encoder(self.dropout(joined))[:, -n:]), tokens


def _initialise(module: nn.Module) -> None:
    """Xavier normal and bias 0 for every nn.Linear; attention's in_proj has another type and keeps torch's values."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        nn.init.zeros_(module.bias)


def _sinusoids(length: int, width: int) -> Tensor:
    """(length, width): sines in the even columns, cosines in the odd ones (Vaswani et al. 2017, section 3.5)."""
    frequency = torch.exp(torch.arange(0, width, 2).float() * -(math.log(10000.0) / width))
    angle = torch.arange(length).float()[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(length, width)


_RELEASED = (
    ("fusion_transformer_encoder.modality.", "modality."),
    ("fusion_transformer_encoder.transformer_encoder.", "encoder."),
    ("exp_encoder.", "input_tokenizer.blocks."),
    ("ref_encoder.", "reference_tokenizer.blocks."),
    ("speaker_encoder.proj.", "speech_tokenizer.linear."),
    ("speaker_encoder.norm.", "speech_tokenizer.norm."),
    ("projector.projector.", "head."),
    ("Norm.", "visual_norm."),
)


def from_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' state dict (entry `state_dict` of their checkpoint) under the names used here."""
    out = {}
    for name, value in state.items():
        if name.endswith((".position_r.pe", ".position_e.pe")):
            continue  # a table, computed here
        old, new = next(((old, new) for old, new in _RELEASED if name.startswith(old)), ("", ""))
        if not old:
            raise KeyError(f"{name} is not a tensor of C-MET's connector")
        name = new + name[len(old) :]
        out[name.replace(".conv_block.0.", ".conv.").replace(".conv_block.1.", ".norm.")] = value
    return out
