"""Settings validate; pairs are exact, balanced, never their own reference, and survive travel."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmet_eval.protocol.draw import Draw, balanced_subset, draw_pairs
from cmet_eval.protocol.pair_files import read_pairs, write_pairs
from cmet_eval.protocol.pairs import pair_file_name
from cmet_eval.protocol.setting import Setting, get_setting, setting_names
from cmet_eval.runs.metrics import Scoring
from cmet_eval.runs.plan import check_request
from talking_face.emotions import EMOTIONS
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError

ROOT = Path(__file__).parents[2]


def corpus(speakers: int = 4, takes: int = 3, extra: int = 0) -> pd.DataFrame:
    rows = []
    for s, emotion, take in itertools.product(range(speakers), EMOTIONS, range(takes + extra)):
        for split, letter in (("train", "T"), ("test", "S")):
            rows.append(
                {
                    "clip_id": f"mead/{letter}{s}/front/{emotion}/1/{take:03d}",
                    "speaker": f"{letter}{s}",
                    "emotion": emotion,
                    "intensity": 1,
                    "split": split,
                    "n_frames": 50,
                    "valid_fraction": 1.0,
                }
            )
    return pd.DataFrame(rows)


def test_shipped_settings_validate_and_a_misspelt_name_gets_a_hint() -> None:
    others = ("cmet-crema-d", "cmet-mead", "cross-emotion", "cross-emotion-paper", "extended", "reconstruction")
    others = (*others, "reconstruction-first-frame")
    assert setting_names() == ("neutral-base", *others)
    compared = {name for name in setting_names() if get_setting(name).allows("m_lmd:eat")}
    assert compared == {n for n in setting_names() if n.startswith(("neutral", "cross", "reconstr"))}
    assert len({get_setting(name).digest for name in setting_names()}) == 8
    with pytest.raises(UserError, match="did you mean cross-emotion"):
        get_setting("cross-emotions")


def test_a_setting_shows_only_what_it_says(tmp_path: Path) -> None:
    """`cross-emotion-paper` is `cross-emotion` with the real upper half, which `cross-emotion` refuses to show."""
    plain, paper = get_setting("cross-emotion"), get_setting("cross-emotion-paper")
    words = {"name", "title", "summary", "protocol"}
    assert paper.model_dump(exclude=words) == plain.model_dump(exclude=words) | {"visible": "upper-half"}
    (tmp_path / "half.py").write_text(
        "class Half:\n    'Lower half.'\n    name, revision, sees = 'half', '1', frozenset({'upper-half'})\n"
        "    def generate(self, case):\n        return case.upper_half_frames\n"
    )
    (tmp_path / "half.toml").write_text(
        'name = "half"\ntitle = "Half"\nsummary = "Lower half."\nkind = "python"\nrevision = "1"\nlicence = "none"\n'
        'sees = ["upper-half"]\ntarget = "half:Half"\n[process]\nfolders = ["."]\n'
    )
    ask = lambda name: check_request([str(tmp_path / "half.toml")], [name], Scoring(), ModelFiles())  # noqa: E731
    with pytest.raises(UserError, match="sees upper-half, and the setting cross-emotion shows no part"):
        ask("cross-emotion")
    assert ask("cross-emotion-paper").settings[0].visible == "upper-half"
    assert check_request(["ground-truth"], ["cross-emotion"], Scoring(), ModelFiles()).methods


def test_setting_file_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "cmet_eval/protocol/settings/neutral-base.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace("seeds = 5", "sedes = 5"))
    with pytest.raises(UserError, match="sedes"):
        get_setting(str(tmp_path / "mine.toml"))
    assert get_setting("neutral-base").digest != get_setting("cross-emotion").digest


@pytest.mark.parametrize("name", ["neutral-base", "cross-emotion"])
def test_source_says_the_driving_sentence_where_sentences_are_known(name: str) -> None:
    clips = corpus()
    clips["sentence_id"] = clips["clip_id"].str[-3:]
    by_id = clips.set_index("clip_id")
    for pair in draw_pairs(clips, get_setting(name), Draw(seeds=1)).pairs:
        source, truth = by_id.loc[pair.source_clip], by_id.loc[pair.ground_truth_clip]
        assert source["emotion"] == pair.reference_emotion and source["speaker"] == pair.speaker
        assert pair.source_clip != pair.ground_truth_clip
        if pair.reference_emotion != pair.target_emotion:
            assert source["sentence_id"] == truth["sentence_id"]
    clips["sentence_id"] = None
    assert all(p.source_clip == p.reference_clip for p in draw_pairs(clips, get_setting(name), Draw(seeds=1)).pairs)


def test_cross_emotion_has_one_pair_a_speaker_source_target_and_seed() -> None:
    pairs = draw_pairs(corpus(), get_setting("cross-emotion"), Draw(seeds=2)).pairs
    cells = Counter((p.speaker, p.reference_emotion, p.target_emotion, p.seed) for p in pairs)
    assert len(pairs) == 4 * 8 * 7 * 2 and set(cells.values()) == {1}
    assert all(p.reference_emotion != p.target_emotion for p in pairs)
    assert {p.speaker for p in pairs} == {"S0", "S1", "S2", "S3"}
    assert all(len(set(p.reference_frames)) == 5 and max(p.reference_frames) < 50 for p in pairs)


def test_reference_is_never_the_ground_truth_and_settings_share_ground_truth() -> None:
    neutral = draw_pairs(corpus(takes=2), get_setting("neutral-base"), Draw(seeds=3)).pairs
    cross = draw_pairs(corpus(takes=2), get_setting("cross-emotion"), Draw(seeds=3)).pairs
    for pair in (*neutral, *cross):
        assert pair.reference_clip != pair.ground_truth_clip == pair.driving_clip
        assert f"/{pair.reference_emotion}/" in pair.reference_clip and f"/{pair.target_emotion}/" in pair.driving_clip
    truth = {(p.seed, p.speaker, p.target_emotion): p.ground_truth_clip for p in neutral}
    assert all(p.ground_truth_clip == truth[p.seed, p.speaker, p.target_emotion] for p in cross)


def test_pools_of_sound_are_loudest_first_and_never_the_ground_truth() -> None:
    clips = corpus(takes=3)
    clips["intensity"] = clips["clip_id"].str[-1].astype(int) + 1
    by_id = clips.set_index("clip_id")
    for pair in draw_pairs(clips, get_setting("cross-emotion"), Draw(seeds=2)).pairs:
        for pool, emotion in ((pair.emotion_audio, pair.target_emotion), (pair.neutral_audio, "neutral")):
            assert len(set(pool)) == 10 and pair.ground_truth_clip not in pool
            rows = by_id.loc[list(pool)]
            assert set(rows["split"]) == {"test"} and set(rows["emotion"]) == {emotion}
            levels = rows["intensity"].tolist()
            assert levels == sorted(levels, reverse=True) and levels.count(3) >= 3
        assert pair.target_emotion != "neutral" or pair.emotion_audio == pair.neutral_audio
    none = get_setting("neutral-base").model_copy(update={"emotion_audio_clips": 0})
    assert all(p.emotion_audio == p.neutral_audio == () for p in draw_pairs(clips, none, Draw(seeds=1)).pairs)


def test_non_neutral_references() -> None:
    rules = get_setting("cross-emotion").model_copy(update={"reference_emotions": "non-neutral"})
    pairs = draw_pairs(corpus(), rules, Draw(seeds=1)).pairs
    assert len(pairs) == 4 * (7 * 6 + 7) and "neutral" not in {p.reference_emotion for p in pairs}


def test_the_list_does_not_depend_on_row_order_and_is_pinned() -> None:
    setting = get_setting("neutral-base")
    clips = corpus()
    shuffled = clips.sample(frac=1, random_state=3).reset_index(drop=True)
    first, second = draw_pairs(clips, setting, Draw(seeds=1)), draw_pairs(shuffled, setting, Draw(seeds=1))
    assert first == second
    # A change here changes every published pair list.
    assert first.digest == "f791c5ab41bdafe3"
    assert draw_pairs(clips, setting, Draw(seeds=2)).digest != first.digest


def test_an_added_clip_changes_only_cells_it_wins() -> None:
    setting = get_setting("neutral-base")
    before, after = (
        draw_pairs(corpus(takes=3), setting, Draw(seeds=1)),
        draw_pairs(corpus(takes=4), setting, Draw(seeds=1)),
    )
    old = {p.pair_id: p for p in before.pairs}
    for pair in after.pairs:
        unchanged = old[pair.pair_id].ground_truth_clip
        assert pair.ground_truth_clip == unchanged or pair.ground_truth_clip.endswith("/003")


def test_subset_is_balanced_and_nested() -> None:
    pairs = draw_pairs(corpus(), get_setting("cross-emotion"), Draw(seeds=2)).pairs
    previous: set[str] = set()
    for n in (1, 5, 12, 32, 40, 200):
        subset = balanced_subset(pairs, n)
        assert len(subset) == n
        for counts in (Counter(p.speaker for p in subset), Counter(p.target_emotion for p in subset)):
            assert max(counts.values()) - min(counts.values()) <= 1 or n < 8
        names = {p.pair_id for p in subset}
        assert previous <= names
        previous = names
    assert Counter((p.speaker, p.target_emotion) for p in balanced_subset(pairs, 32)) == Counter(
        itertools.product(["S0", "S1", "S2", "S3"], EMOTIONS)
    )


def test_reference_frames_show_a_face() -> None:
    clips = corpus()
    clips["valid_fraction"] = 0.2
    mask = np.zeros(50, bool)
    mask[10:20] = True
    pairs = draw_pairs(clips, get_setting("neutral-base"), Draw(seeds=1), has_face=lambda clip: mask).pairs
    assert {i for p in pairs for i in p.reference_frames} <= set(range(10, 20))
    with pytest.raises(UserError, match="valid face"):
        draw_pairs(clips, get_setting("neutral-base"), Draw(seeds=1), has_face=lambda clip: np.zeros(50, bool))


def test_cells_without_a_clip_are_named_not_dropped_in_silence() -> None:
    clips = corpus()
    result = draw_pairs(clips[~((clips.speaker == "S1") & (clips.emotion == "sad"))], get_setting("neutral-base"))
    assert "S1 has no sad clip" in result.missing


def test_a_speaker_in_two_splits_is_refused_and_no_split_says_what_to_do() -> None:
    clips = corpus()
    clips.loc[clips.index[0], "speaker"] = "S0"
    with pytest.raises(UserError, match="S0 are in 'test' and in another split"):
        draw_pairs(clips, get_setting("neutral-base"))
    with pytest.raises(UserError, match="--split all"):
        draw_pairs(corpus().assign(split=None), get_setting("neutral-base"))
    assert draw_pairs(corpus().assign(split=None), get_setting("neutral-base"), Draw(split="all")).pairs


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_travel_round_trip_and_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    drawn = draw_pairs(corpus(), get_setting("cross-emotion"), Draw(max_pairs=9, seeds=1), data_digest="abc")
    a, b = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    write_pairs(drawn, a)
    write_pairs(read_pairs(a), b)
    assert read_pairs(a) == drawn and a.read_bytes() == b.read_bytes()


def test_an_edited_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    write_pairs(draw_pairs(corpus(), get_setting("neutral-base"), Draw(seeds=1)), path)
    path.write_text(path.read_text().replace("neutral>happy", "neutral>sad", 1))
    with pytest.raises(UserError, match="was changed"):
        read_pairs(path)
    (tmp_path / "x.parquet").write_text("not parquet")
    with pytest.raises(UserError, match="is damaged"):
        read_pairs(tmp_path / "x.parquet")


@given(st.lists(st.text(alphabet="ab/>_.x5F-é to", min_size=1, max_size=12), min_size=2, max_size=8, unique=True))
def test_file_names_are_flat_and_different(ids: list[str]) -> None:
    names = [pair_file_name(text) for text in ids]
    assert len(set(names)) == len(ids)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") for name in names)


def test_file_name_example_and_long_ids() -> None:
    assert pair_file_name("neutral-base/M903/neutral>happy/s0/0001") == "neutral-base__M903__neutral_to_happy__s0__0001"
    rng = random.Random(0)
    long = ["x" * 300 + str(rng.random()) for _ in range(3)]
    assert len({pair_file_name(text) for text in long}) == 3 and all(len(pair_file_name(t)) <= 200 for t in long)


def test_setting_rejects_contradictions() -> None:
    raw = get_setting("neutral-base").model_dump()
    for bad in (
        *({"reference_emotions": "any-other"}, {"shared": ("speaker",)}, {"seeds": 0}, {"rows": "x.csv"}),
        *({"draw": "rows"}, {"draw": "clips"}, {"draw": "no-truth"}, {"reference": "itself"}, {"clips": 4}),
    ):
        with pytest.raises(ValueError):
            Setting.model_validate(raw | bad)


def test_an_own_setting_cannot_take_the_name_of_a_setting_of_the_package(tmp_path: Path) -> None:
    shipped = ROOT / "cmet_eval" / "protocol" / "settings" / "cross-emotion.toml"
    own = tmp_path / "mine.toml"
    own.write_text(shipped.read_text(encoding="utf-8").replace("seeds = 5", "seeds = 2"), encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.toml has the name cross-emotion, which ships; choose another"):
        get_setting(str(own))
    assert get_setting(str(shipped)) == get_setting("cross-emotion")
