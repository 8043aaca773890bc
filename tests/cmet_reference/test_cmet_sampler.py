"""The samples of C-MET's training: batches, reference tokens, pools of speech."""

import numpy as np
import pytest

from cmet_reference.cmet import speech
from cmet_reference.cmet.data import Sampler, Sampling
from talking_face.reasons import UserError
from tests.cmet_reference.cmet_parts import coded, part_of, sampler_of


def test_a_batch_is_a_pure_function_of_seed_and_step() -> None:
    a, b = (sampler_of(coded(), Sampling(batch=6), 3) for _ in range(2))
    a.batch(7)
    for name, value in a.batch(2).items():
        np.testing.assert_array_equal(value, b.batch(2)[name])
    assert (a.batch(2)["speech"] != a.batch(3)["speech"]).any()
    assert (a.batch(2)["source"] != sampler_of(coded(), Sampling(batch=6), 4).batch(2)["source"]).any()


def test_the_released_reference_holds_the_answer_and_the_others_do_not() -> None:
    batch = sampler_of(coded(), Sampling(batch=64), 0).batch(0)
    direction, reference = batch["direction"], batch["reference"]
    assert (direction == direction[:, :1]).all()  # constant in time
    filled = (reference != 0).any(axis=2)
    assert filled.any(axis=1).mean() > 0.8  # a window that starts at 0 is one of 16
    leak = np.where(filled[:, :, None], direction, 0)
    np.testing.assert_array_equal(reference, leak)
    assert (np.diff(filled.astype(int), axis=1) >= 0).all()  # padded on the left
    zero = sampler_of(coded(), Sampling(batch=64, reference="zero"), 0).batch(0)
    assert not zero["reference"].any()
    predicted = sampler_of(coded(), Sampling(batch=64, reference="predicted"), 0).batch(0)
    assert not predicted["reference"].any()
    assert 0.1 < predicted["has_before"].mean() < 0.6


def test_codes_are_means_of_clips_and_the_direction_is_their_mean_difference() -> None:
    clips = coded(takes=1)
    batch = sampler_of(clips, Sampling(batch=16), 0).batch(0)
    names = dict(zip(clips.clip_ids, clips.codes, strict=True))
    for source, target, direction in zip(batch["source"], batch["target"], batch["direction"], strict=True):
        # One take a cell: the mean of ten draws is the clip itself.
        (one,) = [c for c in names.values() if any(np.allclose(c[i : i + 5], source, atol=1e-6) for i in range(16))]
        (two,) = [c for c in names.values() if any(np.allclose(c[i : i + 5], target, atol=1e-6) for i in range(16))]
        np.testing.assert_allclose(direction[0], (two - one).mean(axis=0), atol=1e-6)


def test_speech_pools_go_over_all_speakers_with_strides_one_and_seven() -> None:
    clips = coded(speakers=3, takes=4)
    sampler = sampler_of(clips, Sampling(speech_clips=10), 0)
    happy = [i for i, e in enumerate(clips.emotions) if e == "happy"]
    angry = [i for i, e in enumerate(clips.emotions) if e == "angry"]
    by_hand = np.mean([clips.speech[angry[(5 + 7 * k) % 12]] for k in range(10)], axis=0)
    by_hand = by_hand - np.mean([clips.speech[happy[(5 + k) % 12]] for k in range(10)], axis=0)
    np.testing.assert_allclose(sampler.speech_direction("happy", "angry", 1, 5), by_hand, rtol=1e-5)


def test_mead_numbers_and_a_split_without_pairs() -> None:
    clips = coded(takes=4)
    sampler = sampler_of(clips, Sampling(takes="released"), 0)
    assert {clips.clip_ids[i][-3:] for i in sampler.index} == {"001", "002", "003"}
    alone = [i for i, e in enumerate(clips.emotions) if e == "happy"]
    with pytest.raises(UserError, match="pairs"):
        sampler_of(part_of(clips, alone), Sampling(), 0)


def test_unit_vectors_need_the_pool_rule_mean() -> None:
    clips = coded()
    pools = speech.fit_pool_encoder("emotions", clips.speech, clips.speakers, clips.emotions)
    with pytest.raises(UserError, match="scale_intensity"):
        Sampler(clips, Sampling(scale_intensity=True), 0, pools)


def test_drawn_pools_are_of_speakers_who_show_both_emotions() -> None:
    clips = coded(speakers=3, takes=2)
    alone = part_of(clips, [i for i in range(len(clips)) if (clips.speakers[i], clips.emotions[i]) != ("S1", "happy")])
    sampler = sampler_of(alone, Sampling(speech_speakers="some", speech_clips=200), 0)
    others = [i for i in range(len(alone)) if alone.speakers[i] != "S1"]
    limits = [[alone.speech[i] for i in others if alone.emotions[i] == e] for e in ("angry", "happy")]
    seen = np.stack([sampler.drawn_speech("angry", "happy", 1, np.random.default_rng(k)) for k in range(20)])
    assert seen.std(axis=0).max() > 0
    low, high = (f(limits[1], axis=0) - g(limits[0], axis=0) for f, g in ((np.min, np.max), (np.max, np.min)))
    assert ((seen >= low - 1e-6) & (seen <= high + 1e-6)).all()
