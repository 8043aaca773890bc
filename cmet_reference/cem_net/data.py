"""Prepares clips for CEM-Net's stages: faces in the head's frame, audio features, references, identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmet_reference import geometry
from cmet_reference.cem_net import audio as sound
from cmet_reference.clips import ClipArrays
from cmet_reference.training.rounding import rounded
from talking_face.pretrained.model_files import ModelFiles

_HEAD_STEP = 2.0**-16  # eye distances; 0.001 px of a crop of 256 px


@dataclass(frozen=True)
class Face:
    """A clip of T frames in the form that CEM-Net's networks need."""

    clip: ClipArrays
    head: np.ndarray  # (T, 478, 3) float32, landmarks in the head's frame
    mel: np.ndarray  # (80, C) float32, see audio.mel
    cepstra: np.ndarray  # (R, 12) float32, see audio.cepstra

    def __len__(self) -> int:
        return len(self.head)


def mean_face(clips: Sequence[ClipArrays]) -> np.ndarray:
    """The mean face of a training split in the head's frame, (478, 3) float32. It depends only on the clips."""
    return geometry.mean_face([c.landmarks for c in clips])


def prepare(clips: Sequence[ClipArrays], template: np.ndarray) -> list[Face]:
    """Converts clips: landmarks to the head's frame of a template, audio to features. Time: 4 ms per clip of 2 s.

    The results are rounded, see `training.rounding`.
    """
    return [
        Face(
            c,
            rounded(geometry.to_head(c.landmarks, geometry.fit_pose(c.landmarks, template)), _HEAD_STEP),
            rounded(sound.mel(c.audio)),
            rounded(sound.cepstra(c.audio)),
        )
        for c in clips
    ]


def outside(length: int, start: int, width: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws `n` random frames of a clip outside of [start, start + width).

    A frame is drawn more than once only if there are fewer than `n` frames outside.
    """
    left = np.concatenate([np.arange(start), np.arange(start + width, length)])
    return rng.choice(left if len(left) else np.arange(length), n, replace=len(left) < n)


def identity_of(picture: np.ndarray, landmarks: np.ndarray, kind: str, files: ModelFiles) -> np.ndarray:
    """The identity embedding of a face, a float32 vector of length 1.

    Args:
        picture: (H, W, 3) uint8 RGB.
        landmarks: (478, 3) px of the picture.
        kind: "dlib" for dlib's face ResNet (128 values), or "arcface" for ArcFace (512 values).
        files: the folders in which the network is searched for.

    Raises:
        MissingWeights: the network's file is absent.
    """
    if kind == "dlib":
        from talking_face.pretrained.dlib_models import Box, face_embedding

        # This box is similar to the box that dlib's detector returns: it is centred on the landmarks, and slightly
        # smaller than the extent of the landmarks.
        low, high = landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)
        middle, side = (low + high) / 2, float((high - low).max()) * 0.95
        vector = face_embedding(picture, Box(*(middle - side / 2), *(middle + side / 2)), files)
    else:
        from talking_face.faces.align import align_mode, cut, transforms
        from talking_face.media.picture import ArrayPicture
        from talking_face.pretrained import arcface

        mode = align_mode("arcface-112")
        place = transforms(mode, landmarks[None], np.ones(1, bool), picture.shape[:2], 112, 1.0)[0]
        vector = arcface.embed(cut(mode, ArrayPicture(picture), place, 112)[None], files=files)[0]
    return (vector / np.linalg.norm(vector)).astype(np.float32)
