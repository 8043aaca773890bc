"""A run with three methods, an honest bundle of one of them, and the real command, for the tests of bundles."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from cmet_eval import cli
from cmet_eval.bundles.writing import Source, write_bundle
from cmet_eval.protocol.draw import Draw
from cmet_eval.protocol.pair_files import read_pairs
from cmet_eval.runs import evaluate
from cmet_eval.runs.metrics import Scoring
from cmet_eval.runs.submissions import from_elsewhere
from cmet_leaderboards.results import read_results
from talking_face.execution.options import RunOptions
from talking_face.pretrained.model_files import ModelFiles
from tests.cmet_eval.bundles.forging import Run

METRICS = ("psnr:frame-mean", "ssim:wang2004")


@pytest.fixture(scope="session")
def done(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with 12 pairs of neutral-base: two methods of the suite, and the videos of one again as `mine`."""
    out = tmp_path_factory.mktemp("run")
    scoring, options = Scoring(METRICS), RunOptions(workers=0, quiet=True)
    methods, settings = ("static-reference", "source-video"), ("neutral-base",)
    evaluate.run(methods, settings, data=shards, out=out, draw=Draw(seeds=1), scoring=scoring, options=options)
    (out / "videos" / "mine").mkdir()
    for number, path in enumerate(sorted((out / "videos" / "static-reference").rglob("*.mp4"))):
        target = out / "videos" / "mine" / "neutral-base" / path.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes() + bytes(number + 1))  # another SHA-256 of every video, the same picture
    method = {"name": "mine", "revision": "1", "title": "Mine", "role": "method", "summary": "A test.", "sees": []}
    pairs = read_pairs(out / "pairs" / "neutral-base.parquet")
    submission = from_elsewhere(out / "videos" / "mine" / "neutral-base", pairs, method)
    evaluate.score(submission, data=shards, out=out, scoring=scoring, options=options)
    return out


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def main(*words: str | Path) -> tuple[int, str, str]:
        """Exit status, standard output and standard error of the command."""
        monkeypatch.setattr(sys, "argv", ["cmet-eval", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return main


@pytest.fixture(scope="session")
def honest(done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest bundle, as `cmet-eval submit` writes it into a folder."""
    out = tmp_path_factory.mktemp("bundle") / "mine"
    lists = sorted((done / "pairs").glob("*.parquet"))
    source = Source(read_results(done / "results"), lists, done / "videos", ModelFiles())
    return write_bundle(source, ("mine", "1"), out)


@pytest.fixture
def bundle(honest: Path, tmp_path: Path) -> Path:
    """A copy of an honest bundle."""
    return Path(shutil.copytree(honest, tmp_path / "mine"))
