"""What CEM-Net's stages are fed: clips in the head's frame with their sound, and draws from them."""

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
    """One clip as the networks see it. T frames."""

    clip: ClipArrays
    head: np.ndarray  # (T, 478, 3) float32, head's frame
    mel: np.ndarray  # (80, C) float32
    cepstra: np.ndarray  # (R, 12) float32

    def __len__(self) -> int:
        return len(self.head)


def mean_face(clips: Sequence[ClipArrays]) -> np.ndarray:
    """The template of a training split, (478, 3) float32; the same for every stage that is given the same clips."""
    return geometry.mean_face([c.landmarks for c in clips])


def prepare(clips: Sequence[ClipArrays], template: np.ndarray) -> list[Face]:
    """Clips in the frame of a template; 4 ms a clip of 2 s."""
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
    """`n` different frames of a clip that are not in [start, start + width); all of them again where they are few."""
    left = np.concatenate([np.arange(start), np.arange(start + width, length)])
    return rng.choice(left if len(left) else np.arange(length), n, replace=len(left) < n)


def identity_of(picture: np.ndarray, landmarks: np.ndarray, by: str, files: ModelFiles | None = None) -> np.ndarray:
    """Who a face is, as a vector of length 1: (128,) by dlib's face ResNet, (512,) by ArcFace.

    Args:
        picture: (H, W, 3) uint8 RGB.
        landmarks: (478, 3) px in it.
        by: "dlib" or "arcface".

    Raises:
        MissingWeights: the network's file is not here.
    """
    if by == "dlib":
        from talking_face.pretrained.dlib_models import Box, face_embedding

        # Where dlib's own detector would put its box: the points' middle, a little wider than brows to chin is high.
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
