"""The public interface: `measure` for files, `as_sample` and `MetricSet` for arrays. The commands are in `commands/`.

The names are loaded when they are first used, because the command line imports this package first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmet_eval.measuring.api import measure
    from cmet_metrics.arrays import as_sample
    from cmet_metrics.metric_set import MetricSet

    __version__: str

__all__ = ["MetricSet", "__version__", "as_sample", "measure"]


def __getattr__(name: str) -> object:
    import importlib

    homes = {
        "measure": "cmet_eval.measuring.api",
        "as_sample": "cmet_metrics.arrays",
        "MetricSet": "cmet_metrics.metric_set",
    }
    if name == "__version__":
        return importlib.import_module("talking_face.packages").suite_version()
    if name in homes:
        return getattr(importlib.import_module(homes[name]), name)
    raise AttributeError(f"module 'cmet_eval' has no attribute {name!r}")
