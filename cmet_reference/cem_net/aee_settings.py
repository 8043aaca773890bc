"""The settings of AEE, CEM-Net's audio emotion extractor: network sizes, classes and loss weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AeeNetSettings:
    """The input features of the encoders, and the sizes of the networks."""

    # Features of a window, (steps, features). "mfcc": EVP's cepstra, (28, 12), one step per 10 ms; cepstra do not
    # contain pitch and loudness. "mel": a mel spectrogram, (28, 80), one step per 12.5 ms.
    features: Literal["mfcc", "mel"] = "mfcc"
    # Number of successive spectra that are averaged to one step of a window. With 1, a window is 0.3 s long. With 4 and
    # "mel", a window is 1.4 s long. It then contains intonation, which generalises to other speakers better than
    # single phonemes do.
    pool: int = 1
    # Number of neighbouring mel bands that are averaged to one band. With 5, 16 of 80 bands remain. These are too few
    # to show formants.
    merge: int = 1
    timeless: bool = False  # in the encoders of emotion and timbre: average the convolutions' outputs over time
    width: int = 64  # channels of the first two layers, doubled after every two layers (EVP: 64 to 512)
    hidden: int = 2048  # units of the first linear layer (EVP); the second linear layer has a quarter of them
    content: int = 256  # size of the content embedding (EVP)
    emotion: int = 128  # size of the emotion embedding (EVP)
    timbre: int = 128  # size of the timbre embedding; no paper states it, so it equals `emotion`
    dropout: float = 0.0  # dropout before the classifier of the emotion
    # Whether the emotion embedding is also computed from features of the whole clip (`clip_features`): pitch, loudness,
    # their changes over time, and the mean and standard deviation of the input features. A window of 1.5 s is too short
    # to measure a median or a range of the pitch.
    manner: bool = False
    # A linear layer maps the clip features to the emotion embedding. If this number is above 0, the output of a network
    # with this number of hidden units is added to the embedding. The output is zero at the start of the training.
    manner_hidden: int = 0


@dataclass(frozen=True)
class Labels:
    """The classes of AEE's classifiers, in the order of the outputs.

    `transcripts` is True if the text classifier predicts letters, and False if it predicts the sentence.
    """

    emotions: tuple[str, ...]
    speakers: tuple[str, ...]
    sentences: tuple[str, ...] = ()
    transcripts: bool = False


@dataclass(frozen=True)
class AeeLossWeights:
    """Weights of the losses. They are ours, because the paper gives none.

    Input features are standardised, so the reconstruction loss starts near 1. A classification loss starts near the
    logarithm of the number of classes, 1.4 to 2.1. Therefore weights of 1 balance the losses.
    """

    reconstruction: float = 1.0
    emotion: float = 1.0
    identity: float = 1.0
    content: float = 1.0
    text: float = 1.0
    # Margin of the triplet loss for content. Embeddings have length 1, so distances between them are 0 to 2. With 0.5,
    # the distance to an embedding of the same content must be at least 0.5 smaller than to one of other content.
    margin: float = 0.5
