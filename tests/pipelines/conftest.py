"""Small corpora for the pipeline's tests: drawn once a session, so that they need nothing beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.synth.corpus import write_corpus


@pytest.fixture(scope="session")
def small_mead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips of 0.8 s of one speaker in MEAD's layout; never changed."""
    root = tmp_path_factory.mktemp("small") / "mead"
    write_corpus("mead", root, speakers=1, seconds=0.8, workers=0, quiet=True, only=["/neutral/", "/happy/"])
    return root
