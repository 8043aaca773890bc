"""Synthesizes the voice at 48 kHz, by a formant synthesizer that speaks the same phones as the drawn face.

The source is a train of glottal pulses (the derivative of Rosenberg's pulse) with breath noise. It passes through five
resonators in cascade (Klatt 1980). Frication and bursts are band-passed noise, added in parallel. The parameters change
every 4 ms, and the filters keep their state between these steps.
"""

from __future__ import annotations

from math import gcd

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, lfilter, resample_poly, sosfilt

from embedded_corpus.expression import Manner
from embedded_corpus.identity import Identity
from embedded_corpus.speech import Phone, PhoneKind, phone_kinds

RATE = 48_000
STEP = 192  # samples per step of the parameters: 4 ms
_BANDS = (900.0, 1800.0, 3400.0, 6700.0)  # centres of the noise bands, Hz


def speak(
    person: Identity, phones: list[Phone], manner: Manner, opening: np.ndarray, seconds: float, rng: np.random.Generator
) -> np.ndarray:
    """The speech: (N,) int16 mono at 48 kHz, N = round(seconds * RATE).

    `opening` is the opening of the mouth for the speech (rig weight), one value per 4 ms. A wider opening makes the
    speech louder.
    """
    n = round(seconds * RATE)
    steps = int(np.ceil(n / STEP))
    times = (np.arange(steps) + 0.5) * STEP / RATE
    index = np.clip(np.searchsorted([p.end for p in phones], times, side="right"), 0, len(phones) - 1)
    rows = [phone_kinds()[p.phone] for p in phones]
    pick = lambda name: np.array([getattr(r, name) for r in rows])[index]  # noqa: E731
    voiced, noise = _amplitudes(phones, index, times)
    loud = 10 ** (manner.energy_db / 20)
    wide = np.clip(opening[:steps] / 1.2, 0, 1.6)
    voiced = gaussian_filter1d(voiced, 2.2) * (0.35 + 0.75 * wide) * loud
    noise = gaussian_filter1d(noise, 1.2) * (0.7 + 0.3 * loud)
    pitch = _pitch(person, phones, index, times, manner, rng)
    formants = [gaussian_filter1d(_hold(pick(f), index, rows), 4.5) * person.tract for f in ("f1", "f2", "f3")]
    formants += [np.full(steps, 3500.0 * person.tract), np.full(steps, 4500.0 * person.tract)]
    nasal = gaussian_filter1d((pick("kind") == "nasal").astype(float), 2.5)
    source = _glottis(pitch, voiced, person.breath * manner.breath, manner.bright, n, rng)
    out = _cascade(source, formants, nasal, n) * (1.0 / 40)
    hiss = rng.standard_normal(n)
    grid_hz, grid_bw = pick("noise_hz") * person.tract**0.5, pick("noise_bw")
    for hertz in _BANDS:
        share = np.exp(-(((hertz - grid_hz) / (0.75 * grid_bw)) ** 2)) * noise
        gain = np.interp(np.arange(n) / STEP, np.arange(steps) + 0.5, gaussian_filter1d(share, 1.0))
        band = butter(2, [hertz * 0.62, min(hertz * 1.55, RATE * 0.45)], "band", fs=RATE, output="sos")
        out += 0.16 * gain * sosfilt(band, hiss)
    out += 0.0006 * rng.standard_normal(n)  # background noise of the room
    return np.clip(np.rint(np.tanh(out * 1.1) * 22_000), -32768, 32767).astype(np.int16)


def resampled(sound: np.ndarray, rate: int) -> np.ndarray:
    """The sound (N,) int16, resampled from RATE to `rate` Hz by a zero-phase polyphase filter."""
    common = gcd(RATE, rate)
    samples = resample_poly(sound.astype(float), rate // common, RATE // common)
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)


def _hold(values: np.ndarray, index: np.ndarray, rows: list[PhoneKind]) -> np.ndarray:
    """In silence, takes the formants from the neighbouring phones, so that words do not start with a sweep."""
    quiet = np.array([r.kind == "silence" for r in rows])[index]
    good = np.nonzero(~quiet)[0]
    return np.interp(np.arange(len(values)), good, values[good])


def _amplitudes(phones: list[Phone], index: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(voice, noise) amplitudes per step. The noise of a stop such as p or t is a burst in the last third, else 0."""
    kinds = [phone_kinds()[p.phone] for p in phones]
    start = np.array([p.start for p in phones])[index]
    length = np.array([max(p.end - p.start, 1e-3) for p in phones])[index]
    part = (times - start) / length
    stop = np.array([k.kind == "stop" for k in kinds])[index]
    voice = np.array([k.voice * (0.85 + 0.3 * p.stress) for k, p in zip(kinds, phones, strict=True)])[index]
    noise = np.array([k.noise for k in kinds])[index] * np.where(stop, (part > 0.62) * np.exp(-4 * (part - 0.62)), 1.0)
    return voice, noise


def _pitch(
    person: Identity,
    phones: list[Phone],
    index: np.ndarray,
    times: np.ndarray,
    manner: Manner,
    rng: np.random.Generator,
) -> np.ndarray:
    """Fundamental frequency per step, Hz: a falling line, accents on stressed vowels, and flutter."""
    accent = gaussian_filter1d(np.array([p.stress for p in phones])[index], 9.0)
    speech = [p for p in phones if p.phone != "sil"]
    along = np.clip((times - speech[0].start) / max(speech[-1].end - speech[0].start, 1e-3), 0, 1)
    swing = (0.10 * (0.5 - along) + 0.20 * (accent - 0.3)) * manner.swing
    flutter = 0.008 * gaussian_filter1d(rng.standard_normal(len(times)), 3.0) * 3
    tremor = 0.03 * max(0.0, manner.breath - 1.5) * np.sin(2 * np.pi * 6.5 * times)
    return person.pitch * manner.pitch * np.exp(swing + flutter + tremor)


def _glottis(
    pitch: np.ndarray, voiced: np.ndarray, breath: float, bright: float, n: int, rng: np.random.Generator
) -> np.ndarray:
    """(n,) source signal: the derivative of Rosenberg's pulse, with breath noise mainly in the open phase.

    `bright` changes the spectral tilt.
    """
    at = np.arange(n) / STEP
    centre = np.arange(len(pitch)) + 0.5
    hertz = np.interp(at, centre, pitch)
    gain = np.interp(at, centre, voiced)
    phase = np.cumsum(hertz / RATE)
    cycle = np.floor(phase).astype(int)
    part = phase - cycle
    shimmer = 1 + 0.05 * rng.standard_normal(cycle[-1] + 2)
    rise, fall = 0.42 - 0.06 * bright, 0.16 - 0.05 * bright
    up = np.where(part < rise, np.sin(np.pi * part / rise) * np.pi / (2 * rise), 0.0)
    down = np.where(
        (part >= rise) & (part < rise + fall), -np.sin(np.pi / 2 * (part - rise) / fall) * np.pi / (2 * fall), 0.0
    )
    pulse = (up + down) * shimmer[cycle] * gain
    smooth = float(np.clip(0.55 - 0.25 * bright, 0.1, 0.85))
    pulse = lfilter([1 - smooth], [1, -smooth], pulse)
    air = rng.standard_normal(n) * gain * (0.3 + 0.7 * (part < rise + fall)) * breath * 2.2
    return pulse + air


def _cascade(source: np.ndarray, formants: list[np.ndarray], nasal: np.ndarray, n: int) -> np.ndarray:
    """The source signal, filtered by five two-pole resonators in series, each with a gain of 1 at 0 Hz.

    The coefficients change in each step, and the filters keep their state.
    """
    widths = (75.0, 95.0, 130.0, 220.0, 300.0)
    out = source
    for k, track in enumerate(formants):
        r = np.exp(-np.pi * (widths[k] + (90.0 * nasal if k == 0 else 60.0 * nasal)) / RATE)
        b = 2 * r * np.cos(2 * np.pi * track / RATE)
        c = -(r**2)
        a = 1 - b - c
        state = np.zeros(2)
        result = np.empty(n)
        for s in range(len(track)):
            part = slice(s * STEP, min((s + 1) * STEP, n))
            result[part], state = lfilter([a[s]], [1.0, -b[s], -c[s]], out[part], zi=state)
        out = result
    return out
