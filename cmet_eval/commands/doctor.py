"""Report what is installed, which OpenCV is in use, which weights are here, the threads, and what will not work.

Exits 0 when the core works here, 1 when it does not. The core is `measure` with the metrics that need no extra.

Examples:
    cmet-eval doctor
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import typer

from talking_face.lines import one_line
from talking_face.packages import CORE, EXTRAS, absent_packages, install_command, suite_version
from talking_face.pretrained import store
from talking_face.pretrained.face_landmarker import mediapipe_suffix
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError
from talking_face.threads import VARIABLES

_CORE_WEIGHTS = {"face_landmarker"}  # pretrained files that the core contains
# Shared library -> Debian package. MediaPipe 1.0 and later need both libraries, even on machines without a display.
_LIBRARIES = {"libEGL.so.1": "libegl1", "libGLESv2.so.2": "libgles2"}
_OPENCVS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


class Problem(NamedTuple):
    """Something that will not work on this machine."""

    of_core: bool
    text: str


def doctor() -> None:
    print(f"cmet-eval {suite_version()}, python {platform.python_version()}, "
          f"{platform.platform()}")  # fmt: skip
    problems: list[Problem] = []
    for title, check in (
        ("Packages", _packages),
        ("OpenCV and FFmpeg", _opencv),
        ("Weights", _weights),
        ("Machine", _machine),
    ):
        print(f"\n{title}")
        problems += check()
    print("\nWhat will not work")
    for problem in problems:
        print(f"  {'THE CORE: ' if problem.of_core else ''}{problem.text}")
    if not problems:
        print("  nothing known")
    raise typer.Exit(1 if any(problem.of_core for problem in problems) else 0)


def _packages() -> Iterator[Problem]:
    for name, extra in {"core": CORE, **EXTRAS}.items():
        print(f"  {name}: {extra.purpose}")
        for package in extra.packages:
            print(f"    {package:32} {_installed(package) or 'absent'}")
        if absent := absent_packages(extra):
            how = install_command() if extra is CORE else install_command(name)
            yield Problem(extra is CORE, f"{', '.join(absent)} not installed (for {extra.purpose}); run `{how}`")


def _weights() -> Iterator[Problem]:
    files, absent = ModelFiles.from_environment(), []
    for entry in store.registry().values():
        of_core = entry.name in _CORE_WEIGHTS
        try:
            found = store.weight_file(entry.name, files)
            where = f"{found.path} ({found.check})"
        except store.MissingWeights:
            where = "absent"
            if of_core:
                yield Problem(True, store.missing_message(entry))
            else:
                absent.append(entry.name)
        except UserError as error:
            where = "cannot be used"
            yield Problem(of_core, str(error))
        print(f"  {entry.name:32} {where}")
    if absent:
        yield Problem(
            False,
            f"metrics that use {', '.join(absent)}: their weight files are absent; `cmet-eval weights list` names them",
        )


def _opencv() -> Iterator[Problem]:
    owners = [name for name in _OPENCVS if _installed(name)]
    try:
        cv2 = importlib.import_module("cv2")
        print(f"  cv2 {cv2.__version__} from {Path(str(cv2.__file__)).parent}, installed by: {', '.join(owners)}")
    except ImportError as error:
        yield Problem(True, f"OpenCV does not import ({error}); install opencv-contrib-python-headless again")
    if len(owners) > 1:
        text = (
            f"{len(owners)} OpenCV packages overwrite one another ({', '.join(owners)}); "
            "uninstall all of them and install opencv-contrib-python-headless alone"
        )
        yield Problem(False, text)
    try:
        av = importlib.import_module("av")
        print(f"  PyAV {av.__version__} with FFmpeg {av.ffmpeg_version_info}")
        missing = [name for name in ("libx264", "aac", "libopus", "flv") if name not in av.codecs_available]
        if missing:
            yield Problem("libx264" in missing, f"this PyAV has no encoder {', '.join(missing)}")
    except ImportError as error:
        yield Problem(True, f"PyAV does not import ({error})")


def _machine() -> Iterator[Problem]:
    for library, package in ({} if mediapipe_suffix() else _LIBRARIES).items():
        try:
            ctypes.CDLL(library)
            print(f"  {library:32} found")
        except OSError:
            print(f"  {library:32} absent")
            yield Problem(
                True, f"{library} is missing and MediaPipe needs it; on Debian or Ubuntu: apt-get install {package}"
            )
    set_threads = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"  cores usable here                {cores}; thread variables set: {set_threads or 'none'} (workers set 1)")
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    print(f"  free disk here                   {free:.1f} GB")
    if free < 2:
        yield Problem(False, f"{free:.1f} GB free: the demo needs about 1 GB")
    try:
        torch = importlib.import_module("torch")
        gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
        print(f"  GPU seen by torch                {gpu}")
    except ModuleNotFoundError:
        print("  GPU seen by torch                torch is absent")
    except Exception as error:  # for example, a CUDA library is absent, or the driver is too old
        words = one_line(error, 300)
        print("  GPU seen by torch                torch cannot be loaded")
        yield Problem(False, f"torch is installed but cannot be loaded ({words}); install it again for this machine")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
