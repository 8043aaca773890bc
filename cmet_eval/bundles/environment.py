"""Describes the environment in which a bundle is written: versions of Python and of packages, and the kind of machine.

It contains no name of a machine, a user or a folder.
"""

from __future__ import annotations

import platform

from cmet_eval.bundles.form import EnvironmentPart, Fault, Refused
from talking_face.packages import DISTRIBUTIONS, installed_versions, suite_version

_NEEDED = ("numpy", "av")  # without them, no row can be made; OpenCV has wheels of several names


def environment() -> EnvironmentPart:
    """The environment of this process."""
    return EnvironmentPart(
        suite=suite_version(),
        python=platform.python_version(),
        system=platform.system() or "unknown",
        machine=platform.machine() or "unknown",
        packages=installed_versions(),
    )


def check_environment(part: EnvironmentPart) -> None:
    """Checks the environment of a bundle.

    Raises Refused if the bundle was written by another version of the suite, or if the environment is not one in which
    the suite can run. A wrong version of a package cannot be noticed.
    """
    if part.suite != suite_version():
        text = (
            f"the bundle was written by version {part.suite} and this is {suite_version()}; write it with this version"
        )
        raise Refused(Fault.OTHER_VERSION, text)
    if unknown := sorted(set(part.packages) - DISTRIBUTIONS):
        raise Refused(Fault.EDITED_ENVIRONMENT, f"{unknown[0]!r} is not a package that this suite uses")
    if absent := [name for name in _NEEDED if name not in part.packages]:
        raise Refused(Fault.EDITED_ENVIRONMENT, f"without {absent[0]}, no row can be made")
    for name, version in part.packages.items():
        if not version[0].isdigit():
            raise Refused(Fault.EDITED_ENVIRONMENT, f"{version[:40]!r} is not a version of {name}")
