"""Runs the class of an outside method, in the child process of the `python` adapter or of a recipe.

    PYTHON host.py MODULE:CLASS FOLDER...
    PYTHON host.py FILE.py:CLASS FOLDER...

The interpreter of the method's environment runs this file. Therefore the file uses only the standard library and numpy,
and the language of Python 3.7.
The method's folders are first on the import path, so its repository can have packages with the same names as packages
of this suite. The child reads each case as one JSON line from standard input, and writes each answer as one JSON line
to a copy of standard output. Everything that the method prints goes to standard error.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

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
                module, _, name = target.rpartition(":")
                method = getattr(load(module), name)(*arguments(message.get("setup")))
            answer = describe(method) if message.get("describe") else generate(method, message)
        except MemoryError:
            raise
        except Exception as error:
            traceback.print_exc()
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def load(module: str) -> object:
    """The module with this name, or in this file. The name of a file's module hides no module of the method."""
    if not module.endswith(".py"):
        return importlib.import_module(module)
    name = "cmet_eval_" + Path(module).stem
    spec = importlib.util.spec_from_file_location(name, module)
    assert spec is not None and spec.loader is not None, module
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def arguments(setup) -> list:  # type: ignore[no-untyped-def]
    """The arguments of the class: none, or the setup of a recipe, with paths in place of their texts."""
    if setup is None:
        return []
    made = SimpleNamespace(**setup)
    made.checkout, made.work = Path(made.checkout), Path(made.work)
    made.weights = {name: Path(path) for name, path in made.weights.items()}
    return [made]


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
