"""The settings that follow papers: on the names of the embedded corpus in each dataset's folders, and end to end."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from cmet_eval.cli import build
from cmet_eval.protocol.draw import Draw, draw_pairs
from cmet_eval.protocol.pair_files import read_pairs
from cmet_eval.protocol.published_lists import ListRow, find_in_clips, read_list
from cmet_eval.protocol.setting import get_setting, setting_names
from cmet_eval.runs.cases import make_case
from cmet_eval.runs.generate import GenerationJob, generate_pair
from cmet_eval.runs.score import Expected, Job, score_video
from cmet_metrics.registry import METRICS, get_metric
from cmet_pipelines import numbering, splits
from cmet_pipelines.readers import discover
from cmet_pipelines.shards import ShardSet
from embedded_corpus.layouts import layout
from embedded_corpus.plan import clip_specs
from talking_face.clip import Clip, MediaSource
from talking_face.files import sha256_of
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, UserError
from tests.cmet_eval.conftest import T, make_record, write_shard_set
from tests.conftest import SHARED

DATASET = {
    "reconstruction": "lrs2",
    "reconstruction-first-frame": "lrs2",
    "cmet-mead": "mead",
    "cmet-crema-d": "crema-d",
}  # of a setting; else MEAD
COLUMN = {"speaker": "speaker", "sentence": "sentence_id", "clip": "clip_id"}


@cache
def named(dataset: str, folder: Path) -> pd.DataFrame:
    """The embedded corpus in a dataset's folders: files with nothing in them, read by its reader, split by default."""
    tree = layout(dataset)
    specs = tree.select(clip_specs())
    for spec in specs:
        for path in tree.paths(folder, spec):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    tree.finish(folder, specs)
    clips = discover(dataset, folder).clips
    clips = splits.assign(splits.resolve(splits.AUTO, dataset, clips), clips)
    fields = ("clip_id", "dataset", "speaker", "emotion", "intensity", "take", "sentence_id", "transcript", "split")
    rows = [{name: getattr(clip, name) for name in fields} | {"n_frames": 50, "valid_fraction": 1.0} for clip in clips]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


def corpus(setting: str, folder: Path) -> pd.DataFrame:
    dataset = DATASET.get(setting, "mead")
    clips = named(dataset, folder / dataset)
    if dataset == "lrs2":  # what is said stands in for a sentence's id, which LRS2 has not
        clips = clips.assign(sentence_id=clips["transcript"].where(clips["transcript"] != "", None))
    return clips


@pytest.mark.parametrize("name", setting_names())
def test_a_setting_is_disjoint_and_shared_in_what_it_says_and_in_nothing_else(name: str, folder: Path) -> None:
    setting, clips = get_setting(name), corpus(name, folder)
    by_id = clips.set_index("clip_id", drop=False)
    pairs = draw_pairs(clips, setting, Draw(seeds=1)).pairs
    used = {clip for p in pairs for clip in (p.reference_clip, p.source_clip, p.driving_clip, p.ground_truth_clip)}
    used |= {clip for p in pairs for clip in (*p.emotion_audio, *p.neutral_audio)}
    tested, training = by_id.loc[sorted(used - {None})], by_id[by_id["split"] == "train"]
    assert len(training)
    for what, column in COLUMN.items():
        both = set(tested[column].dropna()) & set(training[column].dropna())
        assert not both or what not in setting.disjoint, (what, sorted(both)[:3])
        assert both or what not in setting.shared, what


def test_a_promise_that_does_not_hold_stops_the_draw(folder: Path) -> None:
    clips = corpus("cmet-mead", folder)
    held_out = get_setting("neutral-base").model_copy(update={"disjoint": ("sentence",), "shared": ()})
    with pytest.raises(UserError, match="promises sentences that training has not seen, but s01"):
        draw_pairs(clips, held_out)


def test_reconstruction_makes_a_clip_again_from_its_own_frames(folder: Path) -> None:
    setting, clips = get_setting("reconstruction"), corpus("reconstruction", folder)
    assert clips["emotion"].isna().all()
    drawn = draw_pairs(clips, setting, Draw(seeds=2))
    assert len(drawn.pairs) == 2 * 45 == 2 * len({p.ground_truth_clip for p in drawn.pairs})
    for pair in drawn.pairs:
        assert pair.reference_clip == pair.source_clip == pair.driving_clip == pair.ground_truth_clip
        assert len(set(pair.reference_frames)) == 5
        assert pair.target_emotion == "neutral" and pair.visible == "upper-half"
        # No emotion is asked for: the pools agree, so that C-MET's displacement between them is nothing.
        assert pair.emotion_audio == pair.neutral_audio and pair.ground_truth_clip not in pair.emotion_audio
    assert len({p.reference_frames for p in drawn.pairs}) > 45  # the seeds differ
    # Five frames at random (Wav2Lip, IP-LAP, CEM-Net); the named variant takes the first frame (EAMM, SadTalker, ETK).
    assert sum(p.reference_frames[0] == 0 for p in drawn.pairs) < 30
    first = draw_pairs(clips, get_setting("reconstruction-first-frame"), Draw(seeds=1)).pairs
    assert len(first) == 45 and all(p.reference_frames == (0,) for p in first)
    few = draw_pairs(clips[clips["speaker"] == clips.loc[clips["split"] == "test", "speaker"].iloc[0]], setting)
    assert len(few.pairs) < 45 and few.notes == (f"{len(few.pairs)} clips are there, 45 were asked for",)


@pytest.mark.parametrize(("name", "expected"), [("cmet-mead", 4 * 28), ("cmet-crema-d", 8 * 20)])
def test_lists_of_speakers_who_are_not_here_are_drawn_by_their_rule(name: str, expected: int, folder: Path) -> None:
    clips = corpus(name, folder)
    by_id = clips.set_index("clip_id")
    drawn = draw_pairs(clips, get_setting(name))
    assert len(drawn.pairs) == expected and not drawn.missing  # each has a neutral clip of its sentence
    assert "none of the list's" in drawn.notes[0]
    for pair in drawn.pairs:
        source, truth = by_id.loc[pair.source_clip], by_id.loc[str(pair.ground_truth_clip)]
        assert source["emotion"] == "neutral" != truth["emotion"] == pair.target_emotion
        assert source["speaker"] == truth["speaker"] and source["sentence_id"] == truth["sentence_id"]
        assert pair.reference_clip == pair.source_clip == pair.driving_clip and pair.reference_frames == (0,)


def of_list(rows: tuple[ListRow, ...]) -> pd.DataFrame:
    """Every clip that a list names, by its number alone."""
    emotions = {row.ground_truth_clip: row.emotion for row in rows} | {row.source_clip: "neutral" for row in rows}
    return pd.DataFrame(
        [
            {"clip_id": clip, "speaker": re_speaker(clip), "emotion": emotion, "intensity": 1, "split": "test"}
            | {"n_frames": 50, "valid_fraction": 1.0, "sentence_id": None}
            for clip, emotion in emotions.items()
        ]
    )


def re_speaker(clip: str) -> str:
    return clip.split("/")[1].split("_")[0]


@pytest.mark.parametrize(
    ("name", "count", "by_emotion"),
    [
        ("cmet-mead", 1143, {"angry": 159, "contempt": 166, "disgusted": 161, "fear": 159, "happy": 168, "sad": 165}),
        ("cmet-crema-d", 1546, {"angry": 309, "disgusted": 292, "fear": 329, "happy": 308, "sad": 308}),
    ],
)
def test_the_lists_are_complete_and_a_lost_row_is_named(name: str, count: int, by_emotion: dict[str, int]) -> None:
    setting = get_setting(name)
    rows = setting.row_list
    clips = of_list(rows)
    drawn = draw_pairs(clips, setting)
    counts = Counter(pair.target_emotion for pair in drawn.pairs)
    assert len(drawn.pairs) == count and counts == by_emotion | {k: 165 for k in counts if k == "surprised"}
    assert not drawn.missing
    gone = rows[7].ground_truth_clip
    less = draw_pairs(clips[clips["clip_id"] != gone], setting)
    assert len(less.pairs) == count - 1 and len(less.missing) == 1 and less.missing[0].endswith(f"no clip {gone}")
    without = draw_pairs(clips[clips["speaker"] != rows[0].speaker], setting)
    assert any(f"no clip at all of {rows[0].speaker}" in line for line in without.missing)


def test_the_lists_are_the_authors() -> None:
    folder = SHARED / "data" / "lists"
    if not folder.is_dir():
        pytest.skip("../shared/data/lists is absent: C-MET's lists are not compared")
    theirs = pd.read_csv(folder / "cmet_mead_test.csv", dtype=str).itertuples()
    assert [
        (f"mead/{r.actor}/front/{r.emotion}/{r.level}/{r.number}", f"mead/{r.actor}/front/neutral/1/{r.neutral_number}")
        for r in theirs
    ] == [(row.ground_truth_clip, row.source_clip) for row in get_setting("cmet-mead").row_list]
    theirs = pd.read_csv(folder / "cmet_crema_d_test.csv", dtype=str).itertuples()
    assert [
        (f"crema-d/{r.actor}_{r.sentence}_{r.emotion}_{r.level}", f"crema-d/{r.actor}_{r.sentence}_NEU_XX")
        for r in theirs
    ] == [(row.ground_truth_clip, row.source_clip) for row in get_setting("cmet-crema-d").row_list]


def test_rows_are_found_by_sentence_in_the_release_where_numbers_moved() -> None:
    # W009/fear/2 lacks 027 and 028 in the authors' tree, so the release's 027 is their 029. W009/disgusted/3 lacks
    # 001 to 003: every number is three less, and nothing but a sentence finds a clip.
    numbers = {
        ("W009", "fear", 2): range(1, 29),
        ("W009", "disgusted", 3): range(1, 28),
        ("W009", "neutral", 1): range(1, 41),
    }
    clips = [
        Clip(
            clip_id=f"mead/{who}/front/{emotion}/{level}/{n:03d}",
            **{"dataset": "mead", "speaker": who, "video": MediaSource("x"), "emotion": emotion},
            **{"intensity": level, "take": f"{n:03d}"},
        )
        for (who, emotion, level), there in numbers.items()
        for n in there
    ]
    clips, _ = numbering.name_sentences("cmet-release", clips, {key: set(there) for key, there in numbers.items()})
    frame = pd.DataFrame([{"clip_id": c.clip_id, "speaker": c.speaker, "sentence_id": c.sentence_id} for c in clips])
    rows = tuple(
        row
        for row in get_setting("cmet-mead").row_list
        if row.ground_truth_clip.startswith(("mead/W009/front/fear/2/", "mead/W009/front/disgusted/3/"))
    )
    found = find_in_clips(rows, frame)
    moved = {f.source_clip[-3:]: f.ground_truth_clip[-3:] for f in found.rows if f.emotion == "fear"}
    assert moved["036"] == "026" and moved["039"] == "027" and moved["040"] == "028"
    assert moved["030"] == "020"  # has no sentence, and lies before the gap
    moved = {f.source_clip[-3:]: f.ground_truth_clip[-3:] for f in found.rows if f.emotion == "disgusted"}
    assert moved["031"] == "018" and moved["040"] == "027" and "030" not in moved
    assert found.missing == ["W009 disgusted: 1 of the list's 11 rows, no clip mead/W009/front/disgusted/3/020"]


def test_extended_emotions_have_no_truth_and_no_metric_that_needs_one(folder: Path) -> None:
    setting, clips = get_setting("extended"), corpus("extended", folder)
    heard = clips["speaker"].eq("M904") & clips["emotion"].eq("surprised")
    clips = clips.assign(emotion=clips["emotion"].mask(heard, "sarcastic"))
    drawn = draw_pairs(clips, setting, Draw(seeds=2))
    assert len(drawn.pairs) == 4 * 6 * 2 and len(drawn.notes) == 5
    sources = {(p.speaker, p.seed): p.source_clip for p in drawn.pairs}
    for pair in drawn.pairs:
        assert pair.ground_truth_clip is None and pair.intensity is None
        assert pair.reference_clip == pair.source_clip == pair.driving_clip == sources[pair.speaker, pair.seed]
        assert len(pair.emotion_audio) == (4 if pair.target_emotion == "sarcastic" else 0)
        assert len(pair.neutral_audio) == 10
    assert not [metric.key for metric in METRICS if setting.allows(metric.key) and metric.needs_target]
    for name in ("cmet-mead", "cmet-crema-d"):
        assert not any(get_setting(name).allows(key) for key in ("psnr:frame-mean", "jitter:ratio", "m_lmd:eat"))


def test_a_list_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    with pytest.raises(UserError, match=r"the list of rows .*mine\.csv is absent"):
        read_list(path)
    path.write_text("speaker,emotion,ground_truth_clip,source_clip,sentence_id\nA,sad,x/1,x/2,\nA,sad,x/1,x/3,\n")
    with pytest.raises(UserError, match="names x/1 twice"):
        read_list(path)


@pytest.mark.parametrize("name", ["reconstruction", "cmet-mead", "cmet-crema-d", "extended"])
def test_end_to_end(name: str, folder: Path, tmp_path: Path) -> None:
    clips = corpus(name, folder)
    few = sorted(clips.loc[clips["split"] == "test", "speaker"].unique())[:1]
    clips = clips[clips["speaker"].isin(few)].groupby("emotion", dropna=False).head(4).drop(columns="valid_fraction")
    labels = clips.astype(object).where(clips.notna(), None).to_dict("records")
    records = [make_record(seed, **label | {"n": T, "n_frames": T}) for seed, label in enumerate(labels)]
    data = write_shard_set(tmp_path / "shards", records)
    path, export = tmp_path / "pairs.csv", tmp_path / "export"
    words = ["pairs", name, "--data", str(data), "-o", str(path), "--max-pairs", "1", "--export", str(export)]
    result = CliRunner().invoke(build("pairs"), [*words, "--quiet"])
    assert result.exit_code == 0, result.output
    (pair,) = read_pairs(path).pairs
    assert len(list(export.glob("*/source.mp4"))) == 1

    files = ModelFiles()

    def make(method: str) -> Path:
        video = tmp_path / f"{method}.mp4"
        generate_pair(
            GenerationJob(method, pair, str(data), T, str(video), str(video.with_suffix(".json")), "key", files)
        )
        return video

    if name == "extended":
        with pytest.raises(ClipError, match=r"no-ground-truth: .* has no ground-truth clip"):
            make("ground-truth")
        with pytest.raises(ClipError, match=r"is labelled .*, so there is no such sound"):
            make_case(ShardSet(data), pair, T, frozenset({"emotion-audio"})).emotion_audio  # noqa: B018
    else:
        make("ground-truth")
    metrics = {"reconstruction": "psnr:frame-mean", "extended": "lse_c:crop"}.get(name, "fid:cmet-pair")
    expected = Expected.of(pair, [get_metric(metrics)])
    video = make("static-reference")
    job = Job("key", str(video), sha256_of(video), expected, str(tmp_path / "scores.json"), (metrics,))
    (score,) = score_video(job, str(data), files).scores
    assert score.value is not None or score.reason == "missing-weights"
    assert name != "reconstruction" or 5 < score.value < 50
