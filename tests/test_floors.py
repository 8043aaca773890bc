"""Holds the architecture: imports point down, private names stay in their module, figures are within their limits."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import house

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

# The rooms inside `cmet_eval`, from the lowest to the highest. Rooms of one step do not import each other.
STEPS: tuple[tuple[str, ...], ...] = (
    ("protocol", "measuring"),
    ("runs",),
    ("calibration", "reports"),
    ("bundles",),
    ("study",),
    ("demo",),
    ("checks", "help_pages"),
    ("run_folder",),
    ("completion",),
    ("commands", "failures"),
    ("cli",),
)
STEP_OF = {room: step for step, rooms in enumerate(STEPS) for room in rooms}


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


def _imported_steps(path: Path) -> set[str]:
    """The rooms of `cmet_eval` that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "cmet_eval":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("cmet_eval."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("cmet_eval.")}
    return names & STEP_OF.keys()


@pytest.mark.parametrize("room", STEP_OF)
def test_imports_point_down_inside_cmet_eval(room: str) -> None:
    home = ROOT / "cmet_eval" / room
    for path in sorted(home.rglob("*.py")) if home.is_dir() else [home.with_suffix(".py")]:
        for other in _imported_steps(path) - {room}:
            assert STEP_OF[other] < STEP_OF[room], f"{path.relative_to(ROOT)} imports {other}, which is not below it"


def test_every_room_of_cmet_eval_has_a_step() -> None:
    rooms = {
        path.stem for path in (ROOT / "cmet_eval").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"__init__"} == STEP_OF.keys()


def private_names(path: Path) -> list[str]:
    """Private names of other modules of this tree that a file imports, reads or patches."""
    tree = ast.parse(path.read_text())
    ours = {*FLOORS, "tests"}
    modules: set[str] = set()
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ours:
            modules |= {alias.asname or alias.name for alias in node.names}
            found += [f"{node.lineno}: {node.module}.{alias.name}" for alias in node.names if _private(alias.name)]
        elif isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.asname and alias.name.split(".")[0] in ours}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            found += [f"{node.lineno}: {node.value.id}.{node.attr}"] if _private(node.attr) else []
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            target, name = (*node.args, None, None)[:2]
            patched = isinstance(target, ast.Name) and target.id in modules and isinstance(name, ast.Constant)
            found += [f"{node.lineno}: {name.value}"] if patched and _private(str(name.value)) else []
    return found


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_private_names_stay_in_their_module() -> None:
    files = [*house.source_files(), *sorted((ROOT / "tests").rglob("*.py"))]
    uses = {path.relative_to(ROOT).as_posix(): found for path in files if (found := private_names(path))}
    assert not uses, "\n".join(f"{name}:{use}" for name, found in uses.items() for use in found)


@pytest.mark.parametrize("room", FLOORS)
def test_every_file_says_what_it_is_for(room: str) -> None:
    for path in sorted(ROOMS[room].rglob("*.py")):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)} has no module docstring"


def test_figures_are_within_their_limits() -> None:
    """`python -m tests.house` prints the figures; docs/architecture.md explains the comment `# long: REASON`."""
    assert not (found := house.violations()), "\n".join(found)


def test_the_house_sees_what_is_too_long(tmp_path: Path) -> None:
    body = "\n".join("    x = 1" for _ in range(61))
    names = ", ".join(f"p{k}" for k in range(9))
    text = f"def long():\n{body}\n\n\n# long: a list of layers\n@cache\ndef wide({names}):\n    pass\n"
    (tmp_path / "module.py").write_text(text + "\n\nclass C:\n    def fits(self, a, *, b, **c): ...\n")
    found = list(house.places(tmp_path / "module.py", tmp_path))
    assert [(place.figure, place.value, place.reason) for place in found] == [
        ("lines of a function", 62, ""),
        ("parameters", 9, "a list of layers"),
    ]
