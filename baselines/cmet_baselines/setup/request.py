"""What a user gives to set up a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """What the user gave.

    Attributes:
        checkout: a folder with the repository; None: it is cloned.
        weights: a folder with the weight files, under the names of the entry.
        python: an interpreter that has the packages; None: an environment is built.
        seeded: write random weights of the real shapes, which only test that the code runs.
        device: cpu or cuda:N; None: cuda:0 if the interpreter's PyTorch finds a GPU.
        options: test-only limits of the recipe.
        fresh: forget the hashes of an earlier setup.
    """

    checkout: Path | None = None
    weights: Path | None = None
    python: Path | None = None
    seeded: bool = False
    device: str | None = None
    options: Mapping[str, int] = field(default_factory=dict)
    fresh: bool = False
