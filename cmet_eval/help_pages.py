"""Prints the help of commands and the one line of a wrong use.

A help page names each option with the type of its value in plain words, and ends with examples that work. The page is
built here because typer's own cuts the summaries of commands and prints types of Python.
"""

from __future__ import annotations

import enum
import re
import shlex
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from talking_face.lines import one_line
from talking_face.names import did_you_mean, printable
from talking_face.packages import suite_version

Typer = Any  # an object of a class that typer does not name publicly: a parameter, a context, a formatter
NAMES = {"help_option_names": ["-h", "--help"]}  # settings of every command
WRONG_USE: Typer = typer.BadParameter.__mro__[
    1
]  # the class of errors in the words of a command line; typer hides its name
# What typer prints for a value of the wrong kind -> the same in plain words.
PLAIN = {
    r"^input should be a valid integer.*": "it should be a whole number",
    r"^input should be a valid number.*": "it should be a number",
    r"^input should be greater than or equal to (\S+)": r"it should be at least \1",
    r"^input should be less than or equal to (\S+)": r"it should be at most \1",
    r"^value error, ": "",
    r"^no such command '(.*)'\. Did you mean '(.*)'\?$": r"no command \1; did you mean \2?",
    r"^got unexpected extra arguments? ?(?:\(s\) )?\((.*)\)": r"\1: not expected here",
}
EXAMPLES = "\n\nExamples:\n"  # in the docstring of a command's file: what follows is printed as it is


class Command(TyperCommand):
    """A command whose help has required options in the usage line, plain types, and examples at its end."""

    def format_usage(self, ctx: typer.Context, formatter: Typer) -> None:  # type: ignore[override]
        _write_usage(self, ctx, formatter)

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        arguments, needed = [], []
        for param in self.get_params(ctx):
            if param.param_type_name == "argument":
                name = f"{_value_name(param)}..." if param.nargs != 1 else _value_name(param)
                arguments.append(name if param.required else f"[{name}]")
            elif param.required:
                needed.append(f"{param.opts[0]} {_value_name(param)}")
        return [*arguments, *needed, "[OPTIONS]"]

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        try:
            return super().parse_args(ctx, args)
        except WRONG_USE as error:
            error.ctx = error.ctx or ctx  # typer leaves it out if an option has no value
            raise

    def format_options(self, ctx: typer.Context, formatter: Typer) -> None:  # type: ignore[override]
        _write_parameters(self, ctx, formatter)

    def format_epilog(self, ctx: typer.Context, formatter: Typer) -> None:  # type: ignore[override]
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"  {line}\n" if line else "\n")


class Group(TyperGroup):
    """The command `cmet-eval`: lists all commands in groups, each with its whole summary."""

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return ["COMMAND [OPTIONS]"]

    def format_options(self, ctx: typer.Context, formatter: Typer) -> None:  # type: ignore[override]
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Typer = self.commands[name]
            groups.setdefault(command.rich_help_panel, []).append((name, command.short_help))
        for title, rows in groups.items():
            with formatter.section(title):
                _write_rows(formatter, rows, max(map(len, self.commands)))
        _write_parameters(self, ctx, formatter)


def about(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", help="print the version", is_eager=True),
) -> None:
    """What `cmet-eval` does without a command: it prints its help, or the version."""
    if version:
        print(suite_version())
        raise typer.Exit()
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
        raise typer.Exit(2)


def help_and_examples(docstring: str) -> tuple[str, str]:
    """The text and the examples of a command file's docstring. The examples lose their indentation."""
    text, _, examples = docstring.strip().partition(EXAMPLES)
    return text, "\n".join(line.removeprefix("    ") for line in examples.splitlines())


def _write_parameters(command: Typer, ctx: Typer, formatter: Typer) -> None:
    rows: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
    for param in command.get_params(ctx):
        if not getattr(param, "hidden", False):
            rows[param.param_type_name].append((_name(param), _about(param)))
    for kind, title in (("argument", "Arguments"), ("option", "Options")):
        if rows[kind]:
            with formatter.section(title):
                _write_rows(formatter, rows[kind], min(26, max(len(name) for name, _ in rows[kind])))


def _write_usage(command: Typer, ctx: Typer, formatter: Typer) -> None:
    start = f"Usage: {ctx.command_path} "
    # The zero bytes keep the name of an option and the word for its value on one line.
    rest = " ".join(piece.replace(" ", "\0") for piece in command.collect_usage_pieces(ctx))
    lines = textwrap.wrap(rest, formatter.width - len(start), break_on_hyphens=False, break_long_words=False)
    for number, line in enumerate(lines):
        formatter.write(f"{' ' * len(start) if number else start}{line}\n".replace("\0", " "))


def _write_rows(formatter: Typer, rows: Iterable[tuple[str, str]], first: int) -> None:
    """Two columns. Names are not broken at their hyphens; a name that is longer than `first` has its own line."""
    for name, text in rows:
        lines = textwrap.wrap(text, formatter.width - first - 4, break_on_hyphens=False) or [""]
        if len(name) > first:
            formatter.write(f"  {name}\n")
            name = ""
        for line in lines:
            formatter.write(f"  {name:{first}}  {line}".rstrip() + "\n")
            name = ""


def _name(param: Typer) -> str:
    """The names of a parameter, the short one first, and the word for its value."""
    if param.param_type_name == "argument":
        return _value_name(param)
    names = ", ".join(sorted(param.opts, key=lambda name: name.startswith("--")))
    if param.is_flag:
        return "/".join([names, *param.secondary_opts])
    return f"{names} {_value_name(param)}"


def _value_name(param: Typer) -> str:
    return str(param.metavar or param.name.upper())


def _about(param: Typer) -> str:
    if "--help" in param.opts:
        return "print this page"
    notes = [f"default: {_default(param)}"] if _default(param) else []
    notes += ["required"] if param.required and param.param_type_name == "option" else []
    return "  ".join(part for part in (param.help or "", f"[{'; '.join(notes)}]" if notes else "") if part)


def _default(param: Typer) -> str:
    """The text of a parameter's default; empty if there is nothing to show."""
    if isinstance(param.show_default, str):
        return param.show_default
    value = param.default
    if not param.show_default or value is None or value is False or value in ("", (), []) or callable(value):
        return ""
    if isinstance(value, bool):
        return str(param.opts[0]).lstrip("-") if param.secondary_opts else ""
    return str(value.value if isinstance(value, enum.Enum) else value)


def wrong_use(error: Typer) -> str:
    """The line of a wrong use: what is wrong, and what to type instead."""
    ctx, param = error.ctx, getattr(error, "param", None)
    more = f"`{ctx.command_path if ctx else 'cmet-eval'} -h` shows what it takes"
    text = one_line(printable(str(error.message))).rstrip(".")
    text = f"{text[:1].lower()}{text[1:]}"
    for pattern, plain in PLAIN.items():
        text = re.sub(pattern, plain, text)
    kind = type(error).__name__
    if kind == "NoSuchOption":
        known = {name for param in ctx.command.get_params(ctx) for name in param.opts}
        return f"no option {error.option_name}{did_you_mean(error.option_name, known) or ';'} {more}"
    if param is None:
        return f"{text}; {more}"
    option = f"{param.opts[0]} " if param.param_type_name == "option" else ""
    if kind == "MissingParameter":
        own = (shlex.join(["cmet-eval", *words]) for words in options_in(ctx.command.epilog or ""))
        example = next((line for line in own if line.startswith(f"{ctx.command_path} ")), "")
        return f"{option}{_value_name(param)} is missing; {f'for example: {example}' if example else more}"
    return f"{option.strip() or _value_name(param)}: {text}; {more}"


def options_in(example: str) -> Iterator[list[str]]:
    """The words of each command of an example, without comments; a line that ends in a backslash is continued."""
    for line in example.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "cmet-eval":
            yield words[1:]
