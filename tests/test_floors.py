"""Imports point down: a room may import the floors below its own, and no room of its own floor."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "talking_face": 0,
    "cmet_pipelines": 1,
    "cmet_metrics": 1,
    "embedded_corpus": 2,
    "cmet_reference": 2,
    "cmet_baselines": 3,
    "cmet_leaderboards": 3,
    "cmet_eval": 4,
}
FOLDERS = {
    "cmet_pipelines": "pipelines",
    "cmet_metrics": "metrics",
    "cmet_baselines": "baselines",
    "cmet_leaderboards": "leaderboards",
}
ROOMS = {room: ROOT / FOLDERS.get(room, "") / room for room in FLOORS}


def _imports(path: Path, nested: bool = True) -> set[str]:
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("room", FLOORS)
def test_imports_point_down(room: str) -> None:
    for path in sorted(ROOMS[room].rglob("*.py")):
        for other in _imports(path) & FLOORS.keys() - {room}:
            assert FLOORS[other] < FLOORS[room], f"{path.relative_to(ROOT)} imports {other}, which is not below it"


def test_ground_floor_has_no_dask() -> None:
    for path in sorted((ROOT / "talking_face").rglob("*.py")):
        # Only the room that runs tasks knows Dask, and only inside functions.
        nested = "execution" not in path.parts
        assert not _imports(path, nested) & {"dask", "distributed", "pandas"}, path
        # Importing torch takes a second: only inside the functions of pretrained/ that run it.
        assert "torch" not in _imports(path, nested="pretrained" not in path.parts), path


@pytest.mark.parametrize("room", FLOORS)
def test_every_file_says_what_it_is_for(room: str) -> None:
    for path in sorted(ROOMS[room].rglob("*.py")):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)} has no module docstring"
