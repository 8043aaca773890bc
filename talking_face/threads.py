"""Limits the thread pools of native libraries, in one place.

FFmpeg, XNNPACK, OpenMP, BLAS and OpenCV each start as many threads as the machine has cores. With W workers, there are
W times too many threads. A worker process calls `limit_threads(1)` before it imports these libraries.
"""

from __future__ import annotations

import os
import sys

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)

# talking_face.media reads this value for each file that it opens, because FFmpeg has no global setting.
_codec_threads = 1


def limit_threads(n: int = 1) -> None:
    """Give every native library at most `n` threads in this process and in the processes it starts.

    The environment variables act on libraries that are not loaded yet. OpenCV and torch are also set directly when they
    are loaded.
    """
    global _codec_threads
    _codec_threads = n
    for name in VARIABLES:
        os.environ[name] = str(n)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(n)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n)


def codec_threads() -> int:
    """Threads that each FFmpeg decoder may use: 1, or the number that `limit_threads` was last called with."""
    return _codec_threads
