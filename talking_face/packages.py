"""Imports packages that only some parts of the suite need, and explains why such a package cannot be imported."""

from __future__ import annotations

import importlib
from types import ModuleType

from talking_face.reasons import UserError


def require(package: str, needed_by: str, install: str = "", kind: type[UserError] = UserError) -> ModuleType:
    """Imports a package.

    Args:
        package: the name under which the package is imported.
        needed_by: what needs the package, as the subject of the message, for example `training`.
        install: what pip installs; default: `package`.
        kind: the class of the error.

    Raises:
        UserError: the package is absent, or its import fails. In the second case, as when a CUDA library is missing,
            the message quotes the package's own words.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise kind(f"{needed_by} needs {error.name or package}; run `pip install {install or package}`") from None
    except Exception as error:  # an import runs code of the package, which can raise anything
        words = " ".join(str(error).split())[:300] or type(error).__name__
        raise kind(f"{needed_by} needs {package}, which cannot be loaded here ({words}); install it again") from None
