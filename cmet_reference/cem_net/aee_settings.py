"""The records of AEE: network settings, classes and loss weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AeeNetSettings:
    """The input features of the encoders, and the sizes of the networks."""

    # "mfcc": EVP's cepstra, (28, 12) every 10 ms, without pitch and loudness; "mel": (28, 80) every 12.5 ms.
    features: Literal["mfcc", "mel"] = "mfcc"
    # Rows that are averaged to one step of a window. With 1 a window is 0.3 s; with 4 of "mel" it is 1.4 s, long enough
    # for intonation, which generalises to other speakers better than single sounds.
    pool: int = 1
    merge: int = 1  # neighbouring mel bands that are averaged to one; 5 leaves 16 of 80, too coarse for formants
    timeless: bool = False  # emotion and timbre: average the convolutions' outputs over time
    width: int = 64  # channels of the first two convolutions, doubled by every two (EVP's encoders: 64 to 512)
    hidden: int = 2048  # of the first linear layer (EVP); the second has a quarter
    content: int = 256  # EVP
    emotion: int = 128  # EVP
    timbre: int = 128  # the emotion's size: the paper gives none, EVP has no timbre
    dropout: float = 0.0  # before the emotion's classifier
    # Add features of the whole clip (`clip_features`): pitch, loudness, their movement, and the mean and standard
    # deviation of the features. Windows of 1.5 s are too short for a median or a range.
    manner: bool = False
    # Hidden units of a network from these to the emotion's embedding, added to a linear map; its output starts at zero.
    manner_hidden: int = 0


@dataclass(frozen=True)
class Labels:
    """The classes of the classifiers, in the order of their outputs."""

    emotions: tuple[str, ...]
    speakers: tuple[str, ...]
    sentences: tuple[str, ...] = ()
    transcripts: bool = False


@dataclass(frozen=True)
class AeeLossWeights:
    """Weights of the losses; the paper gives none.

    Features are standardised, so that a reconstruction starts near 1 and a classification near the logarithm of the
    number of classes, 1.4 to 2.1. Weights of 1 balance them.
    """

    reconstruction: float = 1.0
    emotion: float = 1.0
    identity: float = 1.0
    content: float = 1.0
    text: float = 1.0
    # Of the triplet loss. Distances between embeddings of unit length are 0 to 2, so the same content must be a quarter
    # of the range nearer than other content.
    margin: float = 0.5
