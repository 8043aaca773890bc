"""`as_sample` and `as_audio`: any array becomes the right sample, or an error that says what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly
from skimage.metrics import peak_signal_noise_ratio

from cmet_metrics.arrays import as_audio, as_sample
from cmet_metrics.base import Labels, Sample
from cmet_metrics.psnr import Psnr, psnr
from cmet_metrics.registry import get_metric
from cmet_metrics.ssim import ssim
from talking_face.media import read_audio, write_audio
from talking_face.reasons import Reason

RNG = np.random.default_rng(0)
CLIP = RNG.integers(0, 256, (5, 20, 18, 3), dtype=np.uint8)
UNIT = CLIP / 255  # float64, 0..1
LAYOUTS = {"THWC": (0, 1, 2, 3), "TCHW": (0, 3, 1, 2), "CTHW": (3, 0, 1, 2)}


def sample(x: object, **facts: Any) -> Sample:
    made = as_sample(x, **{"fps": 25, **facts})
    assert isinstance(made, Sample)
    assert made.frames.flags.c_contiguous and made.frames.dtype.isnative
    return made


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["numpy", "strided", "read-only", "torch"])
def test_every_layout_of_every_kind_of_array_is_the_same_clip(layout: str, kind: str) -> None:
    x: Any = CLIP.transpose(LAYOUTS[layout])
    if kind == "strided":
        x = np.ascontiguousarray(x[:, ::-1])[:, ::-1]
    if kind == "read-only":
        x = x.copy()
        x.flags.writeable = False
    if kind == "torch":
        x = pytest.importorskip("torch").from_numpy(x.copy())
    assert np.array_equal(sample(x, layout=layout).frames, CLIP)
    batch = as_sample(x[None].repeat(2, 0) if kind != "torch" else x[None], layout=f"B{layout}", fps=25, name="val")
    assert [one.name for one in batch] == [f"val {k}" for k in range(len(batch))]
    assert all(np.array_equal(one.frames, CLIP) for one in batch)


@pytest.mark.parametrize("bounds", [(0, 1), (-1, 1), (0, 255), (0, 65535), (-0.5, 0.5)])
def test_floats_of_a_named_range_that_were_made_from_uint8_are_the_same_bytes(bounds: tuple[float, float]) -> None:
    low, high = bounds
    for dtype in (np.float32, np.float64, ">f4"):
        x = (low + UNIT * (high - low)).astype(dtype)
        made = sample(x, value_range=bounds)
        assert made.frames.dtype == np.uint8 and np.array_equal(made.frames, CLIP)
    assert np.array_equal(sample(CLIP.astype(np.uint16) * 257, value_range=(0, 65535)).frames, CLIP)
    assert np.array_equal(sample(CLIP.astype(np.int64), value_range=(0, 255)).frames, CLIP)
    assert np.array_equal(sample(CLIP[..., ::-1], channels="bgr").frames, CLIP)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    bounds=st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)]),
    layout=st.sampled_from(sorted(LAYOUTS)),
    single=st.booleans(),
)
def test_psnr_and_ssim_of_floats_equal_those_of_the_floats_themselves(seed, bounds, layout, single) -> None:
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 1, (2, 12, 14, 3))
    pred = np.clip(target + rng.normal(0, 0.05, target.shape), 0, 1)
    low, high = bounds
    made = [
        sample((low + x * (high - low)).transpose(LAYOUTS[layout]).astype("f4" if single else "f8"), layout=layout,
               value_range=bounds)
        for x in (pred, target)
    ]  # fmt: skip
    expected = np.mean([peak_signal_noise_ratio(b, a, data_range=1) for a, b in zip(pred, target, strict=True)])
    assert Psnr().score(*made).value == pytest.approx(expected, abs=1e-4 if single else 1e-9)
    assert get_metric("ssim").score(*made).value == pytest.approx(ssim(pred, target, 1.0).mean(), abs=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_tensors_of_every_dtype_keep_their_values(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = torch.tensor(UNIT * 0.997, dtype=getattr(torch, dtype), requires_grad=True)
    made = sample(x, value_range=(0, 1))
    np.testing.assert_allclose(made.frames, 255 * x.detach().double().numpy(), rtol=1e-6)
    assert x.requires_grad


def test_a_tensor_on_a_gpu_is_copied_to_memory() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device: a tensor on a GPU is not tested")
    x = torch.from_numpy(CLIP).permute(0, 3, 1, 2).to("cuda", torch.bfloat16)
    assert np.array_equal(sample(x, layout="TCHW", value_range=(0, 255)).frames, CLIP)


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "0..1": (UNIT, {}, r"value_range=\(0, 1\)"),
    "0..1, exceeded": (UNIT * 1.2, {}, r"value_range=\(0, 1\)"),
    "-1..1": (UNIT * 2 - 1, {}, r"value_range=\(-1, 1\)"),
    "black floats": (UNIT * 0, {}, r"value_range=\(0, 255\)"),
    "floats beyond 255": (UNIT * 1000, {}, r"from 0 to 1000.*range is not known"),
    "outside the range": (UNIT * 1.2, {"value_range": (0, 1)}, r"from 0 to 1.2, outside value_range=\(0, 1\)"),
    "uint8 with a range": (CLIP, {"value_range": (0, 1)}, "uint8 frames are in 0..255"),
    "uint16": (CLIP.astype(np.uint16), {}, r"write value_range=\(0, 255\) or \(0, 65535\)"),
    "int64": (CLIP.astype(np.int64), {}, r"write value_range=\(0, 255\)$"),
    "bool": (CLIP > 9, {}, "for a mask"),
    "object": (CLIP.astype(object), {}, "got object"),
    "text": (CLIP.astype(str), {}, "got <U3"),
    "complex": (CLIP.astype(complex), {}, "got complex"),
    "all NaN": (UNIT * np.nan, {}, r"NaN.*write value_range"),
    "channels first": (CLIP.transpose(0, 3, 1, 2), {}, "write layout='TCHW'"),
    "channels before frames": (CLIP.transpose(3, 0, 1, 2), {}, "write layout='CTHW'"),
    "three frames": (CLIP[:3], {}, "several axes of length 3; write layout='THWC'"),
    "three columns": (CLIP[:, :, :3], {}, "several axes of length 3"),
    "batch": (CLIP[None], {}, "write its layout: BTHWC, BTCHW"),
    "picture": (CLIP[0], {}, r"x\[None\]"),
    "other layout": (CLIP, {"layout": "TCHW"}, "20 channels in layout='TCHW'"),
    "wrong number of axes": (CLIP, {"layout": "BTHWC"}, "has 4 axes, but layout='BTHWC' has 5"),
    "unknown layout": (CLIP, {"layout": "tchw"}, r"did you mean TCHW\?"),
    "grey": (CLIP[..., :1], {}, "repeat the channel"),
    "alpha": (CLIP[..., [0, 1, 2, 0]], {}, "leave out the alpha"),
    "no frame": (CLIP[:0], {}, "empty"),
    "no row": (CLIP[:, :0], {}, "empty"),
    "no column": (CLIP[:, :, :0], {}, "empty"),
    "masked": (np.ma.array(CLIP), {}, r"x.filled\(0\)"),
    "list": (CLIP.tolist(), {}, r"np.asarray\(x\)"),
    "no rate": (CLIP, {"fps": None}, "fps=25"),
    "rate 0": (CLIP, {"fps": 0}, "got 0"),
    "rate NaN": (CLIP, {"fps": np.nan}, "got nan"),
    "range is one number": (UNIT, {"value_range": 1}, r"for example \(0, 1\), got 1"),
    "range backwards": (UNIT, {"value_range": (1, 0)}, "LOW, HIGH"),
    "range as text": (UNIT, {"value_range": "01"}, "LOW, HIGH"),
    "channels": (CLIP, {"channels": "BGR"}, "channels='bgr'"),
    "labels": (CLIP, {"labels": "happy"}, r"labels=Labels\(emotion='happy'\)"),
    "reference": (CLIP, {"reference": CLIP}, r"reference=as_sample"),
    "a name for two clips": (CLIP[None], {"layout": "BTHWC", "name": ["a", "b"]}, "name: a batch of 1"),
    "labels for a batch": (CLIP[None], {"layout": "BTHWC", "labels": Labels("happy")}, "labels: a batch of 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_known_is_an_error_of_one_line_that_says_what_to_write(case: str) -> None:
    x, facts, message = WRONG[case]
    with pytest.raises((TypeError, ValueError), match=message) as raised:
        as_sample(x, **{"fps": 25, **facts})
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 250


def test_nan_pixels_of_a_named_range_give_a_reason_and_a_dark_clip_of_a_named_range_a_value() -> None:
    broken = np.where(UNIT > 0.9, np.nan, UNIT)
    target = sample(UNIT, value_range=(0, 1))
    assert Psnr().score(sample(broken, value_range=(0, 1)), target).reason is Reason.NOT_FINITE
    dark = [sample(UNIT * level, value_range=(0, 255)) for level in (0.9, 0.8)]
    assert Psnr().score(*dark).value == pytest.approx(psnr(UNIT * 0.9, UNIT * 0.8, 255.0).mean())
    with pytest.raises(ValueError, match="nearly black"):
        Sample(UNIT * 0.9)
    assert Psnr().score(Sample(UNIT * 0.9, dark=True), Sample(UNIT * 0.8, dark=True)).value == pytest.approx(
        Psnr().score(*dark).value
    )


def test_landmark_metrics_read_the_rounded_frames_of_a_float_sample() -> None:
    made = sample(UNIT * 0.997, value_range=(0, 1))
    assert made.frames.dtype == np.float64 and made.pictures.dtype == np.uint8
    assert np.array_equal(made.pictures, np.rint(255 * UNIT * 0.997))
    # The clip shows no face. Before, float frames raised an error here.
    assert get_metric("m_lmd:native-mp").score(made, made).reason is Reason.NO_FACE


@pytest.mark.parametrize("rate", [16000, 44100, 48000, 8000])
def test_sound_of_any_rate_equals_the_file_that_it_is_decoded_from(rate: int, tmp_path: Path) -> None:
    wave = (8000 * np.sin(2 * np.pi * 220 * np.arange(rate) / rate)).astype(np.int16)
    write_audio(tmp_path / "a.wav", wave, rate, codec="pcm_s16le")
    decoded = read_audio(tmp_path / "a.wav")
    floats = wave / 32768
    for x, facts in (
        (wave, {}),
        (floats, {"value_range": (-1, 1)}),
        (floats[None].astype("f4"), {"value_range": (-1, 1)}),
    ):
        assert np.array_equal(as_audio(x, rate=rate, **facts), decoded)
    if rate != 16000:
        theirs = resample_poly(floats.astype(np.float32), 16000, rate)
        assert np.abs(decoded - 32768 * theirs).max() <= 0.51


def test_sound_goes_into_the_sample_of_its_clip() -> None:
    wave = np.arange(3200, dtype=np.int16)
    assert np.array_equal(sample(CLIP, audio=wave, audio_rate=16000).audio, wave)
    batch = as_sample(np.stack([CLIP, CLIP]), layout="BTHWC", fps=25, audio=np.stack([wave, -wave]), audio_rate=16000)
    assert np.array_equal(batch[1].audio, -wave)
    labelled = as_sample(CLIP[None], layout="BTHWC", fps=25, labels=[Labels("happy")], reference=[batch[0]])
    assert labelled[0].labels.emotion == "happy" and labelled[0].reference is batch[0]


SOUNDS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no rate": (np.zeros(10, np.int16), {}, "audio_rate=16000"),
    "rate as kHz": (np.zeros(10, np.int16), {"rate": 16}, "16 is not a sample rate"),
    "floats": (np.zeros(10), {"rate": 16000}, r"audio_range=\(-1, 1\)"),
    "int16 values as floats": (np.full(10, 900.0), {"rate": 16000, "value_range": (-1, 1)}, "from 900 to 900"),
    "stereo": (np.zeros((2, 10), np.int16), {"rate": 16000}, r"audio.mean\(0\)"),
    "interleaved stereo": (np.zeros((10, 2), np.int16), {"rate": 16000}, r"audio.mean\(1\)"),
    "empty": (np.zeros(0, np.int16), {"rate": 16000}, "audio=None"),
    "NaN": (np.full(10, np.nan), {"rate": 16000, "value_range": (-1, 1)}, "NaN"),
    "unsigned": (np.zeros(10, np.uint8), {"rate": 16000}, "write int16"),
    "range from 0": (np.zeros(10), {"rate": 16000, "value_range": (0, 1)}, r"full scale is \(-A, A\)"),
    "path": ("a.wav", {"rate": 16000}, "builtins.str"),
}


@pytest.mark.parametrize("case", SOUNDS)
def test_sound_that_cannot_be_known_is_an_error_that_says_what_to_write(case: str) -> None:
    x, facts, message = SOUNDS[case]
    with pytest.raises((TypeError, ValueError), match=message):
        as_audio(x, **facts)


def test_torch_is_not_imported() -> None:
    import subprocess
    import sys

    code = "import sys, cmet_metrics.arrays; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
