"""CEM-Net at work: sound, reference pictures and a head's pose to landmarks in the picture."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch

from cmet_reference.cem_net import aee, audio2mouth, ebm
from cmet_reference.cem_net.audio2mouth import POINTS
from cmet_reference.cem_net.data import identity_of
from cmet_reference.geometry import fit_pose, to_head, to_picture
from cmet_reference.training import checkpoints
from talking_face.pretrained.face_landmarker import FaceLandmarker
from talking_face.pretrained.model_files import ModelFiles

# Eyelids and irises: what blinks and looks. They follow the source's, about its own mean.
EYES = (
    *(33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    *(362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382),
    *range(468, 478),
)


class CemNetFace:
    """The three networks of landmarks, from one folder of checkpoints."""

    def __init__(self, folder: Path, memory: bool = True, device: str = "cpu", files: ModelFiles | None = None) -> None:
        """`folder`: audio2mouth, aee and ebm .safetensors. `memory`: False leaves the emotion out (the paper's "w/o
        EBM"). "w/o AEE" is a memory trained without: `[ebm.net] audio_emotion = 0`.

        Raises UserError where a file is no such checkpoint.
        """
        paths = [folder / f"{kind}.safetensors" for kind in (audio2mouth.KIND, ebm.KIND, aee.KIND)]
        self.device, self.felt, self.model_files = device, memory, files
        self.mouths = audio2mouth.load(paths[0]).to(device)
        self.memory, self.identity = ebm.load(paths[1])
        self.memory.to(device)
        self.ears = aee.load(paths[2]).to(device) if memory and self.memory.settings.audio_emotion else None
        used = paths if self.ears else paths[:2]
        self.revision = "-".join([*map(checkpoints.revision, used), *([] if memory else ["without-memory"])])

    def landmarks(
        self,
        audio: np.ndarray,
        reference_landmarks: np.ndarray,
        source_landmarks: np.ndarray,
        frames: int,
        reference_frames: np.ndarray | None = None,
        reference_blendshapes: np.ndarray | None = None,
    ) -> np.ndarray:
        """The face that says the sound.

        Args:
            audio: (N,) int16, 16 kHz; its emotion is the one that is shown.
            reference_landmarks: (R, 478, 3) px, no NaN: the speaker in any one expression.
            source_landmarks: (S, 478, 3) px of the output, no NaN: head pose, blinks and gaze; held after its end.
            frames: how many are wanted.
            reference_frames: (R, H, W, 3) uint8 RGB, which the identity and the expression are told from.
            reference_blendshapes: (R, 52), MediaPipe's; measured in the frames where they are not given.

        Returns:
            (frames, 478, 3) float32 px.
        """
        template = self.mouths.template.cpu().numpy()
        held = source_landmarks[np.minimum(np.arange(frames), len(source_landmarks) - 1)]
        pose = fit_pose(held, template)
        source = to_head(held, pose)
        known = to_head(reference_landmarks, fit_pose(reference_landmarks, template))
        take = np.linspace(0, len(known) - 1, self.mouths.settings.references).round().astype(int)
        shown = known[take]  # the ones that Audio2Mouth looks at
        rest = shown.mean(axis=0)
        lips = self.mouths.mouth(audio, shown, source, frames) - rest[list(POINTS)]
        if self.felt:
            key = self._key(audio, take, reference_landmarks, reference_frames, reference_blendshapes)
            with torch.inference_mode():
                face = self.memory(self._row(rest), self._row(lips), **key)[0].cpu().numpy()
        else:
            face = self.memory.base(self._row(rest), self._row(lips))[0].cpu().numpy()
        still = source[:, EYES].mean(axis=0)
        face[:, EYES] += source[:, EYES] - still
        return to_picture(face, pose)

    def _key(
        self,
        audio: np.ndarray,
        take: np.ndarray,
        landmarks: np.ndarray,
        pictures: np.ndarray | None,
        shapes: np.ndarray | None,
    ) -> dict[str, torch.Tensor]:
        """What the memory's key is made of beside the lips."""
        key = {}
        sees = self.memory.picture is not None or self.memory.settings.neutral
        if pictures is None and (self.identity != "none" or (sees and shapes is None)):
            raise ValueError("this memory looks at the speaker's pictures: give reference_frames")
        if self.identity != "none":
            first = np.ascontiguousarray(cast(np.ndarray, pictures)[0])
            key["who"] = self._row(identity_of(first, landmarks[0], self.identity, self.model_files))
        if sees:
            if shapes is not None:
                seen = shapes[take]
            else:
                seen = blendshapes_of(cast(np.ndarray, pictures)[take], self.model_files)
            key["shapes"] = self._row(ebm.odds(seen))
        if self.ears is not None:
            key["heard"] = heard_by(self.ears, self.memory, audio)[None]
        return key

    def _row(self, x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(x, np.float32))[None].to(self.device)


def heard_by(ears: aee.AEE, memory: ebm.EBM, audio: np.ndarray) -> torch.Tensor:
    """The key's vector of a sound's emotion, (E,): (N,) int16 at 16 kHz."""
    device = memory.template.device
    vector, shares = (torch.from_numpy(x).to(device) for x in (ears.emotion(audio), ears.probabilities(audio)))
    return memory.decided(vector, shares)


def blendshapes_of(pictures: np.ndarray, files: ModelFiles | None = None) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB to (M, 52) float32 of those with a face; one row of 0 where there is none in any."""
    with FaceLandmarker("image", files) as landmarker:
        found = [mesh.blendshapes for picture in pictures if (mesh := landmarker.detect(picture)) is not None]
    return np.stack(found) if found else np.zeros((1, ebm.BLENDSHAPES), np.float32)
