"""Limits the number of threads that native libraries start.

FFmpeg, XNNPACK, OpenMP, BLAS and OpenCV each start as many threads as the machine has cores. With W workers there would
be W times as many threads as cores. Therefore a worker's child process calls `limit_threads(1)` before it imports the
libraries.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)

# The instruction set with which torch, oneDNN, MKL and numpy's OpenBLAS compute. By default, each library takes the
# newest one of the processor. The last bits of a sum depend on it, and after some hundred training steps all digits do.
ARITHMETIC = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2,STRICT",
    "OPENBLAS_CORETYPE": "Haswell",
}
PROCESSOR = Path("/proc/cpuinfo")  # Linux: the properties of each processor; the instruction sets are in a line `flags`

# talking_face.media passes this value to FFmpeg for each opened file, because FFmpeg has no global thread limit.
_codec_threads = 1


def limit_threads(n: int = 1) -> None:
    """Limit every native library to `n` threads, in this process and in the processes that it starts.

    A library reads the environment variables only when the library is loaded. Therefore the limit of OpenCV and of
    torch is also set directly if the library is already loaded.
    """
    global _codec_threads
    _codec_threads = n
    for name in VARIABLES:
        os.environ[name] = str(n)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(n)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n)


def pin_arithmetic() -> None:
    """Make torch and OpenBLAS use AVX2, here and in processes that are started later.

    The function must be called before numpy and torch are loaded. A variable that the user has set is kept. Nothing is
    set if the processor is not known to have AVX2: the libraries do not check this, and the process would end with
    SIGILL. Logarithms and Fourier transforms of numpy are not pinned; features are rounded before they enter a training
    (`cmet_reference.training.rounding`).
    """
    if not _has_avx2():
        return
    for name, value in ARITHMETIC.items():
        os.environ.setdefault(name, value)


def _has_avx2() -> bool:
    with suppress(OSError), PROCESSOR.open(encoding="utf-8", errors="replace") as file:
        return any(line.startswith("flags") and "avx2" in line.split() for line in file)
    return False


def codec_threads() -> int:
    """Number of threads per FFmpeg decoder: the value of the last call of `limit_threads`, or 1 before any call."""
    return _codec_threads
