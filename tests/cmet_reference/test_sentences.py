"""Tests how CEM-Net's AEE finds clips of one sentence: from a CSV, MEAD's known pairs, the shards and the sound."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmet_reference.cem_net import aee_settings, aee_stage, same_sentence, sentences, train
from cmet_reference.clips import ClipArrays, read_clips
from cmet_reference.training import checkpoints, config
from cmet_reference.training.loop import fit
from cmet_reference.training.options import TrainOptions
from embedded_corpus.clip import ClipSpec, perform
from embedded_corpus.speech import sentences as corpus_sentences
from embedded_corpus.voice import resampled
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError
from tests.cmet_eval.conftest import make_record, write_shard_set
from tests.conftest import SHARED

SMALL = aee_settings.AeeNetSettings(width=4, hidden=16, content=8, emotion=6, timbre=5)


def clip(clip_id: str, sentence: str | None = None, frames: int = 50, audio: np.ndarray | None = None) -> ClipArrays:
    """A clip without a face. `clip_id`: mead/SPEAKER/front/EMOTION/LEVEL/NUMBER."""
    dataset, speaker, _, emotion, level, _ = clip_id.split("/")
    audio = np.zeros(640 * frames, np.int16) if audio is None else audio
    empty = np.zeros((frames, 0), np.float32)
    return ClipArrays(Path("absent"), clip_id, dataset, speaker, emotion, int(level), sentence, empty, empty, audio)


@pytest.fixture(scope="module")
def spoken() -> list[ClipArrays]:
    """48 clips as MEAD has them: five sentences in every folder, three in this folder alone, in shuffled order."""
    known, rng = list(corpus_sentences()), np.random.default_rng(0)
    out = []
    for speaker in ("M901", "W902"):
        for e, emotion in enumerate(("neutral", "happy", "sad")):
            said = [*known[:5], *known[5 + 3 * e : 8 + 3 * e]]
            for number, sentence in enumerate(rng.permutation(said), 1):
                sound = perform(ClipSpec(speaker, emotion, 1, number, (str(sentence),), 2.0)).sound
                audio = np.rint(resampled(sound, 16_000)).astype(np.int16)
                out.append(clip(f"mead/{speaker}/front/{emotion}/1/{number:03d}", str(sentence), audio=audio))
    return out


def test_sentences_are_recovered_from_sound(spoken: list[ClipArrays]) -> None:
    """The ids are hidden. Nearly all pairs within a speaker are found, and nearly none of the found pairs is wrong."""
    truth = {c.clip_id: str(c.sentence_id) for c in spoken}
    hidden = [replace(c, sentence_id=None) for c in spoken]
    found = sentences.find(hidden, ["data", "sound"], 0.01)
    agreed = sentences.agreement(found.of, truth)
    assert found.counts["data"] == 0 and found.counts["sound"] == len(found.of)
    assert agreed.right >= 0.6 * 2 * 5 * 3 and agreed.found - agreed.right <= 0.05 * agreed.found
    # A sentence that is said by one folder alone has no equal, so most of these clips stay without a sentence.
    alone = [i for i, s in truth.items() if sum(x == s for i2, x in truth.items() if i2[5:9] == i[5:9]) == 1]
    assert len(alone) == 18 and sum(i in found.of for i in alone) <= 6
    kept = len({c for c in found.of.values()})
    assert kept >= 5 and all(name.startswith("sound-mead/") for name in found.of.values())


def test_noise_has_no_equal_sentences() -> None:
    rng = np.random.default_rng(1)
    clips = [
        clip(f"mead/{s}/front/{e}/1/{k:03d}", audio=rng.integers(-3000, 3000, 640 * 50).astype(np.int16))
        for s in ("M901", "W902")
        for e in ("neutral", "happy", "sad")
        for k in range(6)
    ]
    assert len(same_sentence.match(clips, 0.01).links) <= 1


def test_distance_is_dtw_of_both_lengths() -> None:
    """The symmetric form of Sakoe and Chiba, by a plain loop over all cells."""
    rng = np.random.default_rng(2)
    one, others = rng.normal(size=(7, 3)), [rng.normal(size=(n, 3)) for n in (4, 9)]
    for value, other in zip(same_sentence.distances(one, others), others, strict=True):
        cost = np.linalg.norm(one[:, None] - other[None], axis=2)
        total = np.full((8, len(other) + 1), np.inf)
        total[0, 0] = 0
        for i in range(1, 8):
            for j in range(1, len(other) + 1):
                c = cost[i - 1, j - 1]
                total[i, j] = min(total[i - 1, j] + c, total[i, j - 1] + c, total[i - 1, j - 1] + 2 * c)
        assert value == pytest.approx(total[-1, -1] / (7 + len(other)), rel=1e-5)


def test_joined_groups_never_contradict() -> None:
    clips = [clip(f"mead/M901/front/{e}/1/{k:03d}") for e in ("neutral", "happy", "sad") for k in (1, 2)]
    ids = [c.clip_id for c in clips]
    links = [(0.1, 0, 2), (0.2, 2, 4), (0.3, 1, 4), (0.4, 3, 5)]  # the third would join two clips of one folder
    found = sentences.joined(clips, {ids[5]: "common-2"}, links)
    assert found == {
        **dict.fromkeys((ids[0], ids[2], ids[4]), f"sound-{min(ids[0], ids[2], ids[4])}"),
        **dict.fromkeys((ids[3], ids[5]), "common-2"),
    }
    two = {ids[0]: "common-1", ids[2]: "common-2"}
    assert sentences.joined(clips, two, [(0.1, 0, 2)]) == two


def mead_shards(folder: Path, wrong_length: str = "") -> Path:
    """A shard set with the clips of mead_sentence_pairs.csv of two actors, all at level 3, and one other clip each."""
    records, seed = [], 0
    rows = [
        line.split(",") for line in (Path(sentences.__file__).parent / "mead_sentence_pairs.csv").read_text().split()
    ]
    for actor in ("M005", "W011"):
        places = {("neutral", r[2]): int(r[4]) for r in rows if r[0] == actor}
        places |= {(r[1], r[3]): int(r[5]) for r in rows if r[0] == actor} | {("angry", "009"): 60}
        for (emotion, number), frames in sorted(places.items()):
            level, seed = 1 if emotion == "neutral" else 3, seed + 1
            name = f"mead/{actor}/front/{emotion}/{level}/{number}"
            n = round(frames * 25 / 30) + (20 if name == wrong_length else 0)
            about = {"clip_id": name, "speaker": actor, "emotion": emotion, "intensity": level, "take": number}
            records.append(make_record(seed, n, **about, dataset="mead", split="train"))
    return write_shard_set(folder, records)


def test_meads_known_pairs_cross_and_the_length_is_checked(tmp_path: Path) -> None:
    wrong = "mead/M005/front/happy/3/002"
    clips = read_clips([mead_shards(tmp_path / "mead", wrong)])
    found = sentences.find(clips, ["mead-pairs"], 0.01)
    assert len(clips) == 2 * 22 and len(found.of) == 2 * 21 - 1 and wrong not in found.of
    assert found.of["mead/M005/front/disgusted/3/028"] == "common-1" == found.of["mead/M005/front/neutral/1/001"]
    stage = aee_stage.AeeStage(
        SMALL, aee_stage.AeeSettings(1, 0, batch=2), aee_settings.AeeLossWeights(), sentences.named(clips, found), [], 0
    )
    assert stage.crossed > 0.9 and stage.about()["clips_with_sentence"] == 41
    # Without sentences, no crossed combination exists. `paper` stops, and the card of other settings says so.
    with pytest.raises(UserError, match=r"0% of the crossed combinations .* least_crossed is 50%; add sources"):
        aee_stage.AeeStage(
            SMALL, aee_stage.AeeSettings(1, 0, least_crossed=0.5), aee_settings.AeeLossWeights(), clips, [], 0
        )
    without = aee_stage.AeeStage(
        SMALL, aee_stage.AeeSettings(1, 0, batch=2), aee_settings.AeeLossWeights(), clips, [], 0
    )
    assert without.crossed == 0 and without.batch(0)["known"].sum() == 4
    fit(without, tmp_path / "out", TrainOptions(device="cpu", quiet=True))
    card = checkpoints.read_card(tmp_path / "out" / "aee.safetensors")
    assert card is not None and card["about"] == {
        "crossed_combinations": 0.0,
        "clips_with_emotion": 44,
        "clips_with_sentence": 0,
    }


def test_the_start_of_the_stage_says_what_crosses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = mead_shards(tmp_path / "mead")
    small = {"net": vars(SMALL), "steps": 1, "pretrain_steps": 0, "sentences": ["mead-pairs"]}
    settings = {**config.load("cmet_reference.cem_net", "demo"), "aee": small}

    def stage(**changes: object) -> object:
        chosen = {**settings, "aee": {**small, **changes}}
        made = train.stages(chosen, {"main": shards}, tmp_path / "out", TrainOptions(), ModelFiles())[1]
        assert made is not None
        return made()

    stage()
    assert re.search(
        r"aee: 42 of 44 clips have a sentence \(mead-pairs 42\); 100% of the crossed", capsys.readouterr().err
    )
    with pytest.raises(UserError, match=r"no source 'mead-pair'; did you mean mead-pairs"):
        stage(sentences=["mead-pair"])
    with pytest.raises(UserError, match=r"the file absent.csv is absent"):
        stage(sentences=["absent.csv"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip_id,sentence\nmead/M005/front/sad/3/001,a\nmead/M005/front/sad/3/001,b\n", "line 3: .* says 'b', and by"),
        ("clip_id,sentence\nelsewhere/1,a\n", "none of its 1 row is about a clip of the data, as mead/M005"),
        ("clip,sentence\nx,a\n", "has no column `speaker`"),
        ("speaker,emotion,level,number,sentence\nM005,sadd,3,001,a\n", "line 2: there is .*'sadd'; did you mean sad"),
        ("speaker,emotion,level,number,sentence\nM005,sad,high,001,a\n", "line 2: `level` is 'high'"),
        ("speaker,emotion,level,number,sentence\nM005,sad,3,one,a\n", "line 2: `number` is 'one'"),
        ("speaker,emotion,level,number,sentence\n,sad,3,1,a\n", "line 2: the cell `speaker` is empty"),
        ("", "has no column"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.csv").write_text(text)
    clips = [clip("mead/M005/front/sad/3/001")]
    with pytest.raises(UserError, match=message) as error:
        sentences.read_table_of(tmp_path / "mine.csv", clips, {c.clip_id: "001" for c in clips})
    assert "mine.csv" in str(error.value)


def test_a_table_by_number_covers_all_levels_and_comes_first(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(
        "speaker,emotion,level,number,sentence\nM005,sad,,001,mine\nM005,sad,level_2,2,other\n"
    )
    clips = read_clips([mead_shards(tmp_path / "mead")])
    found = sentences.find(clips, [str(tmp_path / "mine.csv"), "mead-pairs"], 0.01)
    assert found.of["mead/M005/front/sad/3/001"] == "mine" and found.of["mead/M005/front/sad/3/002"] == "common-2"
    assert found.counts == {str(tmp_path / "mine.csv"): 1, "mead-pairs": 41}


def test_the_result_of_the_sound_is_kept(tmp_path: Path, spoken: list[ClipArrays]) -> None:
    kept, lines = tmp_path / "aee.sentences.json", []
    some = [c for c in spoken if c.speaker == "M901"]
    first = sentences.find(some, ["sound"], 0.01, kept, lines.append)
    assert len(lines) == 1 and sentences.find(some, ["sound"], 0.01, kept, lines.append) == first and len(lines) == 1
    sentences.find(some, ["sound"], 0.05, kept, lines.append)
    assert len(lines) == 2
    kept.write_text("{}")
    sentences.find(some, ["sound"], 0.05, kept, lines.append)
    assert len(lines) == 3


def test_the_pairs_are_those_of_the_reference() -> None:
    path = SHARED / "data" / "lists" / "mead_sentence_pairs.csv"
    if not path.is_file():
        pytest.skip("../shared/data/lists/mead_sentence_pairs.csv is absent: the copy is not compared with it")
    assert path.read_bytes() == (Path(sentences.__file__).parent / "mead_sentence_pairs.csv").read_bytes()
