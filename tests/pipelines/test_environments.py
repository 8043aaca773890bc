"""Preprocessing in environments that lack something: a few of those of `python -m tests.hostile.faults`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmet_pipelines.preprocess import preprocess
from embedded_corpus.plan import CorpusPlan
from embedded_corpus.writing import write_corpus
from tests.hostile.faults import check
from tests.pipelines.run_options import QUIET


@pytest.fixture(scope="module")
def two_clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A dataset, and the digest of its shard set."""
    folder = tmp_path_factory.mktemp("environments")
    plan = CorpusPlan("mead", speakers=1, seconds=0.4, only=("/neutral/",))
    write_corpus(plan, folder / "corpus", workers=0, quiet=True)
    return folder / "corpus", preprocess("mead", folder / "corpus", folder / "out", run=QUIET).digest


@pytest.mark.parametrize("kind", ["20 open files", "no standard streams", "a running event loop"])
def test_a_run_is_right_or_ends_with_one_line(two_clips: tuple[Path, str], tmp_path: Path, kind: str) -> None:
    tally = check(kind, two_clips[0], tmp_path, two_clips[1])
    assert tally.clean, tally.examples
