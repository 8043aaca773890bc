"""Prepares clips for CEM-Net's stages: faces in the head's frame, audio features, references, identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmet_reference import geometry
from cmet_reference.cem_net import audio as sound
from cmet_reference.clips import ClipArrays
from talking_face.pretrained.model_files import ModelFiles


@dataclass(frozen=True)
class Face:
    """The networks' form of a clip of T frames."""

    clip: ClipArrays
    head: np.ndarray  # (T, 478, 3) float32, head's frame
    mel: np.ndarray  # (80, C) float32
    cepstra: np.ndarray  # (R, 12) float32

    def __len__(self) -> int:
        return len(self.head)


def mean_face(clips: Sequence[ClipArrays]) -> np.ndarray:
    """The template of a training split, (478, 3) float32, a function of the clips alone."""
    return geometry.mean_face([c.landmarks for c in clips])


def prepare(clips: Sequence[ClipArrays], template: np.ndarray) -> list[Face]:
    """Clips in the frame of a template; a clip of 2 s takes 4 ms."""
    return [
        Face(
            c,
            geometry.to_head(c.landmarks, geometry.fit_pose(c.landmarks, template)),
            sound.mel(c.audio),
            sound.cepstra(c.audio),
        )
        for c in clips
    ]


def outside(length: int, start: int, width: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` random frames of a clip outside of [start, start + width); repeated only where there are fewer than `n`."""
    left = np.concatenate([np.arange(start), np.arange(start + width, length)])
    return rng.choice(left if len(left) else np.arange(length), n, replace=len(left) < n)


def identity_of(picture: np.ndarray, landmarks: np.ndarray, kind: str, files: ModelFiles) -> np.ndarray:
    """The identity embedding of a face, of length 1: (128,) float32 of dlib's face ResNet, (512,) of ArcFace.

    Args:
        picture: (H, W, 3) uint8 RGB.
        landmarks: (478, 3) px in it.
        kind: "dlib" or "arcface".

    Raises:
        MissingWeights: the network's file is absent.
    """
    if kind == "dlib":
        from talking_face.pretrained.dlib_models import Box, face_embedding

        # Similar to the box of dlib's own detector: centred on the points, slightly smaller than their extent.
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
