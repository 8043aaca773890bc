"""Loads and runs the ONNX networks of the registry with onnxruntime, with OMP_NUM_THREADS threads.

Each process loads a network once. If OMP_NUM_THREADS is not set, onnxruntime uses one thread per core.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np

from talking_face.packages import require
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights, WeightFile, weight_file


def onnx_session(name: str, files: ModelFiles) -> Any:
    """An onnxruntime.InferenceSession of the registry entry `name`, on the GPU if onnxruntime supports the GPU.

    Raises MissingWeights if the file or onnxruntime is not on this machine.
    """
    return _session(weight_file(name, files))


def onnx_run(name: str, batch: np.ndarray, files: ModelFiles) -> np.ndarray:
    """Runs a network that has one input and one output. Returns the output for an (N, ...) batch.

    If the network accepts only batches of size 1, the network is run once per item.
    """
    session = onnx_session(name, files)
    port = session.get_inputs()[0]
    parts = np.split(batch, len(batch)) if port.shape[0] == 1 else [batch]
    return np.concatenate([session.run(None, {port.name: part})[0] for part in parts])


@cache
def _session(file: WeightFile) -> Any:
    onnxruntime = require("onnxruntime", file.path.name, kind=MissingWeights)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # 0 means onnxruntime's default: one thread per core.
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    # On the GPU, use full float32 without TensorFloat-32, as in `torch_nets.inference`.
    known: list[Any] = [("CUDAExecutionProvider", {"use_tf32": "0"}), ("CPUExecutionProvider", {})]
    there = onnxruntime.get_available_providers()
    return onnxruntime.InferenceSession(str(file.path), options, providers=[p for p in known if p[0] in there])
