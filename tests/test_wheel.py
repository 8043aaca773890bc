"""A wheel holds unique import names and every data file, and its files are readable outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.wheels import ROOT, SOURCES, build_wheel

PACKAGES = {"talking_face", "embedded_corpus", "cmet_pipelines", "cmet_metrics", "cmet_reference", "cmet_baselines"}
PACKAGES |= {"cmet_leaderboards", "cmet_eval"}
READ = """
import sys
from pathlib import Path
from cmet_baselines.registry import catalogue
from cmet_eval.measuring.protocol_files import get_protocol, protocol_names
from cmet_eval.protocol.setting import get_setting, setting_names
from jinja2 import PackageLoader
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import registry, weight_path
assert "cmet" in catalogue() and "static-reference" in catalogue()
assert "neutral-base" in setting_names() and get_setting("neutral-base")
assert "eat" in protocol_names() and get_protocol("eat")
assert "board.html.j2" in PackageLoader("cmet_leaderboards", "templates").list_templates()
assert registry() and weight_path("face_landmarker", ModelFiles()).is_relative_to(sys.argv[1])
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0] in sys.argv[2].split(",") and getattr(module, "__file__", None):
        assert Path(module.__file__).is_relative_to(sys.argv[1]), module.__file__
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy without a network."""
    pytest.importorskip(
        "setuptools", minversion="77", reason="no wheel is built: setuptools is older than 77 or missing"
    )
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_import_names_are_unique(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == PACKAGES


def test_every_data_file_is_in_the_wheel(wheel: Path) -> None:
    """What the checkout has next to the code, under the name that the package gives it."""
    names = set(zipfile.ZipFile(wheel).namelist())
    kinds = ("*.py", "*.toml", "*.csv", "*.json", "*.html", "*.j2", "*.task", "py.typed")
    wanted = {
        (path.relative_to(folder.parent)).as_posix()
        for package in PACKAGES
        for folder in ROOT.glob(f"**/{package}")
        if folder.relative_to(ROOT).parts[0] in SOURCES and folder.is_dir()
        for path in folder.rglob("*")
        if any(fnmatch(path.name, kind) for kind in kinds)
    }
    wanted |= {f"cmet_baselines/catalogue/{path.name}" for path in (ROOT / "baselines/catalogue").glob("*.toml")}
    assert len(wanted) > 250
    assert not wanted - names


def test_files_are_read_from_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(installed)
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", READ, str(installed), ",".join(PACKAGES)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
