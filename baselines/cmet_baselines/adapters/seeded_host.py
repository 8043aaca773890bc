"""Runs `write` of a recipe's seeded.py, in the interpreter of the method's environment.

    PYTHON seeded_host.py SEEDED.py COMPAT CHECKOUT WEIGHTS SEED

COMPAT and CHECKOUT are first on the import path. The file uses only the standard library.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def main() -> None:
    """Load the file and call its function."""
    file, compat, checkout, weights, seed = sys.argv[1:]
    sys.path[0:1] = [compat, checkout]
    spec = importlib.util.spec_from_file_location("cmet_eval_seeded", file)
    assert spec is not None and spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write(Path(checkout), Path(weights), int(seed))


if __name__ == "__main__":
    main()
