"""`cmet-eval metrics` and `cmet-eval cite`: every metric with its facts, and BibTeX without repetitions."""

from __future__ import annotations

import csv
import inspect
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cmet_baselines.registry import catalogue
from cmet_eval.commands.cite import SUITE, bibliography
from cmet_eval.commands.metrics import facts
from cmet_metrics.base import DEFAULT_FILES
from cmet_metrics.registry import KEYS, METRICS, get_metric, quick_metrics
from cmet_pipelines.readers import READERS
from talking_face.names import printable
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
EXTRAS = ("torch", "pandas", "pyarrow", "dask", "distributed", "scipy", "dlib", "h5py", "onnxruntime", "matplotlib")


def run(*words: str, columns: int = 80, without_extras: bool = False) -> subprocess.CompletedProcess[str]:
    """The real command; with `without_extras`, in a process in which no package of an extra can be found."""
    code = "import sys; from cmet_eval.cli import main; main()"
    if without_extras:
        hide = (
            "import sys, importlib.abc\n"
            "class Hide(importlib.abc.MetaPathFinder):\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name.partition('.')[0] in {EXTRAS!r}:\n"
            "            raise ModuleNotFoundError(f'No module named {name}', name=name)\n"
            "sys.meta_path.insert(0, Hide())\n"
        )
        code = f"{hide}{code}"
    environment = {**os.environ, "COLUMNS": str(columns)}
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment, cwd=REPOSITORY
    )


@pytest.mark.parametrize("columns", [50, 80, 132])
def test_the_list_has_every_metric_within_the_width_of_the_terminal(columns: int) -> None:
    out = run("metrics", columns=columns)
    assert out.returncode == 0 and not out.stderr
    lines = out.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    listed = [found[1] for line in lines if (found := re.match(r"  ([a-z_]+:\S+)", line))]
    assert listed == list(KEYS)
    starred = [found[1] for line in lines if (found := re.match(r"  (\S+) +\*", line))]
    assert starred == list(quick_metrics())


def test_the_list_needs_only_the_core_and_says_what_is_absent() -> None:
    out = run("metrics", "--format", "json", without_extras=True)
    assert out.returncode == 0, out.stderr
    here = {row["key"]: row for row in json.loads(out.stdout)}
    assert all(here[key]["here"] == "ready" for key in quick_metrics())
    assert here["m_lmd:eat"]["here"] == "no package" and "[weights]" in here["m_lmd:eat"]["to_do"]
    assert here["lse_c:track"]["here"] == "no package" and "[paper]" in here["lse_c:track"]["to_do"]
    assert run("cite", "psnr", "eat", "mead", SUITE, without_extras=True).returncode == 0


def test_every_form_has_every_metric_and_the_same_facts() -> None:
    rows = json.loads(run("metrics", "--format", "json").stdout)
    table = list(csv.DictReader(io.StringIO(run("metrics", "--format", "csv").stdout)))
    assert [row["key"] for row in rows] == [row["key"] for row in table] == list(KEYS)
    for row, cells, metric in zip(rows, table, METRICS, strict=True):
        assert cells["signature"] == row["signature"] == str(metric.signature())
        assert cells["cost"] == row["cost"] in ("quick", "slow", "unknown")
        assert row["better"] == ("nearer to 1" if metric.ideal else "higher" if metric.higher_is_better else "lower")
        needs = (metric.needs_target, metric.needs_audio, metric.needs_labels, metric.needs_reference)
        assert row["needs"] == [w for w, n in zip(("target", "sound", "labels", "reference"), needs, strict=True) if n]
    markdown = run("metrics", "--format", "markdown").stdout.splitlines()
    assert len(markdown) == len(KEYS) + 2 and {line.count(" | ") for line in markdown} == {6}
    assert json.loads(run("metrics", "ssim", "--format", "json").stdout)["key"] == "ssim:wang2004"


def test_one_metric_is_shown_with_options_signature_pitfalls_and_bibtex() -> None:
    out = run("metrics", "ssim:skimage,frames=linspace").stdout
    plain = " ".join(out.split())
    metric = get_metric("ssim:skimage,frames=linspace")
    assert max(map(len, out.splitlines())) <= 200  # a signature is one word
    assert f"signature {metric.signature()}" in plain
    assert "frames=linspace, of: exact, linspace, min" in plain and "colour=rgb, of: rgb, y" in plain
    assert " ".join(metric.pitfalls.split()) in plain and metric.bibtex in out
    assert "variants ssim:wang2004," in plain
    assert "profile both embedded and paper: " in plain and "rate:as-is|size:as-is|length:exact|start:0" in plain
    assert "unit % of eyes (percent of the distance" in " ".join(run("metrics", "jitter").stdout.split())
    bullets = run("metrics", "ssim:wang2004").stdout.splitlines()
    wanted = inspect.cleandoc(type(get_metric("ssim:wang2004")).__doc__ or "").count("\n- ")
    assert wanted > 1 and sum(line.startswith("- ") for line in bullets) == wanted
    assert "No paper defines this metric" in run("metrics", "jitter").stdout


@pytest.mark.parametrize("key", KEYS)
def test_every_metric_has_its_pitfalls_and_a_paper_or_this_suite_as_its_source(key: str) -> None:
    metric = get_metric(key, DEFAULT_FILES)
    assert metric.pitfalls and metric.source
    assert bool(metric.bibtex) != (metric.source.startswith("this suite") and metric.name not in OWN_WITH_PAPER), key
    assert (metric.ms_per_frame or 1) > 0
    assert facts(metric)["needs"] is not None


OWN_WITH_PAPER = {"registration", "csim", "m_lmd", "f_lmd"}  # own definitions on the fit, network or metric of a paper


def test_what_is_absent_is_named_with_the_command_that_gets_it(tmp_path: Path) -> None:
    files = ModelFiles(cache=tmp_path)
    assert facts(get_metric("psnr", files))["here"] == "ready"
    for key, state, command in (
        ("lpips", "no weights", "weights fetch alexnet"),
        ("ea:emotion-fan-7", "no weights", "put .* into a folder named by CMET_EVAL_WEIGHTS"),
        ("lse_c:corpus", "no evaluator", "train evaluators"),
    ):
        found = facts(get_metric(key, files))
        assert found["here"] == state and re.search(command, str(found["to_do"])), found["to_do"]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "face_landmarker.task").write_bytes(b"damaged")
    assert facts(get_metric("jitter", files))["here"] == "wrong file"


def test_bibtex_of_everything_is_well_formed_and_has_no_entry_twice() -> None:
    keys = [*KEYS, *catalogue(), *READERS, SUITE]
    text = bibliography([*keys, *keys])
    names = re.findall(r"^@\w+\{([^,]+),$", text, flags=re.M)
    assert len(names) == len(set(names)) == text.count("@") and "prajwal2020wav2lip" in names
    assert text.count("{") == text.count("}")
    titles = re.findall(r"^ +title = (.*)$", text.lower(), flags=re.M)
    plain = [re.sub(r"\W", "", title) for title in titles]
    assert len(plain) == len(set(plain)) == len(names), "one paper has two entries"
    for entry in re.findall(r"^@.*?^(?=@|%|\Z)", text, flags=re.M | re.S):
        assert all(f"{field} = {{" in entry for field in ("author", "title", "year")), entry
    for key in ("psnr", "m_lmd:vico", "cmet", "eat", "mead", SUITE):
        assert bibliography([key]).startswith("@"), key
    for entry in catalogue().values():
        assert entry.paper is None or entry.paper.authors, entry.name


def test_a_key_without_a_paper_says_so_in_a_comment() -> None:
    assert bibliography(["jitter", "interface"]).splitlines() == [
        "% jitter: no paper is known; cite the suite, cmet-eval",
        "",
        "% interface: no paper is known; cite the suite, cmet-eval",
    ]


def test_the_entry_of_the_suite_has_the_facts_of_the_citation_file() -> None:
    citation = (REPOSITORY / "CITATION.cff").read_text()
    facts_of_file = re.findall(r'^(?:title: |  - name: |version: )"?([^"\n]+)"?$', citation, flags=re.M)
    assert len(facts_of_file) == 3 and all(fact in bibliography([SUITE]) for fact in facts_of_file)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("metrics", "psnrr"), "did you mean psnr"),
        (("metrics", "ssim:wang2005"), "did you mean ssim:wang2004"),
        (("metrics", "ssim,frames=lin"), "unknown frames 'lin'"),
        (("metrics", "--format", "yaml"), "table"),
        (("metrics", "psnr", "ssim"), "not expected here"),
        (("metrics", "list"), "no metric is called 'list'"),
        (("cite",), "KEY is missing; for example"),
        (("cite", "EAT"), "did you mean eat"),
        (("cite", "meadd"), "did you mean mead"),
        (("cite", "psnr", "psnrr"), "did you mean psnr"),
        (("cite", "ssim:wang2005"), "did you mean ssim:wang2004"),
        (("cite", "zzzz"), "cmet-eval baselines"),
        (("cite", ""), "is not a metric"),
    ],
)
def test_a_wrong_use_is_one_line_that_says_what_to_type(words: tuple[str, ...], message: str) -> None:
    out = run(*words)
    assert out.returncode == 2 and not out.stdout
    assert message in out.stderr and len(out.stderr.splitlines()) == 1, out.stderr
    assert out.stderr.strip() == printable(out.stderr.strip())


def test_an_unknown_key_prints_no_part_of_the_bibliography() -> None:
    with pytest.raises(UserError, match="did you mean psnr"):
        bibliography(["ssim", "psnrr"])


def test_the_commands_load_no_network() -> None:
    code = (
        "import sys; sys.argv = ['cmet-eval', 'metrics']\nfrom cmet_eval.cli import main\n"
        f"try: main()\nexcept SystemExit: pass\nprint([m for m in {EXTRAS!r} if m in sys.modules], file=sys.stderr)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert out.stderr.strip() == "[]"
