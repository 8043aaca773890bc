"""Writes SadTalker's weights with the real shapes and random values, for tests without the released files."""

from __future__ import annotations

from pathlib import Path

import compat


def write(checkout: Path, weights: Path, seed: int) -> None:
    """Write the four files of the recipe. `checkout` is on the import path."""
    compat.numpy_names()
    import torch
    import yaml
    from facexlib.detection.retinaface import RetinaFace
    from safetensors.torch import save_file
    from src.audio2exp_models.networks import SimpleWrapperV2
    from src.audio2pose_models.audio2pose import Audio2Pose
    from src.face3d.models import networks
    from src.face3d.util.my_awing_arch import FAN
    from src.facerender.modules.generator import OcclusionAwareSPADEGenerator
    from src.facerender.modules.keypoint_detector import KPDetector
    from src.facerender.modules.mapping import MappingNet
    from yacs.config import CfgNode

    torch.manual_seed(seed)
    config = checkout / "src" / "config"
    pose = CfgNode.load_cfg((config / "auido2pose.yaml").open())
    face = yaml.safe_load((config / "facerender.yaml").read_text())["model_params"]
    common = face["common_params"]
    parts = {
        "face_3drecon": networks.define_net_recon("resnet50", use_last_fc=False, init_path=""),
        "audio2pose": Audio2Pose(pose, None, device="cpu"),
        "audio2exp": SimpleWrapperV2(),
        "generator": OcclusionAwareSPADEGenerator(**face["generator_params"], **common),
        "kp_extractor": KPDetector(**face["kp_detector_params"], **common),
    }
    state = {f"{part}.{key}": value for part, net in parts.items() for key, value in net.state_dict().items()}
    save_file(
        {key: value.clone().contiguous() for key, value in state.items()}, weights / "SadTalker_V0.0.2_256.safetensors"
    )
    mapping = MappingNet(**face["mapping_params"]).state_dict()
    torch.save({"mapping": mapping, "epoch": 0}, weights / "mapping_00229-model.pth.tar")
    torch.save(
        {"state_dict": FAN(num_modules=4, num_landmarks=98, device="cpu").state_dict()},
        weights / "alignment_WFLW_4HG.pth",
    )
    torch.save(
        RetinaFace(network_name="resnet50", half=False, device="cpu").state_dict(),
        weights / "detection_Resnet50_Final.pth",
    )
