"""Reads a pickle of nested dicts, lists and tuples of numpy arrays, without running the pickle.

Python's own reader is unsafe for a file of unknown origin, even if it imports nothing: numpy's functions for the state
of arrays accept addresses (type `object`), the reader allocates a table as large as a number in the file, and the hash
of a deeply nested tuple overflows the stack. This module reads the file's instructions with `pickletools`, accepts only
those that such a pickle needs, and makes each array from a numeric type, a shape and bytes of the right number.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from talking_face.reasons import UserError

_LARGEST = 2 << 30  # bytes of a file; I3D's has 51 million
_TYPES = frozenset(f"{kind}{size}" for kind, sizes in {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8)}.items()
                   for size in sizes)  # fmt: skip
_ARRAY_MAKERS = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset(
    (
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "INT",
        "BINFLOAT",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "UNICODE",
    )
) | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")


class _Refused(Exception):
    """The pickle has something other than arrays of numbers in containers."""


@dataclass
class _Global:
    """A class or function that the pickle names. It is never imported."""

    name: str  # "module name"


@dataclass
class _Type:
    """A numpy type in the making: the call gives the name without byte order, the state gives the byte order."""

    name: str
    order: str = "<"

    def set(self, state: object) -> None:
        """Takes the byte order from the state (version, order, None, None, None, -1, -1, 0)."""
        if not isinstance(state, tuple) or state[2:5] != (None, None, None) or state[1] not in ("<", ">", "|", "="):
            raise _Refused("a type that is not a plain number")
        self.order = str(state[1])


@dataclass
class _Array:
    """An array in the making: the call gives an empty array, the state gives shape, type, order and bytes."""

    made: np.ndarray | None = field(default=None)

    def set(self, state: object) -> None:
        """Makes the array from the state (version, shape, type, whether the order is Fortran's, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("an array with another state")
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _Type) or not isinstance(fortran, bool) or not isinstance(data, bytes):
            raise _Refused("an array that is not numbers")
        if not isinstance(shape, tuple) or len(shape) > 8 or any(type(n) is not int or n < 0 for n in shape):
            raise _Refused("an array with a wrong shape")
        form = np.dtype(kind.order + kind.name)
        if math.prod(shape) * form.itemsize != len(data):
            raise _Refused(f"an array of shape {shape} and type {form} with {len(data)} bytes")
        numbers = np.frombuffer(data, form).reshape(shape, order="F" if fortran else "C")
        self.made = numbers.astype(form.newbyteorder("="))  # a copy that can be written


def read_arrays(path: Path) -> Any:
    """The containers of arrays in a pickle. Raises UserError for a file with any other content, or a damaged file."""
    try:
        if path.stat().st_size > _LARGEST:
            raise _Refused(f"it has over {_LARGEST >> 30} GiB")
        return _Machine().run(path.read_bytes())
    except (_Refused, ValueError, LookupError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise UserError(f"{path} is no pickle of arrays: {' '.join(str(error).split())[:160]}") from None


class _Machine:
    """The stack machine of a pickle, with the instructions that arrays in containers need."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.marks: list[int] = []  # positions in the stack
        self.memo: dict[object, object] = {}
        self.spare = 0  # bytes that arrays may still take: together not more than the file has

    def run(self, data: bytes) -> object:
        """The object that the pickle describes."""
        self.spare = len(data)
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                (result,) = self.stack
                return _finished(result, {})
            self.step(opcode.name, argument)
        raise _Refused("it has no end")

    def step(self, name: str, argument: object) -> None:
        """Carries out one instruction."""
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            return
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _PUTS or name == "MEMOIZE":
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in _GETS:
            stack.append(self.memo[argument])
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name in _TUPLES:
            stack.append(tuple(self.taken(_TUPLES[name])))
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(self.since_mark()))
        else:
            self.combine(name, argument)

    def combine(self, name: str, argument: object) -> None:
        """Carries out an instruction that calls something, or that adds to the object below the top of the stack."""
        if name in ("GLOBAL", "STACK_GLOBAL"):
            names = [argument] if name == "GLOBAL" else self.taken(2)
            self.stack.append(_Global(" ".join(map(_text, names))))
        elif name == "REDUCE":
            self.stack.append(_called(*self.taken(2)))
        elif name == "BUILD":
            self.build(*self.taken(1))
        elif name in ("SETITEM", "SETITEMS"):
            items = self.taken(2) if name == "SETITEM" else self.since_mark()
            if not isinstance(self.stack[-1], dict) or len(items) % 2:
                raise _Refused("items of something other than a dict")
            self.stack[-1].update(zip(map(_text, items[::2]), items[1::2], strict=True))
        elif name in ("APPEND", "APPENDS"):
            items = self.taken(1) if name == "APPEND" else self.since_mark()
            if not isinstance(self.stack[-1], list):
                raise _Refused("items of something other than a list")
            self.stack[-1].extend(items)
        else:
            raise _Refused(f"the instruction {name}")

    def build(self, state: object) -> None:
        """Gives the object on the top of the stack its state."""
        if not isinstance(made := self.stack[-1], (_Type, _Array)):
            raise _Refused("the state of something other than an array")
        made.set(state)
        if isinstance(made, _Array):
            self.spare -= made.made.nbytes if made.made is not None else 0
            if self.spare < 0:
                raise _Refused("arrays with more bytes than the file")

    def taken(self, count: int) -> list[object]:
        """Removes the last `count` values from the stack, and returns them."""
        if len(self.stack) - (self.marks[-1] if self.marks else 0) < count:
            raise _Refused("an instruction without its values")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def since_mark(self) -> list[object]:
        """Removes the values after the last mark from the stack, and returns them."""
        if not self.marks:
            raise _Refused("an instruction without its mark")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values


def _called(function: object, arguments: object) -> _Type | _Array:
    """The result of one of the three calls that arrays need."""
    # No containers of the file are hashed, compared or printed here: nested ones could take forever, or the stack.
    name = function.name if isinstance(function, _Global) else f"a call of a {type(function).__name__}"
    first = arguments[0] if isinstance(arguments, tuple) and arguments else None
    if name in _ARRAY_MAKERS and isinstance(first, _Global) and first.name == "numpy ndarray":
        return _Array()
    if name == "numpy dtype" and isinstance(first, str) and first in _TYPES:
        return _Type(first)
    raise _Refused(f"it asks for {name.replace(' ', '.')} {first if isinstance(first, str) else ''}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Refused(f"a name of type {type(value).__name__}")
    return value


def _finished(value: object, done: dict[int, object], depth: int = 0) -> object:
    """The object with arrays in place of `_Array`.

    Args:
        value: the object.
        done: the results by the id of the object, so that an object in many places is finished once.
        depth: number of the containers around the object.
    """
    if depth > 20:
        raise _Refused("containers in over 20 levels")
    if id(value) not in done:
        if isinstance(value, dict):
            done[id(value)] = {key: _finished(item, done, depth + 1) for key, item in value.items()}
        elif isinstance(value, (list, tuple)):
            done[id(value)] = type(value)([_finished(item, done, depth + 1) for item in value])
        else:
            done[id(value)] = _plain(value)
    return done[id(value)]


def _plain(value: object) -> object:
    if isinstance(value, _Array):
        if value.made is None:
            raise _Refused("an array without numbers")
        return value.made
    if isinstance(value, (_Global, _Type)):
        raise _Refused("a class in place of an array")
    return value
