"""Rounds the features that enter a training, so that the last bits of their computation do not change the training.

Logarithms and Fourier transforms of other versions and processors differ in their last bits. A training amplifies such
a difference: after some hundred steps, all digits of the network differ. On a grid that is a hundred times coarser than
the last bit, two computations give the same number, unless a value is near the middle between two points of the grid.
The probability of this is about 1e-10 per value if the computation is in double precision.
"""

from __future__ import annotations

import numpy as np

STEP = 2.0**-14  # 6e-5; features have standard deviations of 0.1 to 10


def rounded(values: np.ndarray, step: float = STEP) -> np.ndarray:
    """The values, rounded to multiples of `step`, as float32. A step that is a power of two is exact in float32."""
    return (np.round(np.asarray(values, np.float64) / step) * step).astype(np.float32)
