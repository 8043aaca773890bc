"""Turns sentences into phones with times, and computes the motion of the mouth for these phones.

A phone is a speech sound, written in ARPAbet. A viseme is the mouth shape of a phone; the fifteen common visemes are
used (sil PP FF TH DD kk CH SS nn RR aa E ih oh ou). Coarticulation is the influence of neighbouring phones on the mouth
shape. The model of coarticulation uses dominance (Cohen and Massaro 1993): the mouth shape is a weighted mean of the
shapes of all phones, and the weight of a phone decreases with the phone's distance in time. For b, p and m, the lips
always close.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

CREMA_D_SENTENCES = "sentences_crema_d.csv"  # the twelve sentences of CREMA-D
MOUTH = ("open", "wide", "round", "upper_raise", "lower_drop", "press", "tuck")
_DIPHTHONGS = {"AY": ("AA", "IH"), "AW": ("AA", "UH"), "EY": ("EH", "IY"), "OW": ("AO", "UW"), "OY": ("AO", "IH")}
_SHARE = {0: 0.62, 1: 0.55}  # length of the first and of the second half of a diphthong, relative to a single vowel


@dataclass(frozen=True, slots=True)
class PhoneKind:
    """One row of phones.csv.

    Openings and lip shapes are weights of the rig. Formants are in Hz, for a vocal tract of 17.5 cm.
    """

    phone: str
    viseme: str
    kind: str
    ms: float
    open: float
    wide: float
    round: float
    upper_raise: float
    lower_drop: float
    f1: float
    f2: float
    f3: float
    voice: float
    noise: float
    noise_hz: float
    noise_bw: float


@dataclass(frozen=True, slots=True)
class Phone:
    """A spoken phone, with its start and end in seconds from the start of the clip."""

    phone: str
    viseme: str
    start: float
    end: float
    stress: float  # accent of voice and jaw, 0..1


@cache
def phone_kinds() -> dict[str, PhoneKind]:
    """The rows of phones.csv, by phone."""
    with (Path(__file__).parent / "phones.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts = ("phone", "viseme", "kind")
    return {r["phone"]: PhoneKind(**{k: v if k in texts else float(v) for k, v in r.items()}) for r in rows}  # type: ignore[arg-type]


@cache
def sentences(table: str = "sentences.csv") -> dict[str, tuple[str, tuple[str, ...]]]:
    """(text, phones) by sentence_id, with each diphthong split into two vowels.

    The default table has the sixteen sentences of the corpus.
    """
    out = {}
    with (Path(__file__).parent / table).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            phones: list[str] = []
            for phone in row["phones"].split():
                phones.extend(_DIPHTHONGS.get(phone, (phone,)))
            out[row["sentence_id"]] = (row["text"], tuple(phones))
    return out


def sentence(sentence_id: str) -> tuple[str, tuple[str, ...]]:
    """(text, phones) of a sentence of the corpus or of CREMA-D."""
    own = sentences()
    return own[sentence_id] if sentence_id in own else sentences(CREMA_D_SENTENCES)[sentence_id]


def time_phones(
    ids: list[str], tempo: float, seconds: float, rng: np.random.Generator, cut: bool = False
) -> tuple[list[str], list[Phone]]:
    """(ids of the spoken sentences, phones with times).

    The sentences of `ids` are spoken in order, as many as fit into `seconds`. The first sentence is always spoken. If
    the first sentence does not fit, it is spoken faster; with `cut`, it keeps its tempo, and the clip ends within it,
    as a clip that is cut from a longer recording does. A `tempo` of 1 is about 12 phones per second, and a larger
    value is slower. The phones include the silence before, between and after the sentences.
    """
    lead, tail = float(rng.uniform(0.10, 0.20)), 0.10
    spoken: list[str] = []
    out: list[Phone] = []
    at = lead
    for sentence_id in ids:
        names = sentence(sentence_id)[1]
        kinds = [phone_kinds()[n] for n in names]
        vowels = [k.kind == "vowel" for k in kinds]
        stress = _stress(vowels, rng)
        ms = np.array([k.ms for k in kinds]) * rng.uniform(0.90, 1.10, len(kinds)) * (1 + 0.25 * stress)
        for k in range(1, len(kinds)):
            if vowels[k] and vowels[k - 1]:  # the halves of a diphthong
                ms[k - 1] *= _SHARE[0]
                ms[k] *= _SHARE[1]
        ms[-1] *= 1.25
        lengths = ms / 1000 * tempo
        room = seconds - tail - at
        if spoken and lengths.sum() > room:
            break
        if lengths.sum() > room and not cut:
            lengths *= room / lengths.sum()
        edges = np.minimum(at + np.concatenate([[0], np.cumsum(lengths)]), seconds)
        out += [
            Phone(n, k.viseme, round(float(a), 4), round(float(b), 4), round(float(s), 3))
            for n, k, a, b, s in zip(names, kinds, edges[:-1], edges[1:], stress, strict=True)
            if a < seconds
        ]
        spoken.append(sentence_id)
        at = float(edges[-1]) + float(rng.uniform(0.22, 0.34))
    full = [Phone("sil", "sil", 0.0, out[0].start, 0.0)]
    for phone in out:
        if phone.start > full[-1].end + 1e-6:
            full.append(Phone("sil", "sil", full[-1].end, phone.start, 0.0))
        full.append(phone)
    if full[-1].end < round(seconds, 4):
        full.append(Phone("sil", "sil", full[-1].end, round(seconds, 4), 0.0))
    return spoken, full


def _stress(vowels: list[bool], rng: np.random.Generator) -> np.ndarray:
    """The stress of each phone, 0..1. Every second vowel is stressed, and consonants have a stress of 0."""
    out = np.zeros(len(vowels))
    turn = int(rng.integers(2))
    for k, vowel in enumerate(vowels):
        if vowel and not (k and vowels[k - 1]):
            out[k] = rng.uniform(0.6, 1.0) if turn % 2 == 0 else rng.uniform(0.0, 0.3)
            turn += 1
        elif vowel:
            out[k] = out[k - 1]
    return out


def mouth_track(phones: list[Phone], times: np.ndarray, effort: float) -> np.ndarray:
    """(len(times), len(MOUTH)) weights of the mouth's actions for speech without expression.

    `effort` is a factor of the mouth's opening. The value 1 means normal speech.
    """
    kinds = [phone_kinds()[p.phone] for p in phones]
    centre = np.array([(p.start + p.end) / 2 for p in phones])
    length = np.array([p.end - p.start for p in phones])
    stress = np.array([p.stress for p in phones])
    opening = np.array([k.open for k in kinds]) * effort * (0.82 + 0.34 * stress)
    target = np.column_stack([opening, *(np.array([getattr(k, n) for k in kinds]) for n in MOUTH[1:5])])
    strong = np.array([{"vowel": 1.0, "silence": 2.0, "glide": 1.1}.get(k.kind, 0.7) for k in kinds])
    # The weight of a phone is highest around the middle of the phone, and then decreases over about 55 ms.
    away = np.maximum(np.abs(times[:, None] - centre) - 0.28 * length, 0)
    pull = strong * np.exp(-((away / (0.032 + 0.24 * np.minimum(length, 0.12))) ** 1.4))
    track = pull @ target / (pull.sum(1, keepdims=True) + 1e-9)
    closed = _gate(phones, times, {"B", "P", "M"})
    bitten = _gate(phones, times, {"F", "V"})
    track[:, 0] *= (1 - closed) * (1 - 0.65 * bitten)
    track[:, 3:] *= (1 - closed)[:, None]
    return np.column_stack([track, 0.75 * closed, bitten]).astype(np.float32)


def _gate(phones: list[Phone], times: np.ndarray, names: set[str]) -> np.ndarray:
    """A track in 0..1: 1 in the middle of the named phones, with ramps of 65 ms, which is the speed of real lips."""
    out = np.zeros(len(times))
    for phone in phones:
        if phone.phone in names:
            mid, half = (phone.start + phone.end) / 2, 0.26 * (phone.end - phone.start)
            t = np.clip((np.abs(times - mid) - half) / 0.065, 0, 1)
            out = np.maximum(out, 0.5 + 0.5 * np.cos(np.pi * t))
    return out
