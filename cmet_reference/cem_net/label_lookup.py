"""A control for CEM-Net: a table of the mean displacement of each emotion label replaces the memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cmet_reference.cem_net import ebm
from cmet_reference.cem_net.generate import CemNetFace
from cmet_reference.training import checkpoints
from talking_face.names import printable
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason


class LabelLookupFace(CemNetFace):
    """Lips by Audio2Mouth, plus the mean displacement of the target's label.

    The table is the buffer `shown` of the memory's checkpoint: for each emotion, the mean displacement from the same
    person's neutral face, over the clips of the training split. No step of a training changes it. If the memory
    subtracts the source's expression (`[ebm.net] neutral`), the control subtracts the same. It uses neither the slots
    nor the emotion of the audio, and its displacement has no factor.
    """

    def __init__(self, folder: Path, device: str = "cpu", *, files: ModelFiles) -> None:
        """Load the networks from a folder of checkpoints. Raises the errors of `CemNetFace`."""
        super().__init__(folder, memory=False, device=device, files=files)
        _, record = checkpoints.load(folder / f"{ebm.KIND}.safetensors", ebm.KIND)
        self.emotions: tuple[str, ...] = tuple(record["emotions"])
        self.use_memory, self.label = True, ""  # the inputs of the memory are read, but not the slots

    def expressive(self, rest: Tensor, lips: Tensor, key: Mapping[str, Tensor]) -> np.ndarray:
        """The face with the mean displacement of `label`, (T, 478, 3); see `CemNetFace.expressive`.

        Raises ClipError if the training split has no clip with this label.
        """
        if self.label not in self.emotions:
            known = ", ".join(self.emotions)
            raise ClipError(
                Reason.UNSUPPORTED_LABEL, f"the training split has no {printable(self.label[:60])}; it has {known}"
            )
        shown = self.memory.shown[self.emotions.index(self.label)].unflatten(0, (-1, 3)) * self.memory.moves[:, None]
        with torch.inference_mode():
            return (self.memory.start(rest, lips, key.get("blendshapes")) + shown)[0].cpu().numpy()
