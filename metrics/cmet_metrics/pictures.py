"""Checks arrays of frames: layout, channels, dtype and range of values. Each error states what to write instead.

The public functions on frames and the class `Sample` call these checks. They change no value.
"""

from __future__ import annotations

import math

import numpy as np

# Floats whose largest value is below this can be 0..1, also if a network exceeds 1. In 0..255 they are nearly black.
DARK = 4.0
SLACK = 1e-3  # share of a range by which rounding may exceed it

Extremes = tuple[float, float]  # the lowest and the highest value


def check_frames(frames: np.ndarray, name: str, channels: tuple[int, ...] = (3,)) -> None:
    """Raises TypeError or ValueError unless `frames` is a (T, H, W, C) array of uint8 or floats.

    Args:
        frames: the array. T can be 0; H and W must be at least 1.
        name: the name of the array in messages.
        channels: the allowed values of C.
    """
    check_array(frames, name)
    shape = frames.shape
    form = f"(T, H, W, {' or '.join(map(str, channels))})"
    if len(shape) != 4 or shape[3] not in channels:
        raise ValueError(f"{name}: frames must be {form} uint8 or float, got {shape} {frames.dtype}{_remedy(shape)}")
    if not shape[1] or not shape[2]:
        raise ValueError(f"{name}: frames must be {form} with at least one row and one column, got {shape}")
    if frames.dtype != np.uint8 and frames.dtype.kind != "f":
        raise ValueError(f"{name}: frames must be {form} uint8 or float, got {shape} {frames.dtype}{_convert(frames)}")


def check_uint8(frames: np.ndarray, name: str) -> None:
    """Raises TypeError or ValueError unless `frames` is a (T, H, W, 3) array of uint8."""
    check_frames(frames, name)
    if frames.dtype != np.uint8:
        raise ValueError(
            f"{name}: frames must be uint8, got {frames.dtype}; as_sample(x, value_range=...).pictures converts"
        )


def check_array(x: object, name: str) -> None:
    """Raises TypeError unless `x` is a numpy array without a mask."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill the masked values first, x.filled(0)")
    if not isinstance(x, np.ndarray):
        kind = type(x)
        convert = "x.detach().cpu().numpy()" if hasattr(x, "detach") else "np.asarray(x)"
        raise TypeError(f"{name} is a {kind.__module__}.{kind.__qualname__}, not a numpy array; write {convert}")


def check_two(pred: np.ndarray, target: np.ndarray, channels: tuple[int, ...] = (1, 3)) -> None:
    """Raises TypeError or ValueError unless both arrays pass `check_frames` and have the same shape."""
    check_frames(pred, "pred", channels)
    check_frames(target, "target", channels)
    if pred.shape != target.shape:
        raise ValueError(f"pred and target must have the same shape, got {pred.shape} and {target.shape}")


def check_levels(frames: np.ndarray, name: str, dark: bool = False) -> None:
    """Raises ValueError unless float frames have values from 0 to 255; NaN and infinity are not checked.

    Args:
        frames: an array that passed `check_frames`; uint8 frames always pass.
        name: the name of the array in messages.
        dark: whether the caller states that values are in 0..255 although the largest value is below 4.
    """
    if frames.dtype == np.uint8 or (found := extremes(frames)) is None:
        return
    low, high = found
    if dark and within(found, (0.0, 255.0)):
        return
    if low < 0 or high < DARK:
        raise ValueError(f"{name}: {spoken(found)}; {unknown_range(found)}")
    if not within(found, (0.0, 255.0)):
        raise ValueError(f"{name}: {spoken(found)}, outside 0..255; as_sample(x, value_range=(LOW, HIGH)) scales them")


def peak(pred: np.ndarray, target: np.ndarray, data_range: float | None, from_zero: bool = False) -> float:
    """The largest possible difference between two pixels of two arrays that passed `check_frames`.

    Args:
        pred, target: the two arrays.
        data_range: the largest possible difference, if the caller states it. None: 255, for uint8 and for floats whose
            values are from 0 to 255 and not all below 4.
        from_zero: whether black must be 0, because the result depends on it.

    Raises ValueError if None is not allowed, or if the values of an array differ by more than `data_range`.
    """
    if data_range is not None and not (math.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be a positive number, got {data_range}")
    for name, frames in (("pred", pred), ("target", target)):
        if frames.dtype == np.uint8 and data_range in (None, 255):
            continue
        found = extremes(frames)
        if found is None or found == (0, 0):  # black is 0 in 0..1 and in 0..255
            continue
        if from_zero and found[0] < 0:
            raise ValueError(f"{name}: {spoken(found)}; SSIM needs values from 0; write (x + 1) / 2 for -1..1")
        if data_range is None and (found[0] < 0 or found[1] < DARK or not within(found, (0.0, 255.0))):
            raise ValueError(
                f"{name}: {spoken(found)}; write data_range=1.0 if they are in 0..1, data_range=2.0 if they are in "
                "-1..1, or data_range=255.0 if they are in 0..255"
            )
        spread = found[1] if from_zero else found[1] - found[0]
        if data_range is not None and spread > data_range * (1 + SLACK):
            raise ValueError(
                f"{name}: {spoken(found)}, but data_range={data_range:g}; write the range of the values, or clip them"
            )
    return 255.0 if data_range is None else float(data_range)


def extremes(x: np.ndarray) -> Extremes | None:
    """The lowest and the highest value of an array without NaN; None if there is no value or one is infinite."""
    if not x.size:
        return None
    low, high = float(np.fmin.reduce(x, axis=None)), float(np.fmax.reduce(x, axis=None))
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def within(found: Extremes, allowed: Extremes) -> bool:
    """Whether values are in a range, up to 0.1% of its width."""
    slack = SLACK * (allowed[1] - allowed[0])
    return allowed[0] - slack <= found[0] and found[1] <= allowed[1] + slack


def spoken(found: Extremes) -> str:
    """The text `values from LOW to HIGH`."""
    return f"values from {found[0]:.4g} to {found[1]:.4g}"


def unknown_range(found: Extremes | None) -> str:
    """What to write for float frames whose range cannot be known from their values."""
    if found is not None and found[0] < 0:
        return (
            "write as_sample(x, value_range=(-1, 1)) if they are in -1..1; undo first what normalised them by mean and "
            "deviation"
        )
    return (
        "write as_sample(x, value_range=(0, 1)) if they are in 0..1, or as_sample(x, value_range=(0, 255)) if the clip "
        "is nearly black"
    )


def plain(frames: np.ndarray) -> np.ndarray:
    """The same values in a dtype that OpenCV reads: float16 becomes float32, long floats become float64."""
    if frames.dtype.kind == "f" and frames.dtype not in (np.float32, np.float64):
        return frames.astype(np.float32 if frames.dtype.itemsize <= 4 else np.float64)
    return frames


def _remedy(shape: tuple[int, ...]) -> str:
    """What to write for frames of a wrong shape."""
    if len(shape) == 3:
        return "; for one picture, write x[None]"
    if len(shape) == 5:
        return "; score the clips of a batch one by one, x[k]"
    if len(shape) != 4:
        return ""
    if shape[3] == 4:
        return "; without the alpha channel, write x[..., :3]"
    if shape[1] in (1, 3):
        return "; if it is (T, C, H, W), write x.transpose(0, 2, 3, 1)"
    if shape[0] in (1, 3):
        return "; if it is (C, T, H, W), write x.transpose(1, 2, 3, 0)"
    return "; for grey frames, write x.repeat(3, axis=-1)" if shape[3] == 1 else ""


def _convert(frames: np.ndarray) -> str:
    """What to write for frames of a wrong dtype."""
    if frames.dtype.kind in "iu":
        return "; write x.astype(np.uint8) for values 0..255, else as_sample(x, value_range=(LOW, HIGH))"
    return "; write x.astype(np.uint8) * 255 for a mask" if frames.dtype == bool else ""
