"""Runs an outside class in its own process: the child's side of the `python` adapter.

    PYTHON host.py MODULE:CLASS FOLDER...

The interpreter of the method's environment runs this file, so it needs only the standard library and numpy. The
method's folders are first on the import path, so its repository may contain a `metrics` or a `pipelines`. Each case is
one JSON line on standard input, and its answer is one line on a copy of standard output. The method's own output goes
to standard error.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
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
        """Record something that a reader of the scores should know."""
        self.notes.append(text)


def main() -> None:
    """Load the class, then answer cases until the input ends."""
    target, folders = sys.argv[1], sys.argv[2:]
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: the process ends with its worker
        if os.getppid() != parent:
            sys.exit(1)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # The folder of this file is first on the path; its modules `command`, `videos` ... would hide the method's.
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
    """The members of the method; null for an absent member."""
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
