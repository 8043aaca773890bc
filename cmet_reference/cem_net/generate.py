"""CEM-Net's inference: predicts landmarks from audio, reference pictures and the head pose of a source video."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch

from cmet_reference.cem_net import aee, audio2mouth, classifier, ebm
from cmet_reference.cem_net.audio2mouth import POINTS
from cmet_reference.cem_net.data import identity_of
from cmet_reference.cem_net.spoken import spoken
from cmet_reference.geometry import to_picture
from cmet_reference.training import checkpoints
from talking_face.pretrained.face_landmarker import FaceLandmarker
from talking_face.pretrained.model_files import ModelFiles

# Points of eyelids and irises. The motion of these points in the source clip (blinks, gaze) is added to the predicted
# face.
EYES = (
    *(33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    *(362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382),
    *range(468, 478),
)


class CemNetFace:
    """CEM-Net's three landmark networks, loaded from one folder of checkpoints."""

    def __init__(self, folder: Path, memory: bool = True, device: str = "cpu", *, files: ModelFiles) -> None:
        """Load the networks.

        Args:
            folder: the folder of audio2mouth.safetensors, ebm.safetensors, and the network for the audio's emotion:
                aee.safetensors, or emotion-classifier.safetensors if the memory was trained with it.
            memory: False adds no emotion: the face of Audio2Mouth alone. The paper's "w/o EBM" is another network,
                which is trained with `[ebm.net] memory = false`.
            device: a torch device.
            files: the folders in which the networks for identity and blendshapes are searched for.

        Raises:
            MissingWeights: a file is absent.
            UserError: a file cannot be used.
        """
        paths = [folder / f"{kind}.safetensors" for kind in (audio2mouth.KIND, ebm.KIND)]
        self.device, self.use_memory, self.model_files = device, memory, files
        self.mouths = audio2mouth.load(paths[0]).to(device)
        self.memory, self.identity = ebm.load(paths[1])
        self.memory.to(device)
        self.encoder: aee.AEE | None = None
        if memory and self.memory.settings.audio_emotion:
            source = self.memory.settings.audio
            self.encoder = classifier.load(source, folder).to(device)
            paths.append(folder / f"{source}.safetensors")
        self.revision = "-".join([*map(checkpoints.revision, paths), *([] if memory else ["without-memory"])])

    def landmarks(
        self,
        audio: np.ndarray,
        reference_landmarks: np.ndarray,
        source_landmarks: np.ndarray,
        frames: int,
        reference_frames: np.ndarray | None = None,
        reference_blendshapes: np.ndarray | None = None,
    ) -> np.ndarray:
        """The landmarks of a face that speaks the audio.

        Args:
            audio: (N,) int16, 16 kHz. The lips follow this audio, and the face shows the emotion of this audio.
            reference_landmarks: (R, 478, 3) px, no NaN: the speaker in one expression.
            source_landmarks: (S, 478, 3) px of the output, no NaN: head pose, blinks and gaze. If there are fewer than
                `frames`, the last frame is repeated.
            frames: the number of output frames.
            reference_frames: (R, H, W, 3) uint8 RGB. These pictures give the identity and, by default, the expression.
            reference_blendshapes: (R, 52) in [0, 1], MediaPipe's; default: measured in `reference_frames`.

        Returns:
            (frames, 478, 3) float32 px.
        """
        pose, source, take, rest, mouth = spoken(self.mouths, audio, reference_landmarks, source_landmarks, frames)
        lips = mouth - rest[list(POINTS)]
        key = {}
        if self.use_memory:
            key = self._key(audio, take, reference_landmarks, reference_frames, reference_blendshapes)
        face = self.expressive(self._row(rest), self._row(lips), key)
        still = source[:, EYES].mean(axis=0)
        face[:, EYES] += source[:, EYES] - still
        return to_picture(face, pose)

    def expressive(self, rest: torch.Tensor, lips: torch.Tensor, key: Mapping[str, torch.Tensor]) -> np.ndarray:
        """The face with the emotion, (T, 478, 3) in the head's frame.

        Args:
            rest: (1, 478, 3), mean of the references.
            lips: (1, T, 57, 3), displacements of lips and jaw from it.
            key: the other inputs of the memory; not used without the memory.
        """
        with torch.inference_mode():
            made = self.memory(rest, lips, **key) if self.use_memory else self.memory.base(rest, lips)
        return np.asarray(made[0].cpu().numpy())

    def _key(
        self,
        audio: np.ndarray,
        take: np.ndarray,
        landmarks: np.ndarray,
        pictures: np.ndarray | None,
        blendshapes: np.ndarray | None,
    ) -> dict[str, torch.Tensor]:
        """The inputs of the memory's query, except the lips."""
        key = {}
        reads_pictures = self.memory.picture is not None or self.memory.settings.neutral
        if pictures is None and (self.identity != "none" or (reads_pictures and blendshapes is None)):
            raise ValueError("this memory reads the speaker's pictures: give reference_frames")
        if self.identity != "none":
            first = np.ascontiguousarray(cast(np.ndarray, pictures)[0])
            key["identity"] = self._row(identity_of(first, landmarks[0], self.identity, self.model_files))
        if reads_pictures:
            if blendshapes is not None:
                seen = blendshapes[take]
            else:
                seen = blendshapes_of(cast(np.ndarray, pictures)[take], self.model_files)
            key["blendshapes"] = self._row(ebm.log_odds(seen))
        if self.encoder is not None:
            key["audio_emotion"] = audio_emotion_of(self.encoder, self.memory, audio)[None]
        return key

    def _row(self, x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(x, np.float32))[None].to(self.device)


def audio_emotion_of(encoder: aee.AEE, memory: ebm.EBM, audio: np.ndarray) -> torch.Tensor:
    """The emotion embedding of audio for the memory's query, (E,), from (N,) int16 at 16 kHz."""
    device = memory.template.device
    vector, shares = (torch.from_numpy(x).to(device) for x in (encoder.emotion(audio), encoder.probabilities(audio)))
    return memory.decided_embedding(vector, shares)


def blendshapes_of(pictures: np.ndarray, files: ModelFiles) -> np.ndarray:
    """MediaPipe's blendshapes of N pictures, (N, H, W, 3) uint8 RGB.

    Returns (M, 52) float32, one row for each picture with a face, or one row of zeros if no picture has a face.
    """
    with FaceLandmarker("image", files=files) as landmarker:
        found = [mesh.blendshapes for picture in pictures if (mesh := landmarker.detect(picture)) is not None]
    return np.stack(found) if found else np.zeros((1, ebm.BLENDSHAPES), np.float32)
