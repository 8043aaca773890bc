"""Turns arrays and tensors into samples: `as_sample` for clips, `as_audio` for sound. Nothing about them is guessed.

torch is not imported. An object with the methods `detach`, `cpu` and `numpy` is treated as a tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar, get_args, overload

import numpy as np

from cmet_metrics.base import Labels, Sample, check_rate
from cmet_metrics.pictures import DARK, Extremes, check_array, extremes, spoken, unknown_range, within
from talking_face.media.reading import AUDIO_RATE
from talking_face.media.resampling import whole_samples
from talking_face.media.sound import RATES
from talking_face.names import did_you_mean

# T: frames, H: rows, W: columns, C: colour channels, B: clips of a batch.
Layout = Literal["THWC", "TCHW", "CTHW"]
BatchLayout = Literal["BTHWC", "BTCHW", "BCTHW"]
Channels = Literal["rgb", "bgr"]
Range = tuple[float, float]

_LEVELS: Range = (0.0, 255.0)
_WHOLE = 1e-3  # levels; floats that are all so near to whole levels were made from uint8
T = TypeVar("T")


@overload
def as_sample(  # long: one parameter for each property that an array does not contain
    x: object,
    *,
    layout: Layout | None = None,
    value_range: Range | None = None,
    fps: float | None = None,
    audio: object | None = None,
    audio_rate: int | None = None,
    audio_range: Range | None = None,
    channels: Channels = "rgb",
    name: str = "clip",
    labels: Labels | None = None,
    reference: Sample | None = None,
) -> Sample: ...


@overload
def as_sample(  # long: one parameter for each property that an array does not contain
    x: object,
    *,
    layout: BatchLayout,
    value_range: Range | None = None,
    fps: float | None = None,
    audio: Any = None,  # a sequence of B arrays, or an array or tensor of (B, N)
    audio_rate: int | None = None,
    audio_range: Range | None = None,
    channels: Channels = "rgb",
    name: str | Sequence[str] = "clip",
    labels: Sequence[Labels] | None = None,
    reference: Sequence[Sample] | None = None,
) -> list[Sample]: ...


def as_sample(  # long: one parameter for each property that an array does not contain
    x: object,
    *,
    layout: Layout | BatchLayout | None = None,
    value_range: Range | None = None,
    fps: float | None = None,
    audio: Any = None,  # an array or tensor; for a batch, one for each clip
    audio_rate: int | None = None,
    audio_range: Range | None = None,
    channels: Channels = "rgb",
    name: str | Sequence[str] = "clip",
    labels: Labels | Sequence[Labels] | None = None,
    reference: Sample | Sequence[Sample] | None = None,
) -> Sample | list[Sample]:
    """A clip, or a batch of clips, as the input of metrics.

    Args:
        x: a numpy array or a torch tensor with 3 colour channels, on any device, of any strides. It is not changed.
        layout: the order of its axes: THWC, TCHW or CTHW; for a batch BTHWC, BTCHW or BCTHW. None is allowed only for
            THWC, if no axis except the last has length 3.
        value_range: the values that are black and white, for example (0, 1), (-1, 1), (0, 255) or (0, 65535). It is
            required for all dtypes except uint8. Only floats whose values are from 0 to 255, and not all below 4, need
            no range; they are read as (0, 255).
        fps: frames/s; required.
        audio: the sound, as `as_audio` takes it; sample 0 is at the first frame. For a batch: (B, N), or a list.
        audio_rate, audio_range: `rate` and `value_range` of `as_audio`.
        channels: the order of the colour channels in `x`.
        name: the clip's name in messages; for a batch a list, or a name to which the number of the clip is added.
        labels, reference: as in `Sample`; for a batch, a list with one element for each clip.

    Returns:
        a sample, or for a batch a list of B samples. The frames are RGB levels from 0 to 255. uint8 stays as it is.
        float64 stays float64; all other dtypes become float32. Levels are not rounded, so PSNR and SSIM equal those of
        the floats. If all levels of the clip are within 0.001 of whole numbers, as in floats made from uint8, they
        become uint8. Landmarks and networks read the rounded frames (`Sample.pictures`). NaN and infinity are kept:
        every score of such a clip has the reason `not-finite`.

    Raises:
        TypeError or ValueError: something is absent, ambiguous or outside its range. The message says what to write.

    Example:
        >>> tensor_like = np.zeros((1, 4, 3, 16, 16), np.float32)
        >>> batch = as_sample(tensor_like, layout="BTCHW", value_range=(-1, 1), fps=25)
        >>> len(batch), batch[0].frames.shape, float(batch[0].frames.max())
        (1, (4, 16, 16, 3), 127.5)
    """
    title = name if isinstance(name, str) else "batch"
    if fps is None:
        raise ValueError(f"{title}: fps is not known; write the frames/s of the clip, for example fps=25")
    check_rate(fps, title)
    if channels not in get_args(Channels):
        raise ValueError(f"{title}: channels={channels!r}; write channels='rgb' or channels='bgr'")
    clips = _ordered(_array(x, title), layout, title)
    if channels == "bgr":
        clips = clips[..., ::-1]
    n = len(clips)
    if not _is_batch(layout):
        names, sounds, their_labels, references = [title], [audio], [labels], [reference]
    else:
        names = [f"{name} {k}" for k in range(n)] if isinstance(name, str) else _each(name, n, "name")
        sounds, their_labels = _each(audio, n, "audio"), _each(labels, n, "labels")
        references = _each(reference, n, "reference")
    samples = []
    for clip, one, sound, label, still in zip(clips, names, sounds, their_labels, references, strict=True):
        frames = _levels(clip, value_range, one)
        heard = None if sound is None else as_audio(sound, rate=audio_rate, value_range=audio_range, name=one)
        label, still = _of_type(label, Labels, "labels", one), _of_type(still, Sample, "reference", one)
        samples.append(Sample(frames, float(fps), heard, one, label or Labels(), still, dark=True))
    return samples if _is_batch(layout) else samples[0]


def as_audio(x: object, *, rate: int | None = None, value_range: Range | None = None, name: str = "clip") -> np.ndarray:
    """Sound as a sample needs it: (N,) int16, mono, 16 kHz.

    Args:
        x: a numpy array or a torch tensor, (N,), (1, N) or (N, 1); int16, or another dtype with `value_range`.
        rate: sample rate in Hz; required. Another rate than 16 kHz is changed with the filter of
            `talking_face.media.read_sound`, so an array gives the same samples as the file that it was decoded from.
        value_range: the values of full scale, (-A, A): (-1, 1) for floats of torchaudio, soundfile or librosa.
            Required for all dtypes except int16.
        name: the clip's name in messages.

    Raises:
        TypeError or ValueError: something is absent, ambiguous or outside its range. The message says what to write.
    """
    name = f"{name}: audio"
    found = _array(x, name)
    if found.ndim == 2 and 1 in found.shape:
        found = found.reshape(-1)
    if found.ndim != 1:
        axis = int(np.argmin(found.shape)) if found.ndim == 2 else 0
        raise ValueError(f"{name} is {found.shape}, not mono; write one channel, or the mean: audio.mean({axis})")
    if not len(found):
        raise ValueError(f"{name} has no samples; write audio=None for a clip without sound")
    if rate is None:
        raise ValueError(f"{name}: the sample rate is not known; write audio_rate=16000, or the rate that it has")
    if isinstance(rate, bool) or rate != int(rate) or int(rate) not in RATES:
        raise ValueError(f"{name}: {rate!r} is not a sample rate in Hz; write audio_rate=16000, or the rate it has")
    if found.dtype == np.int16 and value_range is None and rate == AUDIO_RATE:
        return np.ascontiguousarray(found).astype(np.int16, copy=False)
    return whole_samples(_full_scale(found, value_range, name), int(rate), AUDIO_RATE)


def _full_scale(x: np.ndarray, value_range: Range | None, name: str) -> np.ndarray:
    """(N,) float32 in -1..1."""
    if x.dtype.kind not in "fi":
        raise ValueError(f"{name} is {x.dtype}; write int16, or floats with audio_range=(-1, 1)")
    if value_range is None:
        if x.dtype != np.int16:
            raise ValueError(f"{name} is {x.dtype}, and its range is not known; write audio_range=(-1, 1) for floats")
        value_range = (-32768.0, 32767.0)
    low, high = _checked_range(value_range, name)
    if low >= 0 or abs(high) > -low or high <= 0.99 * -low:
        raise ValueError(f"{name}: full scale is (-A, A), for example audio_range=(-1, 1), got {value_range}")
    found = extremes(x)
    if found is None:
        raise ValueError(f"{name} has NaN or infinite samples")
    if not within(found, (low, -low)):
        raise ValueError(f"{name}: {spoken(found)}, outside {_shown(value_range)}; clip it, or write the range it has")
    return np.asarray(x / np.float64(-low), np.float32)


def _array(x: object, name: str) -> np.ndarray:
    """The numpy array of an array or tensor; bfloat16 and float8 become float32."""
    if all(hasattr(x, method) for method in ("detach", "cpu", "numpy")):
        tensor: Any = x  # torch is not imported, so its type has no name here
        try:
            tensor = tensor.detach().cpu()
            try:
                return np.asarray(tensor.numpy())
            except TypeError:  # numpy does not have the dtype
                return np.asarray(tensor.float().numpy())
        except (RuntimeError, TypeError, ValueError) as error:
            words = str(error).partition("\n")[0]
            raise ValueError(f"{name}: the tensor cannot be copied to a numpy array ({words})") from None
    check_array(x, name)
    return np.asarray(x)


def _is_batch(layout: str | None) -> bool:
    return layout in get_args(BatchLayout)


def _ordered(x: np.ndarray, layout: str | None, name: str) -> np.ndarray:
    """The array as (B, T, H, W, C), with B = 1 for a single clip."""
    known = (*get_args(Layout), *get_args(BatchLayout))
    if layout is None:
        _check_obvious(x.shape, name)
        layout = "THWC"
    if layout not in known:
        raise ValueError(
            f"{name}: layout={layout!r}{did_you_mean(str(layout).upper(), known)}; known: {', '.join(known)}"
        )
    if x.ndim != len(layout):
        raise ValueError(f"{name}: {x.shape} has {x.ndim} axes, but layout={layout!r} has {len(layout)}")
    clips = x.transpose([layout.index(axis) for axis in "BTHWC" if axis in layout])
    clips = clips if _is_batch(layout) else clips[None]
    if clips.shape[-1] != 3:
        count = clips.shape[-1]
        raise ValueError(f"{name}: {x.shape} has {count} channels in layout={layout!r}, not 3; {_coloured(count)}")
    if not clips.size:
        raise ValueError(f"{name}: {x.shape} is empty: it has no frames or no pixels, so that nothing can be scored")
    return clips


def _check_obvious(shape: tuple[int, ...], name: str) -> None:
    """Raises ValueError unless (T, H, W, C) is the only reading of a shape."""
    if len(shape) == 3:
        raise ValueError(f"{name}: {shape} is one picture; write x[None] for a clip of one frame")
    if len(shape) == 5:
        raise ValueError(f"{name}: {shape} is a batch; write its layout: {', '.join(get_args(BatchLayout))}")
    if len(shape) != 4:
        raise ValueError(f"{name}: a clip has 4 axes, (T, H, W, C), got {shape}")
    if shape[3] == 3 and 3 in shape[:3]:
        raise ValueError(f"{name}: {shape} has several axes of length 3; write layout='THWC' or another layout")
    if shape[3] != 3:
        guess = next((text for axis, text in ((1, "TCHW"), (0, "CTHW")) if shape[axis] == 3), "")
        remedy = f"write layout='{guess}' if that is its layout" if guess else _coloured(shape[3])
        raise ValueError(f"{name}: the last axis of {shape} is not the 3 colour channels; {remedy}")


def _coloured(channels: int) -> str:
    """What to write for a wrong number of colour channels."""
    if channels == 1:
        return (
            "for grey frames, repeat the channel: x.repeat(3, axis) with numpy, x.repeat_interleave(3, axis) with torch"
        )
    return "leave out the alpha channel" if channels == 4 else "write frames with 3 colour channels"


def _levels(x: np.ndarray, value_range: Range | None, name: str) -> np.ndarray:
    """(T, H, W, 3) levels from 0 to 255, of one clip."""
    if x.dtype == np.uint8:
        if value_range is not None and _checked_range(value_range, name) != _LEVELS:
            raise ValueError(f"{name}: uint8 frames are in 0..255, but value_range={_shown(value_range)}")
        return x
    if x.dtype.kind not in "fiu":
        mask = "; for a mask, write x * 255 as uint8" if x.dtype == bool else ""
        raise ValueError(f"{name}: frames must be numbers, uint8 or float, got {x.dtype}{mask}")
    found = extremes(x)
    if value_range is None:
        value_range = _obvious_range(x, found, name)
    low, high = _checked_range(value_range, name)
    if found is not None and not within(found, (low, high)):
        raise ValueError(
            f"{name}: {spoken(found)}, outside value_range={_shown(value_range)}; write the range that they have, or "
            "clip them"
        )
    exact = x.dtype.kind == "f" and x.dtype.itemsize >= 8
    levels: np.ndarray = x.astype("f8" if exact else "f4")
    if (low, high) != _LEVELS:
        levels = (levels - low) * (255.0 / (high - low))
    with np.errstate(invalid="ignore"):
        whole = np.rint(levels)
        made_of_uint8 = bool((np.abs(levels - whole) <= _WHOLE).all())
    return whole.clip(0, 255).astype(np.uint8) if made_of_uint8 else levels


def _obvious_range(x: np.ndarray, found: Extremes | None, name: str) -> Range:
    """(0, 255) for floats that can have no other range. Raises ValueError for all other arrays."""
    if x.dtype.kind != "f":
        full = f" or (0, {np.iinfo(x.dtype).max})" if x.dtype.itemsize == 2 else ""
        raise ValueError(f"{name}: the range of {x.dtype} is not known; write value_range=(0, 255){full}")
    if found is None:
        raise ValueError(f"{name}: frames have NaN or infinity, so their range is not known; write value_range=(0, 1)")
    if found[0] < 0 or found[1] < DARK or not within(found, _LEVELS):
        raise ValueError(f"{name}: {spoken(found)}, and their range is not known; {unknown_range(found)}")
    return _LEVELS


def _checked_range(value_range: Range, name: str) -> Range:
    try:
        low, high = (float(value) for value in value_range if not isinstance(value, str | bool))
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"{name}: a range is two numbers (LOW, HIGH), for example (0, 1), got {value_range!r}")
    return low, high


def _shown(value_range: Range) -> str:
    return f"({value_range[0]:g}, {value_range[1]:g})"


def _each(values: Any, n: int, what: str) -> list[Any]:  # an array, a tensor or a sequence of any elements
    """One value for each of `n` clips."""
    if values is None:
        return [None] * n
    if isinstance(values, str | Labels | Sample) or not hasattr(values, "__len__") or len(values) != n:
        raise ValueError(f"{what}: a batch of {n} clips needs a list of {n}, one for each clip")
    return [values[k] for k in range(n)]


def _of_type(value: object, kind: type[T], what: str, name: str) -> T | None:
    """The value, or None. Raises TypeError for a value of another type."""
    if value is not None and not isinstance(value, kind):
        write = "Labels(emotion='happy')" if kind is Labels else "as_sample(...)"
        raise TypeError(f"{name}: {what} is a {type(value).__name__}; write {what}={write}")
    return value
