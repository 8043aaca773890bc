"""The stages of the demo: a board of the methods without training first, which the whole board replaces."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cmet_eval import demo as embedded
from cmet_eval.cli import build
from cmet_eval.commands import demo
from cmet_eval.reports import fingerprint
from cmet_eval.runs import evaluate
from cmet_pipelines.splits import presets
from embedded_corpus.layouts import layout
from embedded_corpus.writing import write_corpus
from talking_face import threads
from talking_face.packages import DISTRIBUTIONS
from talking_face.reasons import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_the_first_board_needs_no_training_and_nothing_is_scored_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    scored: Counter[tuple[str, str]] = Counter()

    def run(methods: Any, settings: Any, *, scoring: Any, **how: Any) -> str:
        assert settings == ["cross-emotion"] and how["draw"].max_pairs == 32
        done.append("run")
        scored.update((method, metric) for method in methods for metric in scoring.metrics)
        return "scored"

    def noted(name: str, value: object) -> Any:
        return lambda *how, **named: done.append(name) or value

    monkeypatch.setattr(evaluate, "run", run)
    monkeypatch.setattr(fingerprint, "written", noted("fingerprint", "packages"))
    monkeypatch.setattr(embedded, "make_corpus", noted("corpus", ""))
    monkeypatch.setattr(embedded, "make_shards", noted("shards", ""))
    monkeypatch.setattr(embedded, "train_networks", noted("training", ("trained",)))
    monkeypatch.setattr(embedded, "build_board", noted("board", tmp_path / "leaderboard/index.html"))
    result = CliRunner().invoke(build("demo"), ["demo", "--run", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert done == ["corpus", "shards", "run", "board", "training", "run", "run", "board", "fingerprint"]
    assert f"open {tmp_path / 'leaderboard/index.html'} now" in result.output
    assert set(scored.values()) == {1}, "a metric of a method is scored in two steps"
    assert {method for method, _ in scored} == {*demo.FIRST, *demo.OTHERS}
    assert {metric for _, metric in scored} == set(embedded.METRICS)
    trained = set(embedded.STAGES) | {"cem-net-flow"}
    assert not trained & set(demo.FIRST) and not any(name.endswith(":corpus") for name in embedded.FIRST_METRICS)


def test_eight_speakers_are_held_out_and_each_has_all_emotions() -> None:
    held_out = presets()[embedded.SPLIT]["test"]
    of = Counter(
        (spec.speaker in held_out, spec.speaker)
        for spec in embedded.PLAN.specs(layout("mead"), embedded.PLAN.size or "")
    )
    assert Counter(tested for tested, _ in of) == {True: 8, False: 12} and set(of.values()) == {8}


def test_the_pages_state_the_sizes_of_the_demo() -> None:
    plan = embedded.PLAN
    specs = plan.specs(layout("mead"), plan.size or "")
    pairs = inspect.signature(demo.demo).parameters["max_pairs"].default
    of = len({*demo.FIRST, *demo.OTHERS})
    files = {model: tomllib.loads(Path(path).read_text()) for model, path in embedded.TRAINING.items()}
    steps = (files["cem-net"]["audio2mouth"]["steps"], files["cem-net"]["ebm"]["steps"], files["cmet"]["steps"])
    page = (ROOT / "docs/experiments/demo.md").read_text()
    for row in (
        f"{plan.speakers} speakers, {len(specs)} clips of {plan.seconds:g} s, {plan.size} |",
        f"{pairs} of cross-emotion |",
        f"{pairs * of} videos of {of} methods |",
    ):
        assert row in page
    (trained,) = re.findall(r"training steps: .* (\d+), \d+, (\d+), (\d+), \d+, \d+ \|\n", page)
    assert tuple(map(int, trained)) == steps
    drawn = f"draws {plan.speakers} speakers with `--one-sentence --size {plan.size} --seconds {plan.seconds:g}`"
    assert drawn in (ROOT / "docs/reference/embedded_corpus.md").read_text()
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"{pairs} pairs of eight people" in readme and len(embedded.METRICS) == 8
    assert "computes only eight metrics" in readme


def test_a_folder_with_another_corpus_is_refused_in_words(tmp_path: Path) -> None:
    small = replace(embedded.PLAN, clips="all", only=("/angry/level_1",), speakers=1, seconds=0.4)
    write_corpus(small, tmp_path / "corpus", quiet=True)
    with pytest.raises(UserError, match="other settings"):
        write_corpus(embedded.PLAN, tmp_path / "corpus")


def test_the_fingerprint_shows_which_part_differs(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shards, tmp_path / "shards")
    network = tmp_path / "shards/reference/cmet.safetensors"
    network.parent.mkdir(exist_ok=True)
    network.write_bytes(b"weights")
    before = fingerprint.fingerprint(tmp_path)
    network.write_bytes(b"weightt")
    after = fingerprint.fingerprint(tmp_path)
    assert [name for name in before if before[name] != after[name]] == ["cmet"]
    named = set(re.findall(r"([\w-]+) \S+?(?:,|$)", before["packages"])) - {"cmet-eval", "python"}
    assert {"dlib-bin", "numpy"} <= named <= DISTRIBUTIONS
    assert f"numpy {np.__version__}" in before["packages"]
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    arithmetic = fingerprint.fingerprint(tmp_path)["arithmetic"]
    assert "MKL_CBWR=COMPATIBLE" in arithmetic and "OPENBLAS_CORETYPE=not set" in arithmetic
    assert fingerprint.written(tmp_path).endswith(str(tmp_path / "fingerprint.txt"))
    assert (tmp_path / "fingerprint.txt").read_text().startswith("packages ")


def test_the_arithmetic_is_pinned_if_the_processor_has_it_and_what_the_user_set_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "PROCESSOR", tmp_path / "cpuinfo", raising=False)
    monkeypatch.setattr(os, "environ", {"MKL_CBWR": "COMPATIBLE"})
    for text in ("", "flags\t\t: fpu avx f16c\n", "Features\t: fp asimd\n"):  # an x86 processor of 2012, and ARM
        (tmp_path / "cpuinfo").write_text(text)
        threads.pin_arithmetic()
        assert os.environ == {"MKL_CBWR": "COMPATIBLE"}
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx f16c avx2 fma\n\nprocessor\t: 1\n")
    threads.pin_arithmetic()
    assert os.environ == {**threads.ARITHMETIC, "MKL_CBWR": "COMPATIBLE"}
