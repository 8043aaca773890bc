"""Fixtures of the tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmet_reference.training.loop import fit
from cmet_reference.training.options import TrainOptions
from tests.cmet_reference.training_parts import Line


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 40 steps."""
    out = tmp_path_factory.mktemp("whole")
    fit(Line(40), out, TrainOptions(checkpoint_every=4, quiet=True))
    return out
