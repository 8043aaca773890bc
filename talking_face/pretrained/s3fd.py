"""S3FD (Zhang et al. 2017), the face detector of the original SyncNet code, used in the same way as in that code."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from talking_face.packages import require
from talking_face.pretrained.dlib_models import Box
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights, WeightFile, weight_file
from talking_face.pretrained.syncnet import load_state
from talking_face.pretrained.torch_nets import device, inference

# Source: run_pipeline.py of syncnet_python. SCALE: the frame is scaled to a quarter of its size before face detection.
CONFIDENCE, SCALE = 0.9, 0.25


def detect_faces_s3fd(frame: np.ndarray, files: ModelFiles) -> list[Box]:
    """The face boxes in px of an (H, W, 3) uint8 RGB frame, highest score first. Raises MissingWeights.

    The code of syncnet_python orders the channels, subtracts the mean, and removes boxes that overlap by more than 0.1.
    """
    detector = _detector(weight_file("s3fd", files))
    with inference():
        found = detector.detect_faces(frame, conf_th=CONFIDENCE, scales=[SCALE])
    return [Box(*(float(v) for v in row)) for row in found]


@cache
def _detector(file: WeightFile) -> Any:
    s3fd = require("syncnet_python.detectors.s3fd", file.path.name, kind=MissingWeights)
    nets = require("syncnet_python.detectors.s3fd.nets", file.path.name, kind=MissingWeights)
    net = nets.S3FDNet(device=device())
    net.load_state_dict(load_state(file.path))
    return s3fd.S3FD(net, device=device())
