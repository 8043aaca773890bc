"""The folders in which one command looks for model files: pretrained weights, trained evaluators and checkpoints.

A command makes one `ModelFiles` and passes it down to metrics, methods and worker tasks, so that a metric's signature
depends on its arguments only. This is the only module that reads the environment variables of model files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

WEIGHTS, CACHE, CHECKPOINTS = "CMET_EVAL_WEIGHTS", "CMET_EVAL_CACHE", "CMET_EVAL_CHECKPOINTS"
EVALUATORS_FOLDER, CHECKPOINTS_FOLDER = "evaluators", "reference"  # subfolders of a shard set


@dataclass(frozen=True)
class ModelFiles:
    """The folders in which model files are searched, in order. Hashable and picklable.

    Attributes:
        weights: folders searched first, for registered pretrained files and for evaluators.
        cache: folder of downloads and pinned hashes; None means the platform's cache folder.
        evaluators: folders searched next for the evaluators trained on a corpus.
        checkpoints: folders searched for the checkpoints of the reference models.
        hashes: (file name, SHA-256 in hex) of each evaluator when the command started; the hash of an absent file is
            "". `trained_evaluators.with_hashes` sets it, and a worker then refuses any other file. If empty, no hash is
            checked.
    """

    weights: tuple[Path, ...] = ()
    cache: Path | None = None
    evaluators: tuple[Path, ...] = ()
    checkpoints: tuple[Path, ...] = ()
    hashes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_environment(cls, data: Path | None = None) -> ModelFiles:
        """The folders in CMET_EVAL_WEIGHTS, CMET_EVAL_CACHE and CMET_EVAL_CHECKPOINTS, then the folders of a shard set.

        Args:
            data: a shard set; `data/evaluators` and `data/reference` are searched after the folders in the variables.
        """
        cache = os.environ.get(CACHE)
        return cls(
            weights=_folders(WEIGHTS),
            cache=Path(cache) if cache else None,
            evaluators=() if data is None else (Path(data) / EVALUATORS_FOLDER,),
            checkpoints=(*_folders(CHECKPOINTS), *(() if data is None else (Path(data) / CHECKPOINTS_FOLDER,))),
        )


def _folders(variable: str) -> tuple[Path, ...]:
    """The folders that an environment variable lists, separated as in PATH."""
    return tuple(Path(folder) for folder in os.environ.get(variable, "").split(os.pathsep) if folder)
