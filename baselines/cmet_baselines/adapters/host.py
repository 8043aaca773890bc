"""Runs the class of an outside method, in the child process of the `python` adapter.

    PYTHON host.py MODULE:CLASS FOLDER...

The interpreter of the method's environment runs this file. Therefore the file uses only the standard library and numpy.
The method's folders are first on the import path, so its repository can have packages with the same names as packages
of this suite. The child reads each case as one JSON line from standard input, and writes each answer as one JSON line
to a copy of standard output. Everything that the method prints goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback

import numpy as np


class Case:
    """The case that `generate` receives, with the attributes of `cmet_baselines.method.Case`.

    An input that the method does not declare in `sees` raises AttributeError.
    """

    fps = 25.0
    audio_rate = 16000
    size: tuple

    def __init__(self, plain: dict, arrays: dict) -> None:
        self.__dict__.update(plain)
        self.size = tuple(self.size)
        self.notes: list = []
        self._arrays = arrays

    def __getattr__(self, name: str) -> object:
        if name.startswith("_") or name not in self._arrays:
            raise AttributeError(f"the case has no {name}; if it is an input, add it to `sees`")
        paths = self._arrays[name]
        loaded = (
            [np.load(path, allow_pickle=False) for path in paths]
            if isinstance(paths, list)
            else np.load(paths, allow_pickle=False)
        )
        setattr(self, name, loaded)
        return loaded

    def note(self, text: str) -> None:
        """Record a fact that a reader of the scores should know."""
        self.notes.append(text)


def main() -> None:
    """Load the class, and answer one case per line until the input ends."""
    target, folders = sys.argv[1], sys.argv[2:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Replace the first folder on the path, which is the folder of this file. Its modules, such as `command` and
    # `videos`, would hide modules of the method.
    sys.path[0:1] = folders
    method = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if method is None:
                module, _, name = target.partition(":")
                method = getattr(importlib.import_module(module), name)()
            answer = describe(method) if message.get("describe") else generate(method, message)
        except MemoryError:
            raise
        except Exception as error:
            traceback.print_exc()
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def describe(method: object) -> dict:
    """The members of the method; null for a missing member."""
    return {
        **{key: getattr(method, key, None) for key in ("name", "revision", "title")},
        "sees": sorted(getattr(method, "sees", [])),
        "summary": (type(method).__doc__ or "").strip().partition("\n")[0],
        "generates": callable(getattr(method, "generate", None)),
    }


def generate(method, message: dict) -> dict:  # type: ignore[no-untyped-def]
    """Run one case and save its video, (T, H, W, 3), as .npy."""
    case = Case(message["plain"], message["arrays"])
    np.save(message["output"], np.ascontiguousarray(method.generate(case)), allow_pickle=False)
    return {"notes": case.notes}


if __name__ == "__main__":
    main()
