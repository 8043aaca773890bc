"""Checks the language of docs, docstrings and comments, and that every link and every path in the docs exists."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Idioms that a reader with English as a second language has to read twice, and what to write instead.
IDIOMS: dict[str, str] = {
    r"(?<!there )\b(?:is|are) no\b(?! longer| more| less)": "is not a, has no, there is no",
    r"\bbesides?\b": "next to, in addition to",
    r"\b(?:lie|lies|lay)\b": "is in, is stored in",
    r"\b(?:stands?|stood)\b(?!-in)": "is in, means, is printed",
    r"\b(?:tells?|told|foretells?|foretold)\b": "prints, states, distinguishes, predicts",
    r"\bsaid\b": "stated, spoken, predicted",
    r"\bsays of\b": "states about",
    r"\bapart\b": "except, separate, distinguished",
    r"\b(?:take|takes|taken|took) up\b": "resume, continue",
    r"\bby what\b": "how, by which",
    r"\bfor want of\b": "because there is no",
    r"\b(?:go|goes|went) by\b": "uses",
    r"\bin words\b": "as text",
    r"\bwhat is (?:felt|said|heard|seen|told)\b": "the emotion, the content, the input",
    r"\b(?:in one|at one|the|a) go\b": "at once, the run",
    r"\bof one's own\b": "your own, its own",
    r"\bfurnish\w*": "initialize, add",
}
# File -> words that may stay there, and why.
ALLOWED: dict[str, tuple[str, str]] = {
    "docs/glossary.md": (r".*", "its last table lists the words that we do not use"),
    "CONTRIBUTING.md": (r"\bsaid\b", "an example of a word"),
}
ROOMS = (
    "talking_face",
    "embedded_corpus",
    "pipelines/cmet_pipelines",
    "metrics/cmet_metrics",
    "cmet_reference",
    "baselines/cmet_baselines",
    "leaderboards/cmet_leaderboards",
    "cmet_eval",
)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOPS = "talking_face|embedded_corpus|pipelines|metrics|baselines|leaderboards|cmet_reference|cmet_eval|docs|tests"


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _without_code(markdown: str) -> str:
    """The text of a page without code blocks, inline code and targets of links; lines keep their numbers."""
    text = re.sub(r"^```.*?^```", lambda found: "\n" * found[0].count("\n"), markdown, flags=re.M | re.S)
    text = re.sub(r"^    .*$", "", text, flags=re.M)
    text = re.sub(r"`[^`]*`", "CODE", text)
    return re.sub(r"\]\([^)]*\)", "]", text)


def _idioms(text: str, allowed: str | None = None) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, instead in IDIOMS.items():
            for found in re.finditer(pattern, line, flags=re.I):
                if allowed is None or not re.search(allowed, found[0], flags=re.I):
                    yield f"line {number}: {found[0]!r} (write: {instead}) in {line.strip()[:100]!r}"


def _comments_and_docstrings(source: str) -> str:
    """Comments and docstrings of a module, each on the line that it has in the file; everything else is empty."""
    lines = [""] * (source.count("\n") + 2)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0]] += re.sub(r"`[^`]*`", "CODE", token.string)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and ast.get_docstring(node):
                text = re.sub(r"`[^`]*`", "CODE", str(first.value.value))
                for offset, line in enumerate(text.splitlines()):
                    lines[first.lineno + offset] += line
    return "\n".join(lines[1:])


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=_name)
def test_docs_are_free_of_idioms(page: Path) -> None:
    allowed = ALLOWED.get(_name(page), (None, ""))[0]
    assert not (found := list(_idioms(_without_code(page.read_text()), allowed))), "\n".join(found)


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_and_comments_are_free_of_idioms(room: str) -> None:
    found = [
        f"{_name(path)}, {idiom}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for idiom in _idioms(_comments_and_docstrings(path.read_text()))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_says_what_it_is_for_in_its_first_line(room: str) -> None:
    for path in sorted((ROOT / room).rglob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        first = text.partition("\n")[0]
        assert len(first.split()) >= 3, f"{_name(path)}: the first line of its docstring is {first!r}"


def _sentences(markdown: str) -> list[int]:
    """Number of words of every sentence outside tables, headings and code."""
    text = _without_code(markdown)
    text = "\n".join("" if line.startswith(("|", "#", "!")) else line for line in text.splitlines())
    parts = re.split(r"(?<=[.!?])[)*_]*\s+|:\s*\n|\n\s*\n|\n\s*[-*] ", text)
    return [count for part in parts if (count := len(re.findall(r"[\w'&/-]+", part))) > 2]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_sentences_are_short_on_average(page: Path) -> None:
    lengths = _sentences(page.read_text())
    mean = sum(lengths) / max(len(lengths), 1)
    assert mean < 25, f"{_name(page)}: {mean:.1f} words a sentence; the longest has {max(lengths)}"


def _anchors(markdown: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", markdown, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=_name)
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{_name(page)} links to {link}, which does not exist"
        if anchor:
            assert anchor in _anchors(target.read_text()), f"{_name(page)} links to {link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_paths_in_docs_exist(page: Path) -> None:
    for path in re.findall(rf"(?<![\w/.<])((?:{TOPS})/[\w./*-]+\.(?:py|toml|csv|md|j2|json|png))\b", page.read_text()):
        if page.parent.name == "how_to":  # the reader creates the file of the example
            path = str(Path(path).parent)
        assert any(ROOT.glob(path)), f"{_name(page)} names {path}, which does not exist"


def test_paths_of_docs_in_code_exist() -> None:
    for room in (*ROOMS, "baselines/catalogue", "tests"):
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix in (".py", ".toml", ".j2"):
                for page in re.findall(r"\bdocs/[\w/.-]+\.(?:md|csv)\b", path.read_text()):
                    assert (ROOT / page).is_file(), f"{_name(path)} names {page}, which does not exist"
