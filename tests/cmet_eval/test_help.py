"""Tests the help pages of all commands, their examples, and the completion of the shell, with the real application."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmet_eval.cli import COMMANDS, build
from cmet_eval.help_pages import options_in
from cmet_metrics.registry import KEYS

# Words for values that a help page may use. Types of Python, such as <str> or <int range>, are not among them.
VALUES = re.compile(r"[A-Z]+(=[A-Z]+)?|[a-z0-9-]+(\|[a-z0-9-]+)+")


def page(*words: str) -> str:
    """The help page of a command, or of `cmet-eval`, 80 columns wide."""
    app = build(words[0] if words else None)
    done = CliRunner().invoke(app, [*words, "-h"], prog_name="cmet-eval")
    assert done.exit_code == 0, done.output
    return done.output


def parameters(name: str) -> list:
    """The parameters of a command, as the application has them."""
    import typer

    return typer.main.get_command(build(name)).commands[name].params  # type: ignore[attr-defined]


def test_the_list_of_commands_has_whole_summaries() -> None:
    text = page()
    flat = " ".join(text.split())
    assert all(f"{name} {line}" in flat for name, line in COMMANDS.items()) and "..." not in text
    assert max(map(len, text.splitlines())) <= 80 and "Score videos that you have:" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_page_has_plain_types_and_ends_with_examples(name: str) -> None:
    text = page(name)
    assert not re.search(r"<\w|x>=|\binteger\b|\brange\b", text), text
    for param in parameters(name):
        if not getattr(param, "is_flag", False):
            assert param.metavar and VALUES.fullmatch(param.metavar), f"{name} {param.opts}: a metavar in plain words"
            assert param.help, f"{name} {param.opts} has no help"
            if "|" in param.metavar:
                assert param.metavar.split("|") == list(param.type_descriptor.choices), f"{name} {param.opts}"
    examples = text.partition("\nExamples:\n")[2]
    assert f"cmet-eval {name}" in examples and 1 <= len(examples.splitlines()) <= 6
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_of_each_example_are_taken(name: str) -> None:
    import typer

    examples = page(name).partition("\nExamples:\n")[2]
    for words in options_in(examples):
        command = typer.main.get_command(build(words[0])).commands[words[0]]  # type: ignore[attr-defined]
        command.make_context(words[0], words[1:]).close()  # raises an error for a word that is not taken


def offers(environment: dict[str, str], cwd: Path | None = None) -> str:
    """What `cmet-eval` prints for a shell that asks for completions with these variables."""
    done = subprocess.run(
        [sys.executable, "-m", "cmet_eval.cli"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80", **environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stderr == "", done.stderr
    return done.stdout


def complete(words: Sequence[str], incomplete: str = "", cwd: Path | None = None) -> list[str]:
    """What bash offers for the last word."""
    line = " ".join(["cmet-eval", *words, incomplete])
    variables = {"_CMET_EVAL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) + 1)}
    return offers(variables, cwd).split()


def complete_fish(line: str) -> list[str]:
    """What fish offers for the last word of a line. Its script asks for names, then each line is a name."""
    variables = {"_CMET_EVAL_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    return [text.partition("\t")[0] for text in offers({**variables, "_TYPER_COMPLETE_ARGS": line}).splitlines()]


def complete_zsh(line: str) -> list[str]:
    """What zsh offers for the last word of a line. It evaluates a call of its function `_arguments`."""
    variables = {"_CMET_EVAL_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
    text = offers(variables).strip()
    assert text.startswith("_arguments '*: :((") and text.endswith("))'"), text
    return [name.replace("\\\\", "") for name in re.findall(r'^(?:_arg.*?\(\()?"([^"]+)"', text, flags=re.M)]


@pytest.mark.parametrize("shell", [complete_fish, complete_zsh])
def test_fish_and_zsh_complete_names(shell: Callable[[str], list[str]]) -> None:
    assert shell("cmet-eval le") == ["leaderboard"]
    assert shell("cmet-eval run --setting neutral") == ["neutral-base"]
    keys = shell("cmet-eval measure --metrics psnr")
    assert keys == [key for key in KEYS if key.startswith("psnr")]


def test_the_shell_completes_names_of_commands_and_options() -> None:
    assert set(complete([])) >= set(COMMANDS)
    assert complete([], "le") == ["leaderboard"]
    assert {"--method", "--metrics", "--max-pairs"} == set(complete(["run"], "--m")) - {"--memory"}


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        (["run", "--method"], "cm", {"cmet"}),
        (["run", "--method", "cmet", "--setting"], "cross", {"cross-emotion"}),
        (["score", "--metrics"], "psn", {"psnr:frame-mean"}),
        (["preprocess"], "cr", {"crema-d"}),
        (["score", "--profile"], "em", {"embedded"}),
        (["report"], "conf", {"confusion"}),
        (["compare"], "sta", {"static-reference"}),
        (["train", "cmet", "--config"], "p", {"paper"}),
    ],
)
def test_the_shell_completes_values(words: list[str], incomplete: str, offered: set[str], tmp_path: Path) -> None:
    rows = tmp_path / "work" / "mine" / "results" / "neutral-base"
    rows.mkdir(parents=True)
    (rows / "static-reference@1@paper.parquet").touch()
    assert offered <= set(complete(words, incomplete, tmp_path))
