"""Where tests search for model files."""

from __future__ import annotations

from talking_face.pretrained.model_files import ModelFiles


def models() -> ModelFiles:
    """The folders that the environment names at this moment."""
    return ModelFiles.from_environment()
