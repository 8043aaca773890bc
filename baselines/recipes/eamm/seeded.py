"""Writes EAMM's weights with the real shapes and random values, for tests of the recipe without the released files."""

from __future__ import annotations

from pathlib import Path

import compat


def write(checkout: Path, weights: Path, seed: int) -> None:
    """Write the three checkpoints of the recipe. `checkout` is on the import path."""
    compat.numpy_names()
    import torch
    import yaml
    from modules.generator import OcclusionAwareGenerator
    from modules.keypoint_detector import KPDetector, KPDetector_a
    from modules.util import AT_net2, Emotion_k

    torch.manual_seed(seed)
    config = checkout / "config" / "MEAD_emo_video_aug_delta_4_crop_random_crop.yaml"
    settings = yaml.safe_load(config.read_text())["model_params"]
    common, points = settings["common_params"], settings["kp_detector_params"]
    emotion = {"block_expansion": 32, "num_channels": 3, "max_features": 1024, "num_blocks": 5}
    files = {
        "124_52000": {
            "generator": OcclusionAwareGenerator(**settings["generator_params"], **common),
            "kp_detector": KPDetector(**points, **common),
        },
        "1-6000": {"audio_feature": AT_net2(), "kp_detector_a": KPDetector_a(**points, **settings["audio_params"])},
        "5-3000": {"emo_detector": Emotion_k(**emotion, scale_factor=0.25, num_classes=8)},
    }
    _enliven(files["124_52000"]["generator"], files["1-6000"]["kp_detector_a"], files["1-6000"]["audio_feature"])
    for name, nets in files.items():
        torch.save({key: net.state_dict() for key, net in nets.items()}, weights / f"{name}.pth.tar")


def _enliven(generator, keypoints, audio) -> None:  # type: ignore[no-untyped-def]
    """Scale weights: as PyTorch makes them, the keypoints of two frames differ by 3e-7, and the video is grey."""
    generator.final.weight.data *= 30  # grey values from 127 to a standard deviation of 2.6
    keypoints.kp.weight.data *= 1000
    for name, weight in audio.named_parameters():
        if name.endswith("weight") and weight.dim() > 1:
            weight.data *= 2
