"""Where tests search for model files."""

from __future__ import annotations

from pathlib import Path

from talking_face.pretrained.model_files import ModelFiles


def models(data: Path | None = None) -> ModelFiles:
    """The folders that the environment names at this moment, then those of a shard set."""
    return ModelFiles.from_environment(data)
