"""Prints the figures of the house: long functions, large classes, wide signatures, uses of `Any`.

Run `python -m tests.house` for every place, or `python -m tests.house --check` to fail on a place over its limit.
`--root FOLDER` measures another checkout, for example one of an older commit. A place that must stay long carries a
comment `# long: REASON` on the line of its `def` or `class`, or on the line above.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("talking_face", "embedded_corpus", "pipelines", "metrics", "cmet_reference", "baselines", "leaderboards")
FOLDERS += ("cmet_eval",)

LIMITS = {"lines of a function": 60, "lines of a class": 200, "parameters": 8}
ANY_LIMIT = 100  # uses of `Any` in the whole tree
REASON = re.compile(r"#\s*long\b[^:]*:\s*(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """One function or class that is over a limit."""

    figure: str  # a key of LIMITS
    value: int
    where: str  # path:line name
    reason: str  # text after `# long:`, or an empty string

    def __str__(self) -> str:
        return f"{self.value:5d}  {self.where}{f'  ({self.reason})' if self.reason else ''}"


def source_files(root: Path = ROOT) -> list[Path]:
    """Every Python file of the product, without its tests, sorted."""
    return sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py"))


def places(path: Path, root: Path = ROOT) -> Iterator[Place]:
    """The functions and classes of a file that are over a limit, with their reasons."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if isinstance(node, ast.ClassDef):
            values = {"lines of a class": length}
        else:
            values = {"lines of a function": length, "parameters": count_parameters(node)}
        for figure, value in values.items():
            if value > LIMITS[figure]:
                where = f"{path.relative_to(root)}:{node.lineno} {node.name}"
                yield Place(figure, value, where, _reason(node, lines))


def count_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters of a function, `*args` and `**options` included, without `self` and `cls`."""
    positional = node.args.posonlyargs + node.args.args
    count = len(positional) + len(node.args.kwonlyargs) + bool(node.args.vararg) + bool(node.args.kwarg)
    return count - bool(positional and positional[0].arg in ("self", "cls"))


def count_any(path: Path) -> int:
    """Uses of the name `Any` in a file; its import does not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree))


def _reason(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, lines: list[str]) -> str:
    """The text after `# long:` on the definition's line, or above it or above its first decorator."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    for number in (node.lineno, node.lineno - 1, first - 1):
        if number and (found := REASON.search(lines[number - 1])):
            return found[1].strip()
    return ""


def violations(root: Path = ROOT) -> list[str]:
    """One line for each place over its limit without a reason, and one when `Any` is used too often."""
    found = [
        f"{place.where}: {place.value} {place.figure}, the limit is {LIMITS[place.figure]}"
        for path in source_files(root)
        for place in places(path, root)
        if not place.reason
    ]
    total = sum(count_any(path) for path in source_files(root))
    if total > ANY_LIMIT:
        found.append(f"{total} uses of Any, the limit is {ANY_LIMIT}")
    return found


def report(root: Path = ROOT) -> str:
    """All figures with their places, largest first."""
    found = [place for path in source_files(root) for place in places(path, root)]
    lines: list[str] = []
    for figure, limit in LIMITS.items():
        group = sorted((place for place in found if place.figure == figure), key=lambda place: -place.value)
        explained = sum(bool(place.reason) for place in group)
        lines.append(f"{figure}, over {limit}: {len(group)}, of which {explained} with a reason")
        lines += [str(place) for place in group]
    uses = {path: count for path in source_files(root) if (count := count_any(path))}
    lines.append(f"uses of Any: {sum(uses.values())}, the limit is {ANY_LIMIT}")
    lines += [f"{count:5d}  {path.relative_to(root)}" for path, count in sorted(uses.items(), key=lambda use: -use[1])]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Prints the figures. With `--check`, prints the violations only. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=__doc__)
    parser.add_argument("--check", action="store_true", help="print places over a limit without a reason, exit with 1")
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to measure; default: this one")
    options = parser.parse_args(argv)
    if not options.check:
        print(report(options.root.resolve()))
        return 0
    found = violations(options.root.resolve())
    print("\n".join(found) if found else "every figure is within its limit")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
