"""Speech: phones, mouth and voice say the same thing at the same time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from embedded_corpus.expression import manner
from embedded_corpus.identity import get_identity
from embedded_corpus.speech import mouth_track, phone_kinds, sentences, time_phones
from embedded_corpus.voice import RATE, STEP, speak


def say(speaker: str, emotion: str, level: int, sentence: str = "s02", seconds: float = 2.0) -> tuple:
    person, how = get_identity(speaker), manner(emotion, level)
    rng = np.random.default_rng(0)
    _, phones = time_phones([sentence], person.tempo * how.tempo, seconds, rng)
    times = (np.arange(int(np.ceil(seconds * RATE / STEP))) + 0.5) * STEP / RATE
    opening = mouth_track(phones, times, how.effort)[:, 0]
    return phones, times, opening, speak(person, phones, how, opening, seconds, rng).astype(float) / 32768


def pitch_by_autocorrelation(sound: np.ndarray) -> float:
    found = []
    for at in range(0, len(sound) - 2048, 960):
        part = sound[at : at + 2048]
        if part.std() < 0.4 * sound.std() * 2:
            continue
        lags = np.correlate(part, part, "full")[2047:]
        low, high = RATE // 420, RATE // 70
        found.append(RATE / (low + int(np.argmax(lags[low:high]))))
    return float(np.median(found))


def test_a_sentence_that_is_too_long_is_spoken_faster_or_cut_off() -> None:
    long, fast, cut = (
        time_phones(["s02", "s03"], 1.0, seconds, np.random.default_rng(0), cut=how)[1]
        for seconds, how in ((4.0, False), (0.9, False), (0.9, True))
    )
    words = [phone for phone in long if phone.end <= 0.9]
    assert len(words) > 5 and cut[: len(words)] == words, "the tempo is kept"
    assert cut[-1].end == 0.9 and cut[-1].phone == long[len(words)].phone, "the clip ends within the sentence"
    assert len(fast) > len(cut) and fast[-1].phone == "sil" and fast[3].start < long[3].start
    same = [time_phones(["s02"], 1.0, 4.0, np.random.default_rng(0), cut=how) for how in (False, True)]
    assert same[0] == same[1], "a sentence that fits is not changed"


def test_every_sentence_is_made_of_known_phones() -> None:
    assert len(sentences()) == 16
    for text, phones in sentences().values():
        assert text.endswith(".") and all(p in phone_kinds() for p in phones)
        assert any(phone_kinds()[p].viseme == "PP" for p in phones)  # each one closes the lips


@pytest.mark.parametrize("sentence", ["s01", "s08", "s13"])
def test_phones_cover_the_clip_and_lips_close_for_b_p_m(sentence: str) -> None:
    phones, times, opening, _ = say("M901", "neutral", 1, sentence)
    assert phones[0].start == 0 and phones[-1].end == 2.0
    assert all(a.end == pytest.approx(b.start, abs=1e-3) for a, b in pairwise(phones))
    for phone in phones:
        middle = float(np.interp((phone.start + phone.end) / 2, times, opening))
        if phone.phone in ("B", "P", "M", "sil"):
            assert middle < 0.08, phone
        if phone.phone in ("AA", "AE") and phone.end - phone.start > 0.07:
            assert middle > 0.6, phone


def test_voice_has_the_speakers_pitch_and_follows_the_mouth() -> None:
    for speaker in ("M901", "W901"):
        _, times, opening, sound = say(speaker, "neutral", 1)
        assert pitch_by_autocorrelation(sound) == pytest.approx(get_identity(speaker).pitch, rel=0.15)
        power = np.sqrt(np.mean(sound[: len(times) * STEP].reshape(-1, STEP) ** 2, 1))
        assert np.corrcoef(np.convolve(power, np.ones(8) / 8, "same"), opening)[0, 1] > 0.7
        assert np.abs(sound).max() < 0.9


def test_emotion_changes_pitch_energy_and_tempo() -> None:
    def facts(emotion: str) -> tuple[float, float, float]:
        phones, _, _, sound = say("M901", emotion, 3, "s11", 4.0)
        return pitch_by_autocorrelation(sound), float(sound.std()), phones[-1].start - phones[1].start

    plain, angry, sad, surprised = (facts(e) for e in ("neutral", "angry", "sad", "surprised"))
    assert surprised[0] > 1.2 * plain[0] > 1.05 * sad[0]
    assert angry[1] > 1.5 * plain[1] > 2.0 * sad[1]
    assert sad[2] > plain[2] > angry[2]
