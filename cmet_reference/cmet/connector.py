"""The connector is the only trained network of C-MET: it maps a direction of speech to a direction of expression codes.

Tokens, tokenizers and the order of operations are those of src/connector.py in ChanHyeok-Choi/C-MET. One thing is
added: codes can have another size than 10, which the released class cannot read. After the strided convolutions, a code
of size 10 has one position. A larger code has several positions, and the mean over these positions is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

REFERENCE, SPEECH, INPUT = 1, 2, 3  # row of each kind of token in the embedding of kinds; row 0 is not used
_MAX_LENGTH = 512  # greatest number of positions that are encoded


@dataclass(frozen=True)
class ConnectorSettings:
    """Sizes of the network. The defaults are the paper's and give 27,691,096 parameters."""

    code: int = 10  # values in an expression code: 10 for EDTalk and blendshapes, 30 for PD-FGC
    speech: int = 1024  # values in the speech input: 1024 for emotion2vec_plus_large
    width: int = 1024
    layers: int = 4
    heads: int = 4
    feed_forward: int = 1024
    dropout: float = 0.1
    window: int = 5  # frames per block


class Tokens(NamedTuple):
    """The tokenizers' outputs before positions are added, (B, n, width) each. Inputs of the contrastive loss."""

    reference: Tensor
    speech: Tensor
    input: Tensor


class ConvBlock(nn.Module):
    """A convolution, batch norm and an activation. With `residual`, the input is added before the activation."""

    def __init__(
        self, n_in: int, n_out: int, size: int, stride: int, pad: int, residual: bool = False, tanh: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, size, stride, pad)
        self.norm = nn.BatchNorm1d(n_out)
        self.residual = residual
        self.act = nn.Tanh() if tanh else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, n_in, L) to (N, n_out, L'), where L' depends on the stride."""
        out = self.norm(self.conv(x))
        return self.act(out + x if self.residual else out)


class VisualTokenizer(nn.Module):
    """Encodes the code of each frame as one token, by 13 convolutions along the values of the code.

    The strided convolutions shorten a code from 10 values to 5, 3 and 1. Frames are encoded separately, except that
    batch norm uses the statistics of all frames of a batch during training.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # In a network narrower than 512, the last layers have at most `width` channels.
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
        """Maps codes (B, n, code) to tokens (B, n, width)."""
        batch, n, size = codes.shape
        return self.blocks(codes.reshape(batch * n, 1, size)).mean(dim=-1).reshape(batch, n, -1)


class SpeechTokenizer(nn.Module):
    """A linear layer, GELU, then layer norm."""

    def __init__(self, speech: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(speech, width)
        self.act = nn.GELU()
        self.norm = nn.LayerNorm(width)

    def forward(self, vector: Tensor) -> Tensor:
        """Maps a speech input (B, 1, speech) to a token (B, 1, width)."""
        return self.norm(self.act(self.linear(vector)))


class Connector(nn.Module):
    """A transformer over 11 tokens: 5 of reference directions, 1 of the speech direction, and 5 of input codes."""

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
        self.visual_norm = nn.LayerNorm(s.width)  # shared by both visual tokenizers
        self.register_buffer("position", _sinusoids(_MAX_LENGTH, s.width), persistent=False)

    def forward(self, reference: Tensor, speech: Tensor, codes: Tensor) -> tuple[Tensor, Tokens]:
        """The direction to add to the codes.

        Args:
            reference: (B, window, code) directions of the block before; zeros for the first block.
            speech: (B, 1, speech) encoding of the target emotion's utterances minus the encoding of the source
                emotion's utterances.
            codes: (B, window, code) expression codes to change.

        Returns:
            the direction, (B, window, code), and the tokens.
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
                tokens.speech + kind[SPEECH],  # one token, which needs no position
                tokens.input + self.position[:n] + kind[INPUT],  # positions start at 0 too
            ],
            dim=1,
        )
        return self.head(self.encoder(self.dropout(joined))[:, -n:]), tokens


def _initialise(module: nn.Module) -> None:
    """Initialises every nn.Linear with Xavier-normal weights and bias 0.

    The layer in_proj of the attention is not an nn.Linear, so in_proj keeps torch's initial values.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        nn.init.zeros_(module.bias)


def _sinusoids(length: int, width: int) -> Tensor:
    """Position encodings, (length, width): sines in even columns, cosines in odd columns (Vaswani et al. 2017, 3.5)."""
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
    """Renames the tensors of the authors' state dict (entry `state_dict` of their checkpoint) to this file's names."""
    out = {}
    for name, value in state.items():
        if name.endswith((".position_r.pe", ".position_e.pe")):
            continue  # the table of positions, which is computed here
        old, new = next(((old, new) for old, new in _RELEASED if name.startswith(old)), ("", ""))
        if not old:
            raise KeyError(f"{name} is not a tensor of C-MET's connector")
        name = new + name[len(old) :]
        out[name.replace(".conv_block.0.", ".conv.").replace(".conv_block.1.", ".norm.")] = value
    return out
