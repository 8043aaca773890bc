"""Writes EAT's weights with the real shapes and random values, for tests of the recipe without the released files.

Two of the files do not come from the repository. The pitch network of Utils.zip is replaced by one layer with the same
input and output. DeepSpeech's graph is replaced by one layer with the same names of its inputs and its output.
"""

from __future__ import annotations

import sys
from pathlib import Path

import compat

JDC = '''
"""Stands for the pitch network that comes with EAT's Utils.zip: the same input and output."""

import torch


class JDCNet(torch.nn.Module):
    def __init__(self, num_class, seq_len):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 256, 3, padding=1)

    def get_feature_GAN(self, mel):  # (B, 1, 80, T) to (B, 256, 1, T)
        return self.conv(mel.float()).amax(dim=2, keepdim=True)
'''


def write(checkout: Path, weights: Path, seed: int) -> None:
    """Write the files of the recipe. `checkout` is on the import path."""
    compat.numpy_names()
    compat.stub("clip")
    import torch

    torch.manual_seed(seed)
    folder = weights / "Utils" / "JDC"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(JDC)
    sys.path.append(str(weights))
    from Utils.JDC.model import JDCNet

    torch.save({"net": JDCNet(1, 32).state_dict()}, folder / "bst.t7")
    with compat.inside(weights):  # a network reads ./Utils/JDC/bst.t7
        _write_networks(checkout, weights)
    _write_template(weights / "M003_template.npy")
    _write_graph(weights / "deepspeech-0_1_0-b90017e8.pb", seed)


def _write_networks(checkout: Path, weights: Path) -> None:
    import torch
    import yaml
    from modules.generator import OcclusionAwareSPADEGeneratorEam
    from modules.keypoint_detector import HEEstimator, KPDetector
    from modules.prompt import EmotionalDeformationTransformer, EmotionDeepPrompt
    from modules.transformer import Audio2kpTransformerBBoxQDeepPrompt

    def settings(name: str) -> dict:
        return yaml.safe_load((checkout / "config" / name).read_text())["model_params"]

    full, first = settings("deepprompt_eam3d_st_tanh_304_3090_all.yaml"), settings("vox-256-spade.yaml")
    nets = {
        "audio2kptransformer": Audio2kpTransformerBBoxQDeepPrompt(**full["audio2kp_params"], face_ea=True),
        "generator": OcclusionAwareSPADEGeneratorEam(**full["generator_params"], **full["common_params"]),
        "kp_detector": KPDetector(**full["kp_detector_params"], **full["common_params"]),
        "sidetuning": EmotionalDeformationTransformer(**full["audio2kp_params"]),
        "emotionprompt": EmotionDeepPrompt(),
    }
    before = {
        "kp_detector": KPDetector(**first["kp_detector_params"], **first["common_params"]),
        "he_estimator": HEEstimator(**first["he_estimator_params"], **first["common_params"]),
    }
    _settle(before["he_estimator"])
    nets["generator"].decoder.conv_img.weight.data *= 30  # as PyTorch makes it, the picture is grey
    for name, found in {"deepprompt_eam3d_all_final_313": nets, "pretrain_new_274": before}.items():
        torch.save({key: net.state_dict() for key, net in found.items()}, weights / f"{name}.pth.tar")


def _settle(network) -> None:  # type: ignore[no-untyped-def]
    """Set the means and variances of the batch norms from smooth random pictures.

    As PyTorch makes them, the network gives two frames the same head pose (to 4e-6), and the video is still.
    """
    import torch

    for layer in network.modules():
        if hasattr(layer, "running_var"):
            layer.momentum = 1.0
    pictures = torch.nn.functional.interpolate(torch.rand(8, 3, 8, 8), (256, 256), mode="bilinear")
    with torch.no_grad():
        network.train()(pictures)
    network.eval()


def _write_template(path: Path) -> None:
    """Write 68 points in the places of a face in a picture of 256 px."""
    import numpy as np

    jaw = np.linspace(np.pi, 0, 17)
    parts = [np.c_[128 + 66 * np.cos(jaw), 125 + 88 * np.sin(jaw)]]
    parts += [np.c_[np.linspace(x, x + 44, 5), np.full(5, 102)] for x in (72, 140)]
    parts += [np.c_[np.full(4, 128), np.linspace(118, 150, 4)], np.c_[np.linspace(114, 142, 5), np.full(5, 160)]]
    ring = np.radians([180, 240, 300, 0, 60, 120])
    parts += [np.c_[x + 14 * np.cos(ring), 120 + 5 * np.sin(ring)] for x in (97, 159)]
    parts += [np.c_[128 + 24 * np.cos(a), 183 + 10 * np.sin(a)] for a in (np.linspace(np.pi, 3 * np.pi, 21)[:20],)]
    np.save(path, np.concatenate(parts).round().astype(np.int64))


def _write_graph(path: Path, seed: int) -> None:
    """Write a frozen graph from 494 numbers a step (19 windows of 26 MFCC) to 29 letters a step."""
    import numpy as np
    import tensorflow.compat.v1 as tf

    tf.disable_eager_execution()
    weights = np.random.default_rng(seed).normal(0, 0.1, (494, 29)).astype(np.float32)
    with tf.Graph().as_default() as graph:
        steps = tf.placeholder(tf.float32, (None, None, 494), name="input_node")
        tf.placeholder(tf.int32, (None,), name="input_lengths")
        letters = tf.tensordot(steps, tf.constant(weights), axes=1)
        tf.transpose(letters, (1, 0, 2), name="logits")
    path.write_bytes(graph.as_graph_def().SerializeToString())
