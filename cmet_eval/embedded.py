"""The embedded corpus as shards, made when they are not there: what `demo` and `run` without --data stand on."""

from __future__ import annotations

from pathlib import Path

from pipelines.preprocess import PreprocessSummary, preprocess
from pipelines.synth.corpus import CorpusSummary, write_corpus

FOLDER = Path("work/demo")


def embedded_corpus(folder: Path = FOLDER, workers: int = 2, quiet: bool = False) -> CorpusSummary:
    """Write the corpus into `folder`/corpus in MEAD's layout; what is there is kept."""
    return write_corpus("mead", folder / "corpus", workers=workers, quiet=quiet)


def embedded_shards(folder: Path = FOLDER, workers: int = 2, quiet: bool = False) -> PreprocessSummary:
    """Preprocess `folder`/corpus into `folder`/shards; what is there is kept."""
    return preprocess("mead", folder / "corpus", folder / "shards", workers=workers, quiet=quiet)
