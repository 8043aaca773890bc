"""Metrics by key for tests, with the folders that the environment names."""

from __future__ import annotations

from cmet_metrics.base import Metric
from cmet_metrics.registry import get_metric
from talking_face.pretrained.model_files import ModelFiles


def by_key(key: str) -> Metric:
    """The metric of that key; its files are searched where CMET_EVAL_WEIGHTS and CMET_EVAL_CACHE point now."""
    return get_metric(key, ModelFiles.from_environment())
