"""The core installation: its commands import no package of an extra, and what needs an extra says which one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import cmet_eval
from cmet_eval import cli
from cmet_metrics.base import Metric, Sample, Score
from cmet_metrics.metric_set import MetricSet
from cmet_metrics.registry import METRICS, check_packages, get_metric, quick_metrics
from talking_face import packages
from talking_face.execution.options import RunOptions
from talking_face.media import write_video
from talking_face.pretrained import face_landmarker
from talking_face.reasons import Reason, UserError

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HEAVY = {name for extra in packages.EXTRAS.values() for name in extra.packages.values()}
HEAVY |= {"psutil", "skimage", "syncnet_python", "deepface", "insightface"}

# Loaded by every Python of a command, also by its worker processes: refuses the packages that are named in REFUSED.
REFUSE = """
import os, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["REFUSED"].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small videos with sound, and the file that refuses packages."""
    out = tmp_path_factory.mktemp("core")
    rng = np.random.default_rng(0)
    for name in ("mine", "real"):
        frames = rng.integers(0, 256, (8, 64, 64, 3), np.uint8)
        sound = rng.integers(-900, 900, 44100 * 8 // 25).astype(np.int16)
        write_video(out / f"{name}.mp4", frames, audio=sound, audio_rate=44100)  # another rate than 16 kHz
    (out / "sitecustomize.py").write_text(REFUSE)
    return out


def run(folder: Path, command: Sequence[str], refused: set[str]) -> subprocess.CompletedProcess[str]:
    """Runs `cmet-eval` in the folder, without the packages `refused`."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "REFUSED": ",".join(refused)}
    words = [sys.executable, "-m", "cmet_eval.cli", *command]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


CORE = [
    (["--version"], PROJECT["version"]),
    (["doctor"], "PyAV"),
    (
        ["measure", "mine.mp4", "real.mp4", "--metrics", "psnr", "--metrics", "ssim", "--metrics", "psnr:pooled"],
        "psnr|",
    ),
    (["weights", "list", "face_landmarker"], "hash checked"),
    (["baselines", "list"], "static-reference"),
]


@pytest.mark.parametrize("command, shown", CORE, ids=[" ".join(words[:2]) for words, _ in CORE])
def test_core_commands_import_no_package_of_an_extra(folder: Path, command: list[str], shown: str) -> None:
    done = run(folder, command, HEAVY)
    assert done.returncode == 0 and shown in done.stdout, done.stdout + done.stderr


def test_landmarks_and_sound_need_no_package_of_an_extra(folder: Path) -> None:
    """MediaPipe 1.0 and later import Matplotlib, and the core has an earlier version. The videos show no face."""
    keys = [key for key in quick_metrics() if get_metric(key).weights]
    words = ["measure", "mine.mp4", "real.mp4", "--per-clip", *(word for key in keys for word in ("--metrics", key))]
    done = run(folder, words, HEAVY - {"matplotlib"})
    assert {"m_lmd", "f_lmd", "jitter", "lip_energy", "registration"} <= {key.partition(":")[0] for key in keys}
    assert set(re.findall(r"no-face|few-faces|too-short|crashed", done.stdout)) <= {"no-face", "too-short"}, done.stdout
    assert "no-face" in done.stdout and "Traceback" not in done.stderr


WITHOUT_EXTRA = [
    ("score --videos . --pairs p.csv --data . --method-name a", "pyarrow", "pipelines"),
    ("leaderboard", "pyarrow", "boards"),
    ("run --method static-reference --data .", "pyarrow", "pipelines"),
    ("train cmet --data .", "torch", "reference,pipelines"),
    ("demo", "torch", "boards,pipelines,weights,reference"),
    ("measure mine.mp4 real.mp4 --metrics lse_c:crop", "torch", "paper"),
    ("measure mine.mp4 real.mp4 --metrics psnr --run out", "jinja2", "boards"),
]


@pytest.mark.parametrize("command, package, extra", WITHOUT_EXTRA, ids=[line[:12] for line, *_ in WITHOUT_EXTRA])
def test_a_command_names_the_extra_that_it_lacks(folder: Path, command: str, package: str, extra: str) -> None:
    done = run(folder, command.split(), HEAVY)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert package in done.stderr and f"[{extra}]" in done.stderr and "pip install" in done.stderr
    assert not (folder / "out").exists()


def test_a_scheduler_needs_dask(folder: Path) -> None:
    words = [
        "score",
        "--videos",
        ".",
        "--pairs",
        "p.csv",
        "--data",
        ".",
        "--method-name",
        "a",
        "--scheduler",
        "tcp://localhost:1",
    ]
    done = run(folder, words, {"dask", "distributed"})
    assert done.returncode == 2 and "--scheduler needs dask, distributed; run `" in done.stderr, done.stderr


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_of_every_command_is_shown_in_the_core(folder: Path, name: str) -> None:
    done = run(folder, [name, "-h"], HEAVY)
    assert done.returncode == 0 and f"Usage: cmet-eval {name}" in done.stdout, done.stderr


def test_extras_are_those_of_the_project() -> None:
    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=]", text)[0] for text in requirements if not text.startswith("cmet-eval")}

    extras = PROJECT["optional-dependencies"]
    assert names(PROJECT["dependencies"]) == packages.CORE.packages.keys()
    assert {name: names(extras[name]) for name in packages.EXTRAS} == {
        name: set(extra.packages) for name, extra in packages.EXTRAS.items()
    }
    for metric in METRICS:
        check_packages(metric)  # the complete environment has all of them


SOURCES = [
    (None, 'pip install "cmet-eval[boards]"'),
    ('{"url": "file:///nowhere/cmet_eval.whl", "archive_info": {}}', "pip install pyarrow pandas "),
    ('{{"url": "{here}", "dir_info": {{"editable": true}}}}', "cd '{path}' && pip install -e '.[boards]'"),
    ('{{"url": "{here}", "dir_info": {{}}}}', "cd '{path}' && pip install '.[boards]'"),
    (
        '{"url": "https://example.org/cmet", "vcs_info": {"vcs": "git", "commit_id": "1a2b"}}',
        'pip install "cmet-eval[boards] @ git+https://example.org/cmet@1a2b"',
    ),
]


@pytest.mark.parametrize("stored, wanted", SOURCES, ids=["index", "vanished", "editable", "folder", "repository"])
def test_the_command_fits_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str | None, wanted: str
) -> None:
    here = tmp_path / "ä folder"
    here.mkdir()
    if stored and "{here}" in stored:
        stored, wanted = stored.format(here=here.as_uri()), wanted.format(path=here)
    # The package importlib_metadata, once imported, replaces the class of the standard library.
    found = type(metadata.distribution(packages.DISTRIBUTION))
    monkeypatch.setattr(found, "read_text", lambda self, name: stored)
    assert packages.install_command("boards").startswith(wanted)


def test_a_metric_without_its_package_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Heavy(type(get_metric("psnr"))):  # type: ignore[misc]
        def compute(self, pred: Sample, target: Sample) -> Score:
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

    sample = Sample(np.zeros((2, 32, 32, 3), np.uint8))
    metric: Metric = Heavy()
    score = metric.score(sample, sample)
    assert score.reason is Reason.MISSING_WEIGHTS and "needs torch; run `" in score.detail
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^m_lmd:eat needs dlib; run `.*pip.*weights.*`, or take m_lmd:native-mp or "):
        check_packages(get_metric("m_lmd"))
    with pytest.raises(UserError, match=r"^lpips:alex needs torch; run `.*pip.*\[paper\]"):
        MetricSet(["psnr", "lpips"])


def test_signatures_tell_the_landmarks_of_the_core_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = str(get_metric("registration").signature())
    monkeypatch.setattr(face_landmarker, "version", lambda name: "0.10.31")
    face_landmarker.mediapipe_suffix.cache_clear()
    core = str(get_metric("registration").signature())
    face_landmarker.mediapipe_suffix.cache_clear()
    assert "@64184e22|" in usual and core == usual.replace("@64184e22|", "@64184e22-mp0.10|")


def test_the_package_states_its_version() -> None:
    assert cmet_eval.__version__ == PROJECT["version"]


def test_the_version_is_known_without_an_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.importlib.metadata, "version", absent)
    assert packages.suite_version() == PROJECT["version"]
    assert RunOptions().scheduler is None  # Dask is used only if somebody asks for it
