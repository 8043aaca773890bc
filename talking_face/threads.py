"""Thread pools, set once and in one place.

FFmpeg, XNNPACK, OpenMP, BLAS and OpenCV each start a pool of the machine's size; with W workers that is W times too
many threads. A worker process calls `limit_threads(1)` before it imports anything heavy.
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

# Read by talking_face.media at each open: FFmpeg keeps no global setting.
_codec_threads = 1


def limit_threads(n: int = 1) -> None:
    """Give every native library at most `n` threads in this process and in the processes it starts.

    The environment variables act on libraries not loaded yet; OpenCV and torch are also set directly if they are.
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
    """Threads each FFmpeg decoder may use: 1 unless `limit_threads` said otherwise (1 keeps encodes deterministic)."""
    return _codec_threads
