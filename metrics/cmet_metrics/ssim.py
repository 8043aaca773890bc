"""Computes SSIM: structural similarity as Wang, Bovik, Sheikh and Simoncelli define it, or as three libraries do.

`wang2004` is the definition of the paper. `skimage` is the default of scikit-image, `y` is basicsr's SSIM on luma, and
`torchmetrics` is the SSIM of torchmetrics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from cmet_metrics.base import Sample, Score, Settings, Variant
from cmet_metrics.frames import FrameByFrame
from cmet_metrics.pictures import check_frames, check_levels, check_two, peak, plain
from talking_face.reasons import ClipError, Reason, UserError

WINDOW = 11  # px
SIGMA = 1.5  # px
Border = Literal["valid", "reflect"]
Colour = Literal["rgb", "y"]
Window = Literal["gaussian-11", "uniform-7"]
BOX = 7  # px, side of scikit-image's default window
K1, K2 = 0.01, 0.03
PEAK = 255.0  # the range of a sample's frames
_PAD = WINDOW // 2


def ssim(pred: np.ndarray, target: np.ndarray, data_range: float | None = None, border: Border = "valid") -> np.ndarray:
    """Mean structural similarity of each frame (Wang et al. 2004, eq. 13 with the constants of section III-B).

    SSIM is computed per channel, with population variances, at every position where the 11x11 Gaussian window (sigma
    1.5) is inside the frame. The result is the mean over positions and channels. It equals scikit-image's
    `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1)` to within
    1e-6 for uint8 (1e-7 on camera pictures) and 1e-9 for float.

    Args:
        pred, target: (T, H, W, C), uint8 or float, 1 or 3 channels in any order, same shape, H and W at least 11.
        data_range: the level of white: 255 for 0..255, 1 for 0..1. Black is 0, because SSIM depends on it. None means
            255. For floats, None is an error if a value is above 255, or if all values are below 4.
        border: with `reflect`, every pixel is the centre of a window, and the frame is mirrored about its edge pixels,
            as in torchmetrics.

    Returns:
        (T,) float64 in [-1, 1]; 1 for identical frames, NaN if one of the frames contains NaN.

    Raises:
        TypeError or ValueError: the arrays have another form, such as (T, C, H, W) or uint16, their range is not known,
            or a value is below 0 or above `data_range`.

    Example:
        >>> black = np.zeros((1, 16, 16, 3), np.uint8)
        >>> ssim(black, black).tolist()
        [1.0]
    """
    _check(pred, target, WINDOW)
    data_range = peak(pred, target, data_range, from_zero=True)
    pred, target = plain(pred), plain(target)
    # Use float32 only if SSIM's constants are near their usual values, for which `_Moments._doubtful` was adjusted.
    single = pred.dtype == target.dtype == np.uint8 and data_range >= 128
    inside = slice(_PAD, -_PAD) if border == "valid" else slice(None)
    moments = _Moments(pred.shape[1:], np.float32 if single else np.float64, data_range, inside)
    careful = _Moments(pred.shape[1:], np.float64, data_range, inside) if single else moments
    out = np.empty(len(pred))
    for t, (a, b) in enumerate(zip(pred, target, strict=True)):
        value = moments.ssim(a, b)
        out[t] = careful.ssim(a, b) if value is None else value
    return out


class _Moments:
    """SSIM of two frames a and b, computed from the moments of s = a + b and d = a - b.

    Let S and D be the blurred s and d, and let R and T be the variances of s and d in the window. c1 and c2 are SSIM's
    constants; the attributes of the same names contain 2 c1 and 2 c2. Then
    SSIM = (S^2 - D^2 + 2 c1) (R - T + 2 c2) / ((S^2 + D^2 + 2 c1) (R + T + 2 c2)).
    Where the frames agree, a rounding error of R cancels and a rounding error of T is small, so float32 is accurate
    enough. With the moments of a and b instead of s and d, float32 would cause errors of 1e-5 in flat areas. Float32
    filters are three times as fast as float64 filters.

    The arrays are reused for all frames, because new arrays for each frame would take more time (page faults) than the
    arithmetic.
    """

    def __init__(self, shape: tuple[int, ...], dtype: type[np.floating[Any]], data_range: float, inside: slice) -> None:
        plane = shape if shape[2] > 1 else shape[:2]
        self.single = dtype == np.float32
        self.depth = cv2.CV_32F if self.single else cv2.CV_64F
        self.arrays = [np.empty(plane, dtype) for _ in range(8)]
        self.inside = inside
        self.count = self.arrays[0][inside, inside].size
        self.c1, self.c2 = 2 * (K1 * data_range) ** 2, 2 * (K2 * data_range) ** 2
        x = np.arange(-_PAD, _PAD + 1)
        kernel = np.exp(-0.5 * (x / SIGMA) ** 2)
        self.kernel = (kernel / kernel.sum()).astype(dtype)
        # The rounded weights must still add up to 1, because an error of their sum counts twice in the variance.
        self.kernel[_PAD] = 1.0 - 2.0 * self.kernel[:_PAD].sum(dtype=np.float64)

    def ssim(self, a: np.ndarray, b: np.ndarray) -> float | None:
        """SSIM of one pair of frames, (H, W, C); None if the error of float32 can be larger than 5e-7."""
        s, d, mean_s, mean_d, r, t, p, q = self.arrays
        # Subtract the mean grey levels: this does not change the variances but makes their rounding errors smaller.
        level_a, level_b = (_mean_level(x) if self.single else 0 for x in (a, b))
        cv2.addWeighted(a, 1, b, 1, -level_a - level_b, dst=s, dtype=self.depth)
        cv2.addWeighted(a, 1, b, -1, level_b - level_a, dst=d, dtype=self.depth)
        self._blur(s, mean_s)
        self._blur(d, mean_d)
        cv2.multiply(s, s, dst=s)
        cv2.multiply(d, d, dst=d)
        self._blur(s, r, self.c2)  # the filter adds 2 c2 at no cost
        self._blur(d, t)
        cv2.multiply(mean_s, mean_s, dst=p)
        cv2.multiply(mean_d, mean_d, dst=q)
        cv2.subtract(r, p, dst=r)  # the variance of s, plus 2 c2
        cv2.subtract(t, q, dst=t)
        if self.single and self._doubtful(r, t, p, q):
            return None
        mean_s += level_a + level_b
        mean_d += level_a - level_b
        cv2.multiply(mean_s, mean_s, dst=p)
        cv2.multiply(mean_d, mean_d, dst=q)
        p += self.c1
        cv2.subtract(p, q, dst=mean_s)
        p += q
        cv2.subtract(r, t, dst=mean_d)
        r += t
        mean_s *= mean_d
        p *= r
        mean_s /= p
        return sum(cv2.sumElems(mean_s[self.inside, self.inside])) / self.count

    def _doubtful(self, r: np.ndarray, t: np.ndarray, p: np.ndarray, q: np.ndarray) -> bool:
        """Whether many windows are flat and far from the mean grey level, tested at every 8th position.

        In such windows, float32's errors do not average out; they add up to 4e-5 in the worst case. Drawings whose
        colours differ have such windows. Camera pictures rarely have them.
        """
        z = slice(_PAD, -_PAD, 8)
        r, t, p, q = (x[z, z] for x in (r, t, p, q))
        return bool((q * (t < 100)).mean() > 300 or (p * (r < self.c2 + 60)).mean() > 3e4)

    def _blur(self, image: np.ndarray, out: np.ndarray, offset: float = 0.0) -> None:
        cv2.sepFilter2D(image, self.depth, self.kernel, self.kernel, dst=out, delta=offset)


def _mean_level(frame: np.ndarray) -> int:
    channels = frame.shape[2]
    return round(sum(cv2.mean(frame)[:channels]) / channels)


def ssim_box(pred: np.ndarray, target: np.ndarray, data_range: float | None = None) -> np.ndarray:
    """SSIM of each frame as scikit-image's `structural_similarity(data_range=..., channel_axis=-1)` computes it.

    The other parameters have scikit-image's defaults: a 7x7 uniform window, sample covariances, and every position
    where the window is inside the frame. The arguments, the result and the errors are the same as for `ssim`, but H and
    W must be at least 7.
    """
    _check(pred, target, BOX)
    data_range = peak(pred, target, data_range, from_zero=True)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    n = BOX * BOX
    pad = BOX // 2
    out = np.empty(len(pred))
    for t, frames in enumerate(zip(pred, target, strict=True)):
        a, b = (np.asarray(x, np.float64) for x in frames)
        # Compute sums and not means, because sums of whole numbers are exact.
        ma, mb, ab, sq = (
            np.atleast_3d(cv2.boxFilter(x, cv2.CV_64F, (BOX, BOX), normalize=False))[pad:-pad, pad:-pad] / n
            for x in (a, b, a * b, a * a + b * b)
        )
        p, q = 2 * ma * mb, ma * ma + mb * mb
        covariance, variance = ((2 * ab - p) * (n / (n - 1)), (sq - q) * (n / (n - 1)))
        out[t] = ((p + c1) * (covariance + c2) / ((q + c1) * (variance + c2))).mean()
    return out


def luma(frames: np.ndarray) -> np.ndarray:
    """BT.601 luma in studio range, not rounded, as in basicsr's `to_y_channel`.

    The formula is 16 + (65.481 R + 128.553 G + 24.966 B) / 255.

    Args:
        frames: (T, H, W, 3) RGB, uint8, or float with values from 0 to 255.

    Returns:
        (T, H, W, 1) float64, 16 to 235.

    Raises:
        TypeError or ValueError: the array has another form, or floats are below 0, above 255, or all below 4.
    """
    check_frames(frames, "frames")
    check_levels(frames, "frames")
    return _luma(frames)


def _luma(frames: np.ndarray) -> np.ndarray:
    y = np.tensordot(frames.astype(np.float64), np.array([65.481, 128.553, 24.966]) / 255.0, axes=1) + 16.0
    return np.asarray(y[..., None])


def _check(pred: np.ndarray, target: np.ndarray, window: int) -> None:
    check_two(pred, target)
    if min(pred.shape[1:3]) < window:
        raise ValueError(f"frames must be at least {window}x{window}, got {pred.shape}")


@dataclass(frozen=True, kw_only=True)
class Ssim(FrameByFrame):
    """SSIM: the mean over frames, then the mean over clips. Stats: ssim (sum), frames.

    The variants equal these library functions:
    - `skimage`: scikit-image's `structural_similarity` with its default window, `data_range=255`, `channel_axis=-1`.
    - `y`: basicsr's `calculate_ssim(..., crop_border=0, test_y_channel=True)`.
    - `torchmetrics`: torchmetrics' `StructuralSimilarityIndexMeasure(data_range=255)`, which mirrors the frame at its
      edges.
    """

    window: Window = "gaussian-11"  # uniform-7 uses sample covariances, gaussian-11 population covariances
    border: Border = "valid"
    colour: Colour = "rgb"  # y: BT.601 luma, see `luma`

    name = "ssim"
    title = "SSIM"
    pitfalls = (
        "The variants differ by several hundredths on the same frames. Floats need their data_range, and SSIM "
        "depends on the level of black."
    )
    higher_is_better = True
    order = 20
    limits = (-1.0, 1.0)
    worsened_by = frozenset({"reencode", "move", "blur", "jpeg", "identity-swap", "frames-held"})
    source = "Wang et al. 2004, eq. 13 with the constants of section III-B"
    bibtex = """@article{wang2004ssim,
  author = {Wang, Zhou and Bovik, Alan C. and Sheikh, Hamid R. and Simoncelli, Eero P.},
  title = {Image quality assessment: from error visibility to structural similarity},
  journal = {IEEE Transactions on Image Processing}, volume = {13}, number = {4}, pages = {600--612}, year = {2004}}"""
    variants = {
        "ssim:wang2004": Variant("structural similarity on RGB, Gaussian window 11x11, valid region"),
        "ssim:skimage": Variant(
            "structural similarity on RGB, scikit-image's default: uniform window 7x7, sample covariance",
            {"window": "uniform-7"},
        ),
        "ssim:y": Variant(
            "structural similarity on BT.601 luma (16 to 235, not rounded), Gaussian window 11x11", {"colour": "y"}
        ),
        "ssim:torchmetrics": Variant(
            "structural similarity on RGB, torchmetrics': Gaussian window 11x11, reflected border",
            {"border": "reflect"},
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window == "uniform-7" and self.border == "reflect":
            raise UserError("ssim: window=uniform-7 has border=valid only")

    @property
    def version(self) -> str:
        # 1.1.0: float32 moments for uint8 frames changed the values of wang2004 by up to 1e-7
        return "1.1.0" if self.variant == "wang2004" else "1.0.0"

    @property
    def ms_per_frame(self) -> float:
        return 4.0 if self.window == "uniform-7" else 1.5

    def settings(self) -> Settings:
        gaussian = self.window == "gaussian-11"
        return {
            **super().settings(),
            **({} if self.colour == "rgb" else {"colour": "y-bt601-studio-float"}),
            "window": self.window,
            **({"sigma": SIGMA} if gaussian else {}),
            "k": f"{K1},{K2}",
            "border": self.border,
            "covariance": "population" if gaussian else "sample",
            "agg": "video-mean",
        }

    def compute(self, pred: Sample, target: Sample) -> Score:
        smallest = WINDOW if self.window == "gaussian-11" else BOX
        values = self.values(*self.paired(pred, target, smallest))
        if not np.isfinite(values).all():
            raise ClipError(Reason.NOT_FINITE, "a frame has no finite SSIM")
        total = math.fsum(values)
        return Score(total / len(values), len(values), None, "", {"ssim": total, "frames": float(len(values))})

    def values(self, pred: np.ndarray, target: np.ndarray) -> np.ndarray:
        """(T,) SSIM of the paired frames, (T, H, W, 3) each."""
        a, b = (pred, target) if self.colour == "rgb" else (_luma(pred), _luma(target))
        return ssim_box(a, b, PEAK) if self.window == "uniform-7" else ssim(a, b, PEAK, self.border)


METRICS = (Ssim,)
