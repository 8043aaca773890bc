"""Writes random weights of C-MET, in the form and with the shapes that its script loads."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import compat


def write(checkout: Path, weights: Path, seed: int) -> None:
    """Writes EDTalk.pt, Audio2Lip.pt and the connector into `weights`. The checkout is on the import path."""
    compat.torchvision_operators()
    sys.path.append(str(checkout / "src"))
    import torch
    from omegaconf import OmegaConf
    from src.connector import Connector_exp
    from src.EDTalk.networks.audio_encoder import Audio2Lip
    from src.EDTalk.networks.generator import Generator

    config = OmegaConf.to_container(OmegaConf.load(checkout / "configs" / "inference.yaml"), resolve=True)
    torch.manual_seed(seed)
    options = argparse.Namespace(size=256)  # EDTalk's trainers store theirs in each file
    generator = Generator(256, 512, 20, 6, 10, 1)
    torch.save({"gen": generator.state_dict(), "args": options}, weights / "EDTalk.pt")
    torch.save({"audio2lip": Audio2Lip().state_dict(), "args": options}, weights / "Audio2Lip.pt")
    connector = Connector_exp(config["projector_kwargs"], config["transformer_kwargs"], "cpu")
    torch.save({"state_dict": connector.state_dict()}, weights / Path(config["connector_exp_path"]).name)
    _write_emotion2vec(weights)


def _write_emotion2vec(weights: Path) -> None:
    """Writes config.yaml and model.pt of an emotion2vec whose vectors have the real 1024 values.

    It has 4 + 8 layers, as FunASR's template. The number of layers of the real file is not published in FunASR.
    """
    import torch
    import yaml
    from omegaconf import OmegaConf

    zero = dict.fromkeys(
        ("start_drop_path_rate", "end_drop_path_rate", "encoder_dropout", "post_mlp_drop", "attention_dropout"), 0.0
    )
    zero.update(dict.fromkeys(("activation_dropout", "dropout_input", "layerdrop", "loss_beta"), 0.0))
    audio = {
        **{"type": "AUDIO", "prenet_depth": 4, "prenet_layerdrop": 0.0, "prenet_dropout": 0.0, "model_depth": 8},
        **{"start_drop_path_rate": 0.0, "end_drop_path_rate": 0.0, "num_extra_tokens": 10, "local_grad_mult": 1.0},
        **{"init_extra_token_zero": True, "use_alibi_encoder": True, "alibi_scale": 1.0, "learned_alibi": False},
        **{"alibi_max_pos": None, "learned_alibi_scale": True, "learned_alibi_scale_per_head": True},
        **{"learned_alibi_scale_per_layer": False, "num_alibi_heads": 16, "decoder": None},
        **{"extractor_mode": "layer_norm", "conv_pos_width": 95, "conv_pos_groups": 16, "conv_pos_depth": 5},
        **{"feature_encoder_spec": "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2", "conv_pos_pre_ln": False},
    }
    conf = {
        **zero,
        **{"depth": 8, "num_heads": 16, "embed_dim": 1024, "mlp_ratio": 4.0, "norm_eps": 1e-5, "norm_affine": True},
        **{"layer_norm_first": False, "average_top_k_layers": 8, "end_of_block_targets": False, "clone_batch": 1},
        **{"normalize": True, "loss_scale": None, "modalities": {"audio": audio}},
    }
    from funasr.models.emotion2vec.model import Emotion2vec

    text = yaml.safe_dump({"model": "Emotion2vec", "model_conf": conf})
    (weights / "emotion2vec_plus_large.config.yaml").write_text(text, encoding="utf-8")
    model = Emotion2vec(model_conf=OmegaConf.create(conf))
    torch.save(model.state_dict(), weights / "emotion2vec_plus_large.model.pt")
