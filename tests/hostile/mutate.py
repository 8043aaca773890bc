"""Damages a structured file (TOML, JSON, CSV, Parquet, safetensors, text) in one random way, for the programs of this
folder.

The same random generator gives the same damage. A damage is marked `illegal` if no strict reader can accept the file:
an unknown key, a number that is not finite or negative, bytes that are not UTF-8, an object that is not a file.
"""

from __future__ import annotations

import copy
import csv
import datetime
import io
import json
import math
import os
import random
import shutil
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEXTS = (
    *("", " ", "../x", "../../canary/x", "/tmp/canary-of-hostile", "board", "=1+1", "javascript:alert(1)", "a\x00b"),
    *("x" * 300, "名前", "{pair.__class__}", "{0}", "%n%s", "nan", "-", "a\nb", "\u202e", "~/x", "http://127.0.0.1:1/"),
    *("-1", "1e400", "None", "inf", "9" * 5000, ".", "..", "CON", "a/b", "a\\b", "'", '"', "\r", "\ufeff"),
)
NUMBERS = (0, -1, 1, 0.5, -0.5, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 1e308, math.nan, math.inf, -math.inf)
OTHERS: tuple[object, ...] = (True, False, None, [], {}, [[]], [None], {"a": {}}, [1, "a"], ["x"] * 1000)
DATE = datetime.date(2020, 1, 1)
LONG = 4_000_000  # characters of a long field


@dataclass(frozen=True)
class Damage:
    """What was done to a file, in one line, and whether every strict reader has to refuse the file."""

    about: str
    illegal: bool = False


def damage(path: Path, rng: random.Random) -> Damage:
    """Damages the file in one way that suits its suffix, or in a way that suits every file."""
    if path.suffix == ".py":  # code can do anything; only its text is damaged
        return rng.choice(TEXT[len(OBJECTS) :])(path, rng)
    own = STRUCTURED.get(path.suffix)
    if own is None or rng.random() < 0.3:
        binary = path.suffix in (".parquet", ".safetensors", ".mp4", ".h5")
        return rng.choice(BINARY if binary else TEXT)(path, rng)
    try:
        return own(path, rng)
    except (ValueError, RecursionError, OverflowError) as error:  # the damaged value cannot be written in this form
        return garbage(path, rng) if "UTF-8" in str(error) else truncated(path, rng)


# -- every file --------------------------------------------------------------------------------------------------------


def empty(path: Path, rng: random.Random) -> Damage:
    path.write_bytes(b"")
    return Damage("empty")


def truncated(path: Path, rng: random.Random) -> Damage:
    data = path.read_bytes()
    at = rng.randrange(max(1, len(data)))
    path.write_bytes(data[:at])
    return Damage(f"cut to {at} of {len(data)} bytes")


def garbage(path: Path, rng: random.Random) -> Damage:
    path.write_bytes(rng.randbytes(rng.choice((1, 100, 100_000))))
    return Damage("random bytes")


def flipped(path: Path, rng: random.Random) -> Damage:
    data = bytearray(path.read_bytes() or b"\0")
    places = [rng.randrange(len(data)) for _ in range(rng.choice((1, 1, 3, 20)))]
    for at in places:
        data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return Damage(f"flipped bits in bytes {places[:3]}")


def tail_flipped(path: Path, rng: random.Random) -> Damage:
    data = bytearray(path.read_bytes() or b"\0")
    at = len(data) - 1 - rng.randrange(min(len(data), 600))
    data[at] = rng.randrange(256)
    path.write_bytes(data)
    return Damage(f"byte {at - len(data)} from the end changed")


def head_changed(path: Path, rng: random.Random) -> Damage:
    data = path.read_bytes()
    head = rng.choice((b"\xff" * 8, b"\0" * 8, (2**40).to_bytes(8, "little"), (10).to_bytes(8, "little"), b"PAR1"))
    path.write_bytes(head + data[8:])
    return Damage(f"begins with {head!r}")


def no_file(path: Path, rng: random.Random) -> Damage:
    path.unlink()
    return Damage("absent", illegal=True)


def folder(path: Path, rng: random.Random) -> Damage:
    path.unlink()
    path.mkdir()
    return Damage("a folder", illegal=True)


def loop(path: Path, rng: random.Random) -> Damage:
    path.unlink()
    path.symlink_to(path.name)
    return Damage("a link to itself", illegal=True)


def endless(path: Path, rng: random.Random) -> Damage:
    path.unlink()
    path.symlink_to("/dev/zero")
    return Damage("a link to /dev/zero", illegal=True)


def pipe(path: Path, rng: random.Random) -> Damage:
    path.unlink()
    os.mkfifo(path)
    return Damage("a named pipe", illegal=True)


def huge(path: Path, rng: random.Random) -> Damage:
    with path.open("r+b") as file:
        file.truncate(3 << 30)  # sparse: 3 GiB that take no disk
    return Damage("3 GiB of zeros after the content", illegal=True)


# -- text --------------------------------------------------------------------------------------------------------------


def _edited(about: str, edit: Callable[[bytes, random.Random], bytes], illegal: bool = False) -> Any:
    def apply(path: Path, rng: random.Random) -> Damage:
        path.write_bytes(edit(path.read_bytes(), rng))
        return Damage(about, illegal)

    return apply


def _insert(data: bytes, rng: random.Random, piece: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + piece + data[at:]


def _lines(data: bytes, rng: random.Random, change: str) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    at = rng.randrange(len(lines))
    if change == "twice":
        lines.insert(at, lines[at])
    elif change == "gone":
        del lines[at]
    else:
        rng.shuffle(lines)
    return b"".join(lines)


def _token(data: bytes, rng: random.Random) -> bytes:
    """One word of the text in place of another."""
    words = data.split(b" ")
    words[rng.randrange(len(words))] = rng.choice([text.encode() for text in (*TEXTS, "[", "{", "]]", "=", ",,", "#")])
    return b" ".join(words)


def _deep(data: bytes, rng: random.Random) -> bytes:
    depth = rng.choice((300, 20_000))
    return rng.choice((b"[" * depth, b'{"a":' * depth, b"a = " + b"[" * depth + b"]" * depth, b"a." * depth + b"a = 1"))


OBJECTS = (no_file, folder, loop, endless, pipe, huge)  # what is not a file of a usual size
TEXT: tuple[Callable[[Path, random.Random], Damage], ...] = (
    *OBJECTS,
    *(empty, truncated, truncated, garbage, flipped),
    _edited("a NUL byte", lambda data, rng: _insert(data, rng, b"\0")),
    _edited("a byte that is not UTF-8", lambda data, rng: _insert(data, rng, rng.choice((b"\xff", b"\xe9", b"\xc3")))),
    _edited("UTF-16", lambda data, rng: data.decode("utf-8", "replace").encode("utf-16")),
    _edited("a byte order mark", lambda data, rng: b"\xef\xbb\xbf" + data),
    _edited("CRLF", lambda data, rng: data.replace(b"\n", b"\r\n")),
    _edited("CR only", lambda data, rng: data.replace(b"\n", b"\r")),
    _edited("a line twice", lambda data, rng: _lines(data, rng, "twice")),
    _edited("a line gone", lambda data, rng: _lines(data, rng, "gone")),
    _edited("lines shuffled", lambda data, rng: _lines(data, rng, "shuffled")),
    _edited("a word replaced", _token),
    _edited("a word replaced", _token),
    _edited("a quote more", lambda data, rng: _insert(data, rng, rng.choice((b'"', b"'", b'"""')))),
    _edited("deep nesting", _deep),
    _edited("a long line", lambda data, rng: _insert(data, rng, b"x" * LONG)),
)
BINARY = (
    *(empty, truncated, truncated, garbage, flipped, flipped, tail_flipped, tail_flipped, head_changed, no_file),
    *(folder, loop, endless, pipe),
)


# -- trees: TOML and JSON ----------------------------------------------------------------------------------------------


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value of a tree, without the root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _places(value, (*path, key))


def _value_for(old: object, rng: random.Random) -> object:
    if isinstance(old, bool) or rng.random() < 0.3:
        return rng.choice([*TEXTS, *NUMBERS, *OTHERS])
    if isinstance(old, int | float):
        return rng.choice(NUMBERS)
    if isinstance(old, str):
        return rng.choice([*TEXTS, *TEXTS, old.upper(), old + " ", "x" * LONG])
    return rng.choice(OTHERS)


def change_tree(tree: Any, rng: random.Random) -> tuple[Any, Damage]:
    """A copy of the tree with one changed, missing, additional or misplaced value."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    how = rng.random()
    if how < 0.05 or not places:
        other = rng.choice(OTHERS)
        return other, Damage(f"the whole is {other!r}"[:80])
    *path, key = rng.choice(places)
    parent = tree
    for step in path:
        parent = parent[step]
    where = ".".join(map(str, (*path, key)))
    if how < 0.15 and isinstance(parent, dict):
        name = rng.choice([f"{key}s", "unknown", *(text for text in TEXTS[:12] if text)])
        parent[name] = copy.deepcopy(parent[key])
        return tree, Damage(f"a key {name[:40]!r} more next to {where}", illegal=True)
    if how < 0.25:
        del parent[key]
        return tree, Damage(f"without {where}")
    old = parent[key]
    value = _value_for(old, rng)
    parent[key] = value
    number = isinstance(value, int | float) and not isinstance(value, bool | str)
    wrong = number and not isinstance(old, str | bool | list | dict | None) and (not math.isfinite(value) or value < 0)
    return tree, Damage(f"{where} = {value!r}"[:100], illegal=wrong)


def toml_text(tree: dict[str, Any]) -> str:
    """A TOML document with the values of the tree; tables are written as inline tables."""
    return "".join(f"{_toml_key(key)} = {_toml(value)}\n" for key, value in tree.items())


def _toml_key(key: object) -> str:
    return json.dumps(str(key), ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ("nan" if math.isnan(value) else "-inf" if value < 0 else "inf")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_key(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if value is None:
        return "1979-05-27T07:32:00Z"  # TOML has no null; a date is as wrong as a null
    return str(value) if isinstance(value, int) else _toml_key(value)


def toml(path: Path, rng: random.Random) -> Damage:
    tree, done = change_tree(tomllib.loads(path.read_text("utf-8")), rng)
    path.write_text(toml_text(tree if isinstance(tree, dict) else {"whole": tree}), "utf-8")
    return done


def json_file(path: Path, rng: random.Random) -> Damage:
    """Half of the changed files get the right digest of their changed content, as a forger would write them."""
    tree, done = change_tree(json.loads(path.read_text("utf-8")), rng)
    if isinstance(tree, dict) and "sha256" in tree and rng.random() < 0.7:
        try:
            from talking_face.sealed import sealed

            tree, done = sealed(tree), Damage(f"{done.about}, with a new digest", done.illegal)
        except (ImportError, ValueError, TypeError):
            pass
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5)
    if isinstance(tree, dict) and tree and rng.random() < 0.1:  # a key twice
        text = text[:-1] + f", {json.dumps(next(iter(tree)))}: null}}"
    path.write_text(text, "utf-8", "surrogatepass")
    return done


# -- tables: CSV and Parquet -------------------------------------------------------------------------------------------


def csv_file(path: Path, rng: random.Random) -> Damage:
    text = path.read_text("utf-8-sig")
    head, body = "", text
    if text.startswith("# {"):  # a pair list: its first line is JSON
        head, _, body = text.partition("\n")
    rows = list(csv.reader(io.StringIO(body)))
    rows, done = _change_rows(rows, rng)
    if head and rng.random() < 0.3:
        tree, done = change_tree(json.loads(head[2:]), rng)
        head = f"# {json.dumps(tree)}"
    buffer = io.StringIO()
    delimiter = rng.choice(",,,,,,;\t")
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    path.write_text((head + "\n" if head else "") + buffer.getvalue(), "utf-8", "surrogatepass", newline="")
    return done


def _change_rows(rows: list[list[str]], rng: random.Random) -> tuple[list[list[str]], Damage]:
    row, column = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    how = rng.choice(("cell", "cell", "cell", "cell", "column gone", "column twice", "swap", "short", "wide", "header"))
    name = rows[0][column][:40]
    if how == "cell":
        row = rng.randrange(1, len(rows)) if len(rows) > 1 else 0
        rows[row] = [*rows[row], *[""] * (column + 1 - len(rows[row]))]
        rows[row][column] = rng.choice([*TEXTS, *map(str, NUMBERS), "x" * LONG, rows[row][column].upper(), "[1,", "{}"])
        return rows, Damage(f"{name} in row {row} = {rows[row][column]!r}"[:100])
    if how == "column gone":
        return [line[:column] + line[column + 1 :] for line in rows], Damage(f"without column {name}")
    if how == "column twice":
        return [[*line, line[column] if column < len(line) else ""] for line in rows], Damage(f"{name} twice")
    if how == "swap":
        other = rng.randrange(len(rows[0]))
        rows[0][column], rows[0][other] = rows[0][other], rows[0][column]
        return rows, Damage(f"{name} and {rows[0][column][:40]} exchanged")
    if how == "short":
        rows[row] = rows[row][: rng.randrange(len(rows[row]) + 1)]
        return rows, Damage(f"row {row} has {len(rows[row])} cells")
    if how == "wide":
        rows[row] = rows[row] * rng.choice((2, 1000))
        return rows, Damage(f"row {row} has {len(rows[row])} cells")
    rows[0][column] = rng.choice(TEXTS)
    return rows, Damage(f"column {name} is called {rows[0][column][:40]!r}")


def parquet(path: Path, rng: random.Random) -> Damage:
    """Half of the changed files with a digest get the right digest of their changed content."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    try:
        table, about = _change_table(table, rng)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        table, about = table.slice(0, 0), "zero rows"
    metadata = dict(table.schema.metadata or {})
    sealed = metadata.pop(b"sha256", None) is not None
    table = table.replace_schema_metadata(metadata or None)
    original = path.read_bytes()
    try:
        if sealed and rng.random() < 0.8:
            from talking_face.sealed import write_sealed_table

            write_sealed_table(table, path)
            return Damage(f"{about}, with a new digest")
        pq.write_table(table, path)
    except pa.ArrowException:  # a type that Parquet cannot hold
        path.write_bytes(original[: len(original) // 2])
        return Damage("half of the file")
    return Damage(about)


def _change_table(table: Any, rng: random.Random) -> tuple[Any, str]:
    import pyarrow as pa

    at = rng.randrange(table.num_columns)
    name, column = table.schema.field(at).name, table.column(at)
    metadata = dict(table.schema.metadata or {})
    how = rng.choice(("cell", "cell", "cell", "type", "gone", "renamed", "null", "twice", "rows", "order", "metadata"))
    if how == "cell" and table.num_rows:
        values, row = column.to_pylist(), rng.randrange(table.num_rows)
        values[row] = _value_for(values[row], rng)
        changed = pa.array(values, column.type if rng.random() < 0.7 else None)
        return table.set_column(at, name, changed), f"{name} in row {row} = {values[row]!r}"[:100]
    if how == "type":
        kind, changed = _other_type(column, rng)
        return table.set_column(at, name, changed), f"{name} is {kind}"
    if how == "gone":
        return table.remove_column(at), f"without column {name}"
    if how == "renamed":
        new = rng.choice(TEXTS)
        return table.rename_columns(
            [new if i == at else n for i, n in enumerate(table.schema.names)]
        ), f"{name} renamed"
    if how == "null":
        return table.set_column(at, name, pa.nulls(table.num_rows, column.type)), f"{name} is null"
    if how == "twice":
        return table.append_column(name, column), f"two columns {name}"
    if how == "rows":
        return rng.choice((table.slice(0, 0), pa.concat_tables([table, table]))), "no rows, or all rows twice"
    if how == "metadata" and metadata:
        key = rng.choice(sorted(metadata))
        metadata[key] = _changed_metadata(metadata[key], rng)
        return table.replace_schema_metadata(metadata), f"metadata {key.decode()} = {metadata[key][:60]!r}"
    names = list(table.schema.names)
    rng.shuffle(names)
    return table.select(names), "columns in another order"


def _changed_metadata(value: bytes, rng: random.Random) -> bytes:
    try:
        tree, _ = change_tree(json.loads(value), rng)
        return rng.choice((json.dumps(tree).encode(), json.dumps(tree).encode(), b"", b"{", b"\xff", b"null", b"[]"))
    except (ValueError, TypeError):
        return rng.choice((b"", b"{", b"\xff", b"null", b"[]"))


def _other_type(column: Any, rng: random.Random) -> tuple[str, Any]:
    import pyarrow as pa

    n = len(column)
    made = {
        "text": lambda: pa.array([str(value) for value in column.to_pylist()]),
        "bytes": lambda: pa.array([b"\xff\xfe"] * n, pa.binary()),
        "integers": lambda: pa.array([-1] * n),
        "reals": lambda: pa.array([math.nan] * n),
        "lists": lambda: pa.array([[None, 1]] * n),
        "structs": lambda: pa.array([{"a": 1}] * n),
        "maps": lambda: pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64())),
        "a dictionary": lambda: column.combine_chunks().dictionary_encode(),
        "decimals": lambda: pa.array([1] * n).cast(pa.decimal128(38, 2)),
        "times": lambda: pa.array([0] * n, pa.timestamp("ns", "UTC")),
        "truth values": lambda: pa.array([True] * n),
        "null": lambda: pa.nulls(n),
        "large text": lambda: pa.array([str(value) for value in column.to_pylist()], pa.large_string()),
        "UUIDs": lambda: pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"\0" * 16] * n, pa.binary(16))),
    }
    kind = rng.choice(sorted(made))
    return kind, made[kind]()


# -- safetensors -------------------------------------------------------------------------------------------------------


def safetensors(path: Path, rng: random.Random) -> Damage:
    """Changes the JSON header: a tensor's type, shape or place, or the metadata, which are JSON texts."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    metadata = header.get("__metadata__", {})
    if metadata and rng.random() < 0.6:
        key = rng.choice(sorted(metadata))
        try:
            tree, done = change_tree(json.loads(metadata[key]), rng)
            metadata[key] = json.dumps(tree)
        except ValueError:
            metadata[key], done = rng.choice(TEXTS), Damage("another text")
        done = Damage(f"metadata {key}: {done.about}")
    else:
        header, done = change_tree(header, rng)
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data[8 + size :])
    return done


STRUCTURED: dict[str, Callable[[Path, random.Random], Damage]] = {
    ".toml": toml,
    ".json": json_file,
    ".csv": csv_file,
    ".parquet": parquet,
    ".safetensors": safetensors,
}


def restore(template: Path, folder: Path) -> None:
    """A fresh copy of the folder of valid files."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(template, folder, symlinks=True)
