"""States what the stages of CEM-Net need: data, labels and pretrained files. Used before the first stage is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cmet_reference.cem_net.ebm_stage import ARCFACE
from cmet_reference.cem_net.train import sources_of, stage_settings
from cmet_reference.render import flow_stage
from cmet_reference.training.preflight import Lack, Rows, weights_lack
from talking_face.emotions import EMOTIONS
from talking_face.pretrained.model_files import ModelFiles


def lacks(config: Mapping[str, object], folders: Mapping[str, Path], files: ModelFiles, paper: bool) -> Iterator[Lack]:
    """Everything that is absent for the stages in these settings, in training order.

    Args:
        paper: also require what the paper had: LRS2 with transcripts, test splits, sentences.
    """
    emotional, speech = (Rows(where) for where in sources_of(folders))
    for stage in (name for name in config if name in ("audio2mouth", "renderer")):
        yield from speech.lacks(stage, paper)
        if paper and "lrs2" not in folders:
            yield Lack(stage, "the paper learns it from LRS2; add --data lrs2=FOLDER")
    for stage in (name for name in config if name not in ("audio2mouth", "renderer")):
        yield from emotional.lacks(stage, paper)
    if "aee" in config:
        yield from _aee_lacks(config, emotional, speech, paper)
    if "ebm" in config:
        identity = stage_settings(config, "ebm")[1].identity
        if identity == "arcface":
            yield from weights_lack("ebm", ARCFACE, files)
    renderer = config.get("renderer")
    if isinstance(renderer, Mapping) and flow_stage.read_settings(renderer).perceptual == "vgg19":
        for lack in weights_lack("renderer", "vgg19", files):
            yield lack if paper else Lack(lack.stage, f"{lack.text} Or set perceptual = 'pixels' in [renderer].")


def _aee_lacks(config: Mapping[str, object], emotional: Rows, speech: Rows, paper: bool) -> Iterator[Lack]:
    settings = stage_settings(config, "aee")[1]
    if not emotional.train.empty and not emotional.train["emotion"].isin(EMOTIONS).any():
        yield Lack("aee", f"{emotional.places}: no clip of the train split has an emotion label")
    if not paper:
        return
    if "text" in settings.pretrain and not speech.count("transcript"):
        yield Lack("aee", f"{speech.places}: no clip has a transcript, which the pretraining on text needs")
    if tuple(settings.sentences) == ("data",) and not emotional.count("sentence_id"):
        yield Lack("aee", f"{emotional.places}: no clip has a sentence id; name other sources in [aee] sentences")
