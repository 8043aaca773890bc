"""Checks names that come from users and files, and turns them into file names, printable text and suggestions.

A name on disk is a sequence of bytes. Python decodes the bytes that are not UTF-8 to lone surrogates (U+DC80 to
U+DCFF), which cannot be printed or stored; `printable` replaces them.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from talking_face.lines import one_line
from talking_face.reasons import UserError

_LONGEST_NAME = 100  # characters
_LONGEST_ID = 1000  # characters
_LONGEST_FILE_NAME = 120  # bytes of one encoded name; a file name has at most 255 bytes and can join two names
_KEY = re.compile(r"[a-z0-9][a-z0-9.-]*")
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
# The folders of a path that begins with `/`, `~/` or a Windows drive and has at least two parts.
_FOLDERS = re.compile(r"(?<![\w.~<>/\\-])(?:~?/|[A-Za-z]:\\)(?:[^/\\\s'\"`,;:()<>]+[/\\])+(?=[^/\\\s])")
# Such a path in quotes. Only here can a path contain spaces, because the quotes show where the path ends.
_QUOTED = re.compile(r"(?<=['\"`])(?:~?/|[A-Za-z]:\\)[^'\"`\n]*[/\\]([^/\\'\"`\n]+)(?=['\"`])")


def check_label(text: str) -> str:
    """Checks that a text can be the label of a revision, a file or a clip, and returns the text.

    A label is 1 to 100 printable characters without a space at its ends. The first character is not one of `=+-@`,
    because a spreadsheet reads a cell that begins with one of these as a formula.

    Raises ValueError for other text.
    """
    if not 1 <= len(text) <= _LONGEST_NAME:
        raise ValueError(f"{printable(text[:40])!r} has {len(text)} characters; a name has 1 to {_LONGEST_NAME}")
    if not text.isprintable() or text != text.strip():
        raise ValueError(f"{printable(text)!r} holds characters that cannot be printed, or a space at its end")
    if text[0] in "=+-@":
        raise ValueError(f"{text!r} begins with {text[0]!r}, which spreadsheets read as a formula; choose another name")
    return text


def check_name(text: str) -> str:
    """Checks that a text can be the name of a method, setting, metric or speaker, and returns the text.

    A name is a label that is not a path and does not begin with a dot.

    Raises ValueError for other text.
    """
    check_label(text)
    if "/" in text or "\\" in text or text.startswith("."):
        raise ValueError(
            f"{text!r} is a path or begins with a dot; a name has no / or \\ and begins with a letter or digit"
        )
    return text


def check_id(text: str) -> str:
    """Checks that a text can be the id of a clip or of a pair, and returns the text.

    An id has 1 to 1,000 printable characters and can contain `/`, as a path does. It has no part `..`, and does not
    begin with one of `=+-@/`.

    Raises ValueError for other text.
    """
    if not 1 <= len(text) <= _LONGEST_ID or not text.isprintable():
        raise ValueError(f"{printable(text[:60])!r} is not an id: 1 to {_LONGEST_ID} printable characters")
    if text[0] in "=+-@/" or ".." in text.replace("\\", "/").split("/"):
        raise ValueError(f"{text[:60]!r} is not an id: it begins with {text[0]!r} or has a part '..'")
    return text


def check_key(text: str) -> str:
    """Checks that a text can be the name that users write for a method or setting, and returns the text.

    Such a name contains only a-z, 0-9, `.` and `-`.

    Raises ValueError for other text.
    """
    check_name(text)
    if not _KEY.fullmatch(text):
        raise ValueError(f"{text!r} may contain a-z, 0-9, '.' and '-' only, and has to begin with a letter or a digit")
    return text


def check_pattern(text: str, fields: Iterable[str]) -> str:
    """Checks that a text is a relative path in which braces contain only names of `fields`, and returns the text.

    A format in braces, such as `{pair:03}`, is not allowed.

    Raises ValueError for other text.
    """
    known = tuple(fields)
    allowed = " and ".join(f"{{{name}}}" for name in known)
    for _, name, form, conversion in string.Formatter().parse(text):  # raises ValueError for a single brace
        if name is not None and (name not in known or form or conversion):
            raise ValueError(f"the pattern {printable(text[:60])!r} may contain {allowed} only")
    if text.startswith(("/", "~")) or ".." in text.split("/") or "\0" in text:
        raise ValueError(f"the pattern {printable(text[:60])!r} is not a path inside the folder of the videos")
    return text


Key = Annotated[str, AfterValidator(check_key)]  # pydantic type of a text that `check_key` accepts
Label = Annotated[str, AfterValidator(check_label)]  # pydantic type of a text that `check_label` accepts
Id = Annotated[str, AfterValidator(check_id)]  # pydantic type of a text that `check_id` accepts
Name = Annotated[str, AfterValidator(check_name)]  # pydantic type of a text that `check_name` accepts


def file_name_of(*names: str) -> str:
    """One file name for one or several names, joined by `@`. Different names have different file names.

    ASCII letters, digits, `-`, `_` and `.` are kept, except a dot at the beginning. Each other byte of the UTF-8 text
    becomes `%` and two hex digits. A name whose encoded form has over 120 bytes is cut, and ends in `~` and 32 digits
    of its SHA-256.

    Example:
        >>> file_name_of("my method", "a/b")
        'my%20method@a%2Fb'
    """
    return "@".join(map(_encoded, names))


def _encoded(name: str) -> str:
    data = name.encode("utf-8", "surrogateescape")
    text = "".join(chr(b) if b in _PLAIN and not (i == 0 and b == 0x2E) else f"%{b:02X}" for i, b in enumerate(data))
    if len(text) > _LONGEST_FILE_NAME:
        return f"{text[:80]}~{hashlib.sha256(data).hexdigest()[:32]}"
    return text


def inside(root: Path, *names: str) -> Path:
    """The path `root/names...`, after a check that the path is inside `root`.

    Raises UserError if a name is absolute, has a part `..`, or leads through a link to a place outside `root`.
    """
    path = root.joinpath(*names)
    folder = root.resolve()
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ("..",)
    if ".." in parts or not path.resolve().is_relative_to(folder) or path.resolve() == folder:
        raise UserError(f"{printable('/'.join(names))!r} is not a path inside {printable(str(root))}")
    return path


def printable(text: str) -> str:
    r"""The text with escapes in place of bytes that are not UTF-8 (`\xe9`) and of control characters (`\n`)."""
    if text.isprintable():
        return text
    whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)


def without_folders(text: str) -> str:
    """The text with only the last part of each absolute path, so that it names no home folder and no user.

    Example:
        >>> without_folders("/home/me/data/a.mp4 is empty")
        'a.mp4 is empty'
    """
    return _FOLDERS.sub("", _QUOTED.sub(r"\1", text))


def storable(text: str, most: int = 1000, folders: Iterable[Path] = ()) -> str:
    """The text as it is stored in records and rows: one printable line without folders.

    Args:
        text: a message, a note or a title.
        most: maximum number of characters; the rest is cut.
        folders: more folders to remove from the text, mainly relative folders and folders with spaces in their names,
            which `without_folders` can miss. The home folder and the current folder are always removed.

    Example:
        >>> storable("cannot read\\n /home/me/a.mp4")
        'cannot read a.mp4'
    """
    for folder in sorted({*map(str, folders), *_own_folders()} - {"", ".", "/"}, key=len, reverse=True):
        # The mark `/-/` makes the rest of a path absolute, so that `without_folders` removes its folders too.
        text = re.sub(rf"(?<![\w.~/\\-]){re.escape(folder)}/", "/-/", text)
    return printable(one_line(without_folders(text)))[:most].strip()


def _own_folders() -> set[str]:
    try:
        return {str(Path.home()), str(Path.cwd())}
    except (RuntimeError, OSError):  # the user has no home folder, or the current folder was removed
        return set()


def did_you_mean(name: str, known: Iterable[str], at_most: int = 1) -> str:
    """The text `; did you mean NAME?` with the known names most similar to `name`, or "" if no name is similar.

    Args:
        name: the unknown name.
        known: all names that exist.
        at_most: maximum number of names to suggest.

    Example:
        >>> did_you_mean("psnrr", ["psnr", "ssim"])
        '; did you mean psnr?'
    """
    near = difflib.get_close_matches(name, list(known), n=at_most)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def counted(count: int, noun: str) -> str:
    """The number and the noun, with the ending `s` unless the number is 1.

    Example:
        >>> counted(1, "pair"), counted(2, "pair")
        ('1 pair', '2 pairs')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
