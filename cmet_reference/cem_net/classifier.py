"""A plain emotion classifier of speech, whose logits replace AEE's emotion embedding in Table IV of the CEM-Net paper.

The paper's row "w/o AEE" uses the emotion classifier of its reference [18] without the softmax. The architecture of
[18] is not part of our record. This classifier therefore has the input features and the emotion encoder of AEE. It is
trained with the labels of the main shard set alone: it has no timbre, no content, no decoder, no identity task, no text
task and no pairs of clips. So the ablation removes all tasks except the classification of the emotion.

The query of the memory receives the logits only if `[ebm.net] decision` is 0, as in `paper`. In the demo, `decision` is
0.5: the query then receives a mean of the centres of the emotions, weighted by the softmax of the logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from cmet_reference.cem_net import aee
from cmet_reference.cem_net.aee_settings import AeeLossWeights, AeeNetSettings, Labels
from cmet_reference.cem_net.aee_stage import AeeSettings, AeeStage
from cmet_reference.clips import ClipArrays
from cmet_reference.training import checkpoints

KIND = "emotion-classifier"
Source = Literal["aee", "emotion-classifier"]  # the network that gives the emotion of the audio


class EmotionClassifier(aee.AEE):
    """The emotion encoder and the emotion classifier of AEE, without AEE's other networks."""

    def __init__(
        self,
        settings: AeeNetSettings,
        labels: Labels,
        mean: np.ndarray | None = None,
        std: np.ndarray | None = None,
    ) -> None:
        super().__init__(settings, labels, mean, std)
        self.to_text = None
        for name in ("timbre_encoder", "content_encoder", "decoder", "to_speaker"):
            setattr(self, name, nn.Identity())

    @property
    def size(self) -> int:
        return len(self.labels.emotions)

    @torch.inference_mode()
    def emotion(self, audio: np.ndarray) -> np.ndarray:
        """The logits of the emotions, (C,) float32: the output of the classifier without the softmax."""
        return self.to_emotion(torch.from_numpy(super().emotion(audio)).to(self.mean.device)).cpu().numpy()

    @torch.inference_mode()
    def probabilities(self, audio: np.ndarray) -> np.ndarray:
        return torch.from_numpy(self.emotion(audio)).softmax(dim=0).numpy()


class ClassifierStage(AeeStage):
    """Trains the classifier with the emotion task of AEE's pretraining alone. Implements `Stage`."""

    name = KIND
    network = EmotionClassifier

    def __init__(
        self,
        net: AeeNetSettings,
        settings: AeeSettings,
        train: Sequence[ClipArrays],
        test: Sequence[ClipArrays],
        seed: int,
    ) -> None:
        """`settings`: AEE's. All its steps are steps of the emotion task, so that both networks see as many batches."""
        steps = settings.pretrain_steps + settings.steps
        alone = replace(settings, pretrain=("emotion",), pretrain_steps=steps, least_crossed=0.0)
        super().__init__(net, alone, AeeLossWeights(), train, test, seed)
        self.steps = steps

    def about(self) -> Mapping[str, object]:
        """The number of clips with an emotion label. The classifier uses no sentences."""
        return {"clips_with_emotion": len(self.labelled)}


def load(source: Source, folder: Path) -> aee.AEE:
    """AEE or the classifier from its checkpoint in a folder, in evaluation mode.

    Raises UserError if the file cannot be used, and MissingWeights if it is absent.
    """
    if source == aee.KIND:
        return aee.load(folder / f"{aee.KIND}.safetensors")
    path = folder / f"{KIND}.safetensors"
    state, record = checkpoints.load(path, KIND)
    with checkpoints.as_saved(path, KIND):
        return aee.build(record, state, EmotionClassifier)
