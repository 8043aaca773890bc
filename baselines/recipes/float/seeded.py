"""Writes random weights of FLOAT and of its two speech models, with the shapes that its script loads."""

from __future__ import annotations

import argparse
from pathlib import Path

import compat

_SPEECH, _EMOTION = "wav2vec2-base-960h", "wav2vec-english-speech-emotion-recognition"


def write(checkout: Path, weights: Path, seed: int) -> None:
    """Writes float.pth and the files of the two folders, named FOLDER.FILE. The checkout is on the import path."""
    compat.torchvision_operators()
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(seed)
    from models.wav2vec2_ser import Wav2Vec2ForSpeechClassification

    base = weights / "folders" / _SPEECH
    Wav2Vec2Model(Wav2Vec2Config()).save_pretrained(base)  # the defaults are the base model's
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(base)
    large = weights / "folders" / _EMOTION
    Wav2Vec2ForSpeechClassification(_large(Wav2Vec2Config)).save_pretrained(large)
    with compat.arguments("generate.py", "--wav2vec_model_path", str(base), "--audio2emotion_path", str(large)):
        from options.base_options import BaseOptions

        parser = argparse.ArgumentParser()
        BaseOptions().initialize(parser)
        options = parser.parse_args()
        options.rank = torch.device("cpu")
    from models.float.FLOAT import FLOAT

    state = FLOAT(options).state_dict()
    torch.save({name: value for name, value in state.items() if "wav2vec2" not in name}, weights / "float.pth")
    for folder in (base, large):
        for file in folder.iterdir():
            file.rename(weights / f"{folder.name}.{file.name}")
        folder.rmdir()
    (weights / "folders").rmdir()


def _large(config):  # type: ignore[no-untyped-def]
    """The configuration of a wav2vec 2.0 large (XLSR-53) with seven emotions."""
    return config(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm="layer",
        conv_bias=True,
        do_stable_layer_norm=True,
        num_labels=7,
        pooling_mode="mean",
    )
