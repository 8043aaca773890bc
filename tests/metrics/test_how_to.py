"""The second example of docs/how_to/add_a_metric.md: a file with variants, inside the package."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import cmet_metrics
from cmet_metrics import registry
from cmet_metrics.base import DEFAULT_FILES, Sample
from cmet_metrics.record import arguments_of

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "how_to" / "add_a_metric.md"


def example() -> str:
    _, second = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(second)


def test_a_file_in_the_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "level.py").write_text(example())
    monkeypatch.setattr(cmet_metrics, "__path__", [*cmet_metrics.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    try:
        again = importlib.reload(registry)
        assert [key for key in again.KEYS if key.startswith("level")] == ["level:mean", "level:median"]
        metric = again.get_metric("level:median,channel=red", DEFAULT_FILES)
        assert metric.key == "level:median,channel=red" and again.get_metric("level").key == "level:mean"
        assert arguments_of(type(metric), "level:median") == {"statistic": "median", "channel": "all"}
        assert str(metric.signature()) == (
            "level|variant:median|statistic:median|channel:red|agg:video-mean|version:1.0.0"
        )
        assert metric.valid_in == {"neutral-base", "cross-emotion"}
        clip = np.zeros((3, 8, 8, 3), np.uint8)
        assert metric.score(Sample(clip + np.uint8(4)), Sample(clip)).value == 4
    finally:
        monkeypatch.undo()
        sys.modules.pop("cmet_metrics.level", None)
        importlib.reload(registry)
