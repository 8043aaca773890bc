"""Reads the TOML, JSON and CSV files that users write, and checks values against pydantic models.

Every fault of such a file is a UserError of one line, which names the file, the field or line, and what is allowed.
Only regular files of at most 64 MB are read, because reading `/dev/zero` or a named pipe possibly never ends.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from talking_face.files import open_regular
from talking_face.lines import one_line
from talking_face.names import did_you_mean, printable
from talking_face.reasons import UserError

MAX_BYTES = 64_000_000  # the largest table in use, a list of all clips of MELD, has 2 MB
_SHOWN = 4  # problems that a message lists
_LONGEST_LINE, _LONGEST_TEXT = 300, 10_000  # characters; the longest summary of the suite has 600
_VALUE = 40  # characters of a wrong value that a message shows

# Words in messages of pydantic, and the words that replace them, because the user writes TOML and not Python.
_PLAIN = {
    "Input should": "it should",
    "a valid array": "a list",
    "a valid tuple": "a list",
    "a valid dictionary": "a table",
    "an object": "a table",
    "a valid integer": "an integer",
    "a valid number": "a number",
    "a valid string": "a text",
    "a valid boolean": "true or false",
}

_KINDS = ("int", "float", "str", "bool")

T = TypeVar("T")


def _line(text: str) -> str:
    if len(text) > _LONGEST_LINE:
        raise ValueError(f"the text has {len(text)} characters; at most {_LONGEST_LINE} are allowed")
    if not text.strip() or not text.isprintable():
        raise ValueError(f"{_short(text)} is empty, or has characters that cannot be printed")
    return text


def _text(text: str) -> str:
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"the text has {len(text)} characters; at most {_LONGEST_TEXT} are allowed")
    if not all(char.isprintable() or char in "\n\t" for char in text):
        raise ValueError(f"{_short(text)} has characters that cannot be printed")
    return text


def _link(text: str) -> str:
    if not re.fullmatch(r"https?://[\w.-]+(:\d+)?(/[^\s\"'<>]*)?|[\w.-]+/[\w.-]+", text) or len(text) > _LONGEST_LINE:
        raise ValueError(f"{_short(text)} is neither owner/name nor an address that begins with http:// or https://")
    return text


Link = Annotated[str, AfterValidator(_link)]  # pydantic type: owner/name of a repository, or an http(s) address
Line = Annotated[str, AfterValidator(_line)]  # pydantic type: 1 to 300 printable characters
Text = Annotated[str, AfterValidator(_text)]  # pydantic type: at most 10,000 printable characters, tabs and line ends


class Problem(NamedTuple):
    """What is wrong with one value.

    Attributes:
        field: the path of the field, for example `command.deadline_s`; "" for a fault of the whole value.
        message: what is wrong.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class WrongValue(UserError):
    """A value does not fit its model. The message lists the first faults, and `problems` has every fault."""

    def __init__(self, where: str, problems: Sequence[Problem]) -> None:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        super().__init__(f"{where}: {'; '.join((*map(str, problems[:_SHOWN]), *more))}")
        self.where, self.problems = where, tuple(problems)

    def __reduce__(self) -> tuple[type[WrongValue], tuple[str, tuple[Problem, ...]]]:
        # By default, pickle passes only the message to the class, and `__init__` needs the two parts.
        return type(self), (self.where, self.problems)


class CsvRow(NamedTuple):
    """A row of a CSV file: the number of its last line in the file, and its cells by the name of the column."""

    line: int
    cells: dict[str, str]


def read_text(path: Path, what: str) -> str:
    """The text of a UTF-8 file, with or without byte order mark.

    Args:
        path: the file.
        what: the kind of the file for messages, for example `setting`.

    Raises:
        UserError: the file is absent or cannot be read, is not a regular file, has more than `MAX_BYTES`, contains a
            NUL byte or is not UTF-8.
    """
    name = f"the {what} {printable(str(path))}"
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(MAX_BYTES + 1) if size <= MAX_BYTES else b""
    except FileNotFoundError:
        raise UserError(f"{name} is absent") from None
    except IsADirectoryError:
        raise UserError(f"{name} is a folder") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        if getattr(error, "errno", None) == errno.EINVAL:
            raise UserError(f"{name} is not a regular file") from None
        raise UserError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if max(size, len(data)) > MAX_BYTES:
        raise UserError(f"{name} has {max(size, len(data))} bytes; at most {MAX_BYTES} are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{name} is not UTF-8 text (line {line}); save it in UTF-8") from None
    if "\0" in text:
        raise UserError(f"{name} has a NUL byte in line {text[: text.index(chr(0))].count(chr(10)) + 1}")
    return text


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The table in a TOML file. Raises UserError if `read_text` does, or if the text is not TOML."""
    text = read_text(path, what)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also for an integer of more than 4,300 digits
        raise UserError(f"the {what} {printable(str(path))} is not TOML: {_reason(error)}") from None


def named_toml(name: str, folder: Path, what: str, known: Sequence[str]) -> Path:
    """The TOML file that a name or a path means.

    Args:
        name: one of `known`, which is the file `folder`/NAME.toml; or the path of another file, which ends with .toml.
        folder: the files that ship with the package.
        what: what such a file describes, for the message.
        known: the names that ship with the package.

    Raises:
        UserError: the name is unknown.
    """
    if name.endswith(".toml"):
        return Path(name)
    if name not in known:
        hint = did_you_mean(name, known)
        raise UserError(f"no {what} named {printable(name)!r}{hint} (known: {', '.join(known)}, or a path to a .toml)")
    return folder / f"{name}.toml"


def check_own_name(path: Path, name: str, folder: Path, what: str, known: Sequence[str]) -> None:
    """Raises UserError if a TOML file outside of `folder` has a name of `known`: results would carry a wrong name."""
    if name in known and path.resolve() != (folder / f"{name}.toml").resolve():
        raise UserError(f"the {what} {printable(str(path))} has the name {name}, which ships; choose another")


def read_json(path: Path, what: str) -> Any:
    """The value in a JSON file. Raises UserError if `read_text` does, or if the text is not JSON."""
    text = read_text(path, what)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the {what} {printable(str(path))} is not JSON: {_reason(error)}") from None


def read_csv(path: Path, what: str, columns: Sequence[str]) -> list[CsvRow]:
    """The rows of a CSV file. Raises UserError if `read_text` or `csv_rows` does."""
    return csv_rows(read_text(path, what), f"the {what} {printable(str(path))}", columns)


def csv_rows(text: str, where: str, columns: Sequence[str]) -> list[CsvRow]:
    """The rows of a CSV text, without empty lines. Spaces at the ends of column names are removed.

    Args:
        text: the text. The first line has the names of the columns.
        where: the file, for messages.
        columns: the columns that have to be present. Other columns are returned too.

    Raises:
        UserError: a column is missing or occurs twice, a row has more or fewer cells than the header, a quote is not
            closed, or a cell has more than 131,072 characters.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise UserError(f"{where} is not CSV after line {reader.line_num}: {error}") from None
    header = [name.strip() for name in lines[0][1]] if lines else []
    if lacking := [name for name in columns if name not in header]:
        there = ", ".join(map(_short, header[:12])) or "nothing"
        raise UserError(f"{where} has no column {', '.join(lacking)}; its first line has {there}")
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise UserError(f"{where} has two columns {_short(twice[0])}")
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise UserError(f"{where}, line {line}: {len(cells)} cells, and the first line has {len(header)}")
    return [CsvRow(line, dict(zip(header, cells, strict=True))) for line, cells in lines[1:]]


def number(text: str, what: str, least: float = -math.inf) -> float:
    """The finite number in a cell. Raises UserError if the text is not such a number, or is below `least`.

    `what` is the place of the cell, for the message.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least:
        wanted = "a finite number" if least == -math.inf else f"a finite number from {least:g}"
        raise UserError(f"{what} is {_short(text)}; it should be {wanted}")
    return value


def checked(form: type[T], value: object, where: str) -> T:
    """The value as an object of a pydantic model or of a dataclass. Types are strict: `true` and "1" are not numbers.

    Args:
        form: the model. It should forbid unknown fields and numbers that are not finite.
        value: a structure of JSON values, paths and dates.
        where: the file, for messages.

    Raises:
        WrongValue: a field is unknown, missing or wrong. The message lists the first problems.
    """
    try:
        # With strict types, pydantic accepts a list for a tuple, and a text for a path, only in JSON. Therefore the
        # value is validated as JSON.
        return TypeAdapter(form).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        problems = _of_one_kind(error.errors(include_url=False))
        raise WrongValue(where, [_problem(form, item) for item in problems]) from None
    except (RecursionError, ValueError) as error:
        raise WrongValue(where, [Problem("", _reason(error))]) from None


def _problem(form: object, item: ErrorDetails) -> Problem:
    """One problem as plain English: the field, what is allowed, and the wrong value."""
    # pydantic adds the kinds of a union, such as `int` and `literal['all']`, to the place of the field. They are
    # removed, because users do not know them.
    place = [part for part in item["loc"] if isinstance(part, int) or (part.isidentifier() and part not in _KINDS)]
    kind, message = item["type"], item["msg"].removeprefix("Value error, ")
    *outer, last = item["loc"] or ("",)
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        hint = did_you_mean(str(last), _fields(form, outer))
        return Problem("", f"unknown field {_short(last)}{_in(outer)}{hint}")
    if kind in ("missing", "missing_argument"):
        return Problem("", f"the field {last}{_in(outer)} is missing")
    if kind not in ("value_error", "json_invalid"):
        for technical, plain in _PLAIN.items():
            message = message.replace(technical, plain)
        message = f"{message}, not {'null' if item['input'] is None else _short(item['input'])}"
    return Problem(".".join(map(str, place)), message)


def _of_one_kind(problems: list[ErrorDetails]) -> list[ErrorDetails]:
    """The problems without those of a kind that the user did not mean.

    If a field allows several kinds of value (a union), pydantic reports the problems of each kind. A problem further
    inside one kind shows that the user meant this kind. Then the report that the value is not a literal is left out.
    """
    places = [item["loc"] for item in problems]
    return [
        item
        for item in problems
        if item["type"] != "literal_error"
        or not any(
            other[: len(item["loc"]) - 1] == item["loc"][:-1] and len(other) > len(item["loc"]) for other in places
        )
    ]


def _in(place: Sequence[int | str]) -> str:
    return f" in {'.'.join(map(str, place))}" if place else ""


def _fields(form: object, place: Sequence[int | str]) -> list[str]:
    """The names of the fields that the model `form` allows at `place`; empty if there is no model at this place."""
    for part in place:
        hint = getattr(form, "model_fields", {}).get(part)
        kinds = () if hint is None else (hint.annotation, *get_args(hint.annotation))
        form = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return list(getattr(form, "model_fields", None) or getattr(form, "__dataclass_fields__", {}))


def _short(value: object) -> str:
    text = repr(value)
    return printable(text if len(text) <= _VALUE else f"{text[: _VALUE - 3]}...")


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else one_line(error, 200)
