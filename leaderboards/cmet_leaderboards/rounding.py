"""Rounds all numbers of tables to 6 significant digits, so that other versions of NumPy and SciPy give the same bytes.

Two versions of a package can add numbers in another order, so that the last digits of a mean or a p-value differ.
All boards print rounded numbers; the site of the standing leaderboard also stores them rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar, cast

import numpy as np

from cmet_leaderboards.digits import significant
from cmet_leaderboards.grid import Grid

T = TypeVar("T")


def rounded(value: T) -> T:
    """The value with all numbers in it rounded: in dataclasses, sequences, mappings and arrays, but not in grids."""
    return cast(T, _rounded(value))


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return significant(value)
    if isinstance(value, np.ndarray):
        floats = value.dtype.kind == "f"
        return np.array([significant(float(x)) for x in value.ravel()]).reshape(value.shape) if floats else value
    if isinstance(value, Grid | str):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        found = {one.name: getattr(value, one.name) for one in fields(value) if one.init}
        changed = {name: new for name, old in found.items() if (new := _rounded(old)) is not old}
        return replace(value, **changed) if changed else value
    if isinstance(value, Mapping):
        return {_rounded(name): _rounded(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map(_rounded, value))
    return value
