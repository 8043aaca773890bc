"""Writes the embedded corpus as MELD: train/train_splits/dia0_utt0.mp4 ..., and three CSV files of labels.

The clips have the difficulties of MELD: small faces, two people of whom only one speaks, speech in the centre channel
of six channels, and a CSV file in an older encoding. The speakers have the same names as in the other layouts, such as
M901; no speaker of MELD has such a name. MELD has no contempt.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, repeat
from pathlib import Path

import numpy as np

from cmet_pipelines.splits import presets
from embedded_corpus.clip import ClipSpec, Performance, perform, renderer, truth
from embedded_corpus.identity import get_identity, key_seed
from embedded_corpus.layouts import TRUTH, read_truth, write_once, write_truth
from embedded_corpus.voice import RATE
from talking_face.emotions import DATASET_LABELS
from talking_face.files import write_text
from talking_face.media import AUDIO_RATE, iter_frames, read_audio
from talking_face.media.writing import Encoding, write_audio, write_video

SIZE = "1280x720"

FOLDERS = {"train": "train/train_splits", "dev": "dev/dev_splits_complete", "test": "test/output_repeated_splits_test"}
TABLES = {"train": "train/train_sent_emo.csv", "dev": "dev_sent_emo.csv", "test": "test_sent_emo.csv"}
_OLDER = "train"  # the split whose CSV file has Windows-1252 characters that were decoded as Latin-1
_COLUMNS = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"

_FPS, _FPS_SMALL = 24000 / 1001, 25.0
_ENCODING = Encoding(crf=20, preset="ultrafast", pix_fmt="yuv420p")
_SMALL = (496, 384)  # picture size of a few dialogues, if the other pictures of the corpus have a height of 720 px
_LABELS = {ours: theirs for theirs, ours in DATASET_LABELS["meld"].items()}
# The clips of a speaker: (emotion, level, index among the clips with this emotion and level). Each line is a dialogue.
_TAKEN = (
    *(("neutral", 1, 0), ("angry", 3, 0), ("sad", 2, 0), ("happy", 3, 0)),
    *(("neutral", 1, 1), ("surprised", 3, 0), ("disgusted", 2, 0), ("fear", 3, 0)),
)
# Heights at which speakers are drawn, px, if the picture has a height of 720 px. The face from hairline to chin has
# half this height, so the faces are 90 to 200 px high.
_HEIGHTS = (320, 250, 430, 290, 220, 350, 185, 270)
_AROUND_DB = -18.0  # level of the noise in all channels except the centre, dB relative to full scale


def select(specs: Sequence[ClipSpec]) -> list[ClipSpec]:
    """Eight clips per speaker; 8 speakers have 64 clips."""
    chosen = []
    for emotion, level, nth in _TAKEN:
        for speaker in sorted({spec.speaker for spec in specs}):
            like = [s for s in specs if (s.speaker, s.emotion, s.level) == (speaker, emotion, level)]
            chosen += like[nth : nth + 1]
    return sorted(chosen, key=lambda spec: spec.key)


def paths(out: Path, spec: ClipSpec) -> tuple[Path, ...]:
    """The files of a clip: video and ground truth."""
    split, dialogue, utterance = _key(spec)
    name = f"dia{dialogue}_utt{utterance}"
    return out / FOLDERS[split] / f"{name}.mp4", out / TRUTH / split / f"{name}.json"


def write(out: Path, spec: ClipSpec) -> None:
    """Writes H.264 video at 24000/1001 frames/s with AAC sound at 48 kHz.

    Three of four clips have 5.1 sound, and the other clips have stereo sound. The dialogues with small pictures have 25
    frames/s.
    """
    scene = _scene(spec)
    video, truth_file = paths(out, spec)
    sound = _surround(spec, scene.people[0].act.sound)
    encoding = replace(_ENCODING, audio_bitrate=64_000 * sound.shape[1])
    write_video(video, _frames(scene), scene.fps, sound, RATE, encoding)
    write_truth(truth_file, _truth(scene))


def finish(out: Path, specs: Sequence[ClipSpec]) -> None:
    """Writes the three CSV files."""
    _write_tables(out, [_row(out, spec) for spec in specs])


def add_defects(out: Path, specs: Sequence[ClipSpec]) -> None:
    """Writes the known bad clips with the numbers of the release, the errors of the archives, and damaged files.

    The damaged files have the dialogue number 700.
    """
    mine, other = paths(out, specs[0])[0], paths(out, specs[-1])[0]
    good, second = mine.read_bytes(), other.read_bytes()
    rows = [_row(out, spec) for spec in specs]
    like, unlike = rows[0], rows[-1]

    def put(split: str, dialogue: int, utterance: int, data: bytes | None, row: _Row | None = like) -> Path:
        path = out / FOLDERS[split] / f"dia{dialogue}_utt{utterance}.mp4"
        if row is not None:
            rows.append(replace(row, split=split, dialogue=dialogue, utterance=utterance))
        if data is not None:
            write_once(path, data)
        return path

    def make(path: Path, frames: Iterator[np.ndarray], sound: np.ndarray | None) -> None:
        if not path.is_file():
            write_video(path, frames, _FPS, sound, RATE, replace(_ENCODING, audio_channels=2))

    def pictures() -> Iterator[np.ndarray]:
        return iter_frames(mine, None)

    # These clips are in the table of known defects, pipelines/cmet_pipelines/defects/meld.csv.
    put("train", 125, 3, _without_index(good))
    make(put("train", 71, 0, None, replace(like, seconds=0.084)), islice(pictures(), 2), _noise(0.084))
    long = put("train", 309, 0, None, replace(like, seconds=41.04))
    make(long, repeat(next(pictures())[::4, ::4], 984), _noise(41.04))
    make(put("train", 793, 0, None), pictures(), _noise(like.seconds))
    put("test", 155, 3, good, replace(like, seconds=0.0))
    put("test", 220, 1, good, unlike)
    for utterance in (4, 5, 6):
        put("test", 71, utterance, good)
    # Write the errors that the reader finds: a row without a file, files without a row, two versions of a clip.
    put("dev", 110, 7, None)
    put("dev", 49, 4, good, None)
    put("test", 93, 5, good, None)
    put("test", 90, 0, good, unlike)
    put("test", 90, 1, None, unlike)
    for utterance in (0, 1):
        write_once(out / FOLDERS["test"] / f"final_videos_testdia90_utt{utterance}.mp4", second)
    put("test", 91, 0, good, replace(like, emotion="bliss"))
    write_once(out / "copy" / "test_splits" / "dia90_utt1.mp4", second)
    write_once(out / "copy" / "dia90_utt1.mp4", second)
    write_once(out / FOLDERS["test"] / "._dia90_utt0.mp4", b"\0\5\x16\7" + bytes(78))
    write_once(out / FOLDERS["test"] / "trailer.mp4", good)
    write_once(out / "test.tar.gz", gzip.compress(bytes(10240), mtime=0))
    write_text(out / "README.txt", "The embedded corpus as MELD, with what is wrong with MELD.\n")
    if not (extracted := out / FOLDERS["test"] / "dia90_utt0.wav").is_file():
        write_audio(extracted, read_audio(mine), AUDIO_RATE, codec="pcm_s16le")
    # Write the errors that only decoding finds: files that are empty, too short, silent, truncated or without a face.
    put("train", 700, 0, b"")
    make(put("train", 700, 1, None), islice(pictures(), 2), _noise(0.084))
    make(put("train", 700, 2, None), pictures(), None)
    put("train", 700, 3, good[: len(good) * 2 // 3])
    make(put("train", 700, 4, None), repeat(np.full((180, 320, 3), 96, np.uint8), 24), _noise(1.0))
    _write_tables(out, rows)
    write_text(out / "copy" / "dev_sent_emo.csv", (out / TABLES["dev"]).read_text(encoding="utf-8"))


def _without_index(mp4: bytes) -> bytes:
    """The mp4 file without the box `moov`, which is the index of an mp4 file."""
    at, kept = 0, []
    while at < len(mp4):
        size = int.from_bytes(mp4[at : at + 4], "big")
        if mp4[at + 4 : at + 8] != b"moov":
            kept.append(mp4[at : at + size])
        at += size
    return b"".join(kept)


def _noise(seconds: float) -> np.ndarray:
    """Noise: (N,) int16 at 48 kHz."""
    return (
        np.random.default_rng(key_seed("meld noise", seconds)).normal(0, 3000, round(seconds * RATE)).astype(np.int16)
    )


# The pictures -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Person:
    act: Performance
    left: int  # left edge of the drawing in the scene, px
    top: int
    speaks: bool


@dataclass(frozen=True, slots=True)
class _Scene:
    fps: float
    room: np.ndarray  # (H, W, 3) uint8 RGB
    table: int  # first row of the table, which hides the lower ends of the people
    people: list[_Person]  # the speaker first


def _scene(spec: ClipSpec) -> _Scene:
    """Places the people. About half of the clips show a second person, whose face moves but whose mouth stays shut."""
    number, (_, dialogue, utterance) = _number(spec.speaker), _key(spec)
    small = number in (0, 4) and dialogue % 2 == 1
    share = spec.height / 720
    width, height = (2 * round(side * share / 2) for side in _SMALL) if small else (spec.width, spec.height)
    fps = _FPS_SMALL if small else _FPS
    rng = np.random.default_rng(key_seed("meld scene", spec.seed, spec.key))
    table = round(height * rng.uniform(0.80, 0.95))
    acts = [perform(_drawn(spec, number, share), fps)]
    if utterance % 2 == 1 and not small:
        other = replace(
            spec, speaker=_partner(spec.speaker), emotion=str(rng.choice(["neutral", "happy", "surprised"]))
        )
        acts.append(perform(_drawn(other, _number(other.speaker), share), fps, silent=True))
    middles = [rng.uniform(0.35, 0.65)] if len(acts) == 1 else [rng.uniform(0.22, 0.33), rng.uniform(0.67, 0.78)]
    if rng.random() < 0.5:
        middles.reverse()
    people = []
    for act, middle in zip(acts, middles, strict=True):
        wide, tall = act.spec.width, act.spec.height
        left = int(np.clip(round(middle * width) - wide // 2, 0, width - wide))
        people.append(_Person(act, left, max(0, table - tall), act is acts[0]))
    return _Scene(fps, _room(width, height, table, rng), table, people)


def _drawn(spec: ClipSpec, number: int, share: float) -> ClipSpec:
    """The spec of a clip with the size at which the speaker is drawn.

    The size depends only on the speaker and on the corpus's picture size, so that the textures can be reused.
    """
    height = 2 * round(max(120, share * _HEIGHTS[number % len(_HEIGHTS)]) / 2)
    return replace(spec, width=2 * round(0.7 * height), height=height)


def _room(width: int, height: int, table: int, rng: np.random.Generator) -> np.ndarray:
    """A wall with light from one side, and a table."""
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    wall = rng.uniform(90, 190, 3).astype(np.float32) * (1.08 - 0.22 * x - 0.12 * y)
    wood = np.array([112, 78, 52], np.float32) * (1.1 - 0.3 * y)
    room = np.where(np.arange(height)[:, None, None] >= table, wood, wall)
    return np.clip(room + rng.normal(0, 1.0, (height, width, 1)), 0, 255).astype(np.uint8)


def _frames(scene: _Scene) -> Iterator[np.ndarray]:
    for k in range(len(scene.people[0].act.poses)):
        picture = scene.room.copy()
        for person in scene.people:
            act = person.act
            artist = renderer(act.spec.speaker, act.spec.width, act.spec.height, act.spec.detail)
            part = picture[person.top : person.top + act.spec.height, person.left : person.left + act.spec.width]
            drawn = artist.frame(act.weights[k], act.poses[k], act.grain + k, part)
            part[:] = drawn[: part.shape[0], : part.shape[1]]
        picture[scene.table :] = scene.room[scene.table :]
        yield picture


def _truth(scene: _Scene) -> dict[str, object]:
    """The ground truth of the speaking person, and the box of each person.

    A box extends from hairline to chin and from ear to ear, for the head at rest.
    """
    people = []
    for person in scene.people:
        act = person.act
        one = get_identity(act.spec.speaker)
        artist = renderer(act.spec.speaker, act.spec.width, act.spec.height, act.spec.detail)
        middle, level = person.left + artist.centre[0], person.top + artist.centre[1]
        half = artist.unit * one.face_width
        box = (middle - half, level + artist.unit * one.hairline_y, middle + half, level + artist.unit * one.chin_y)
        people.append(
            {
                "speaker": act.spec.speaker,
                "speaks": person.speaks,
                "side": "left" if middle < scene.room.shape[1] / 2 else "right",
                "box": [round(float(edge), 1) for edge in box],
            }
        )
    height, width = scene.room.shape[:2]
    return {**truth(scene.people[0].act), "size": [width, height], "people": people}


def _surround(spec: ClipSpec, speech: np.ndarray) -> np.ndarray:
    """The sound, int16: (N, 6) with speech in the centre channel and noise in the other channels, or (N, 2) stereo."""
    rng = np.random.default_rng(key_seed("meld room", spec.seed, spec.key))
    around = 10 ** (_AROUND_DB / 20) * 32767
    if (_number(spec.speaker) + _key(spec)[2]) % 4 == 3:
        both = speech[:, None] + rng.normal(0, around / 16, (len(speech), 2))
        return np.clip(both, -32768, 32767).astype(np.int16)
    channels = rng.normal(0, around, (len(speech), 6))
    channels[:, 2] = speech
    return np.clip(channels, -32768, 32767).astype(np.int16)


# The labels -------------------------------------------------------------------------------------------------------


def _number(speaker: str) -> int:
    """The index of a speaker: 0 for M901, 1 for W901, 2 for M902."""
    return 2 * (int(speaker[1:]) - 901) + speaker.startswith("W")


def _partner(speaker: str) -> str:
    return ("W" if speaker.startswith("M") else "M") + speaker[1:]


def _key(spec: ClipSpec) -> tuple[str, int, int]:
    """(split, dialogue, utterance) of a clip.

    Each speaker has two dialogues of four clips. Test speakers are in the split test. The second dialogue of any other
    woman is in dev, and all remaining dialogues are in train. Dialogue numbers start at 0 for the test speakers and
    again at 0 for the other speakers, so that the same file name occurs in several splits.
    """
    at = next(i for i, (emotion, level, _) in enumerate(_TAKEN) if (emotion, level) == (spec.emotion, spec.level))
    if spec.emotion == "neutral" and _nth(spec):
        at = 4
    number = _number(spec.speaker)
    test = presets()["embedded"]["test"]
    tested = spec.speaker in test
    split = "test" if tested else "dev" if number % 2 == 1 and at >= 4 else "train"
    first = min(_number(name) for name in test) if tested else 0
    return split, 2 * (number - first) + at // 4, at % 4


def _nth(spec: ClipSpec) -> int:
    """Index of a neutral clip among the four clips of a block. The take numbers of block k start at 4 k + 1."""
    return (spec.take - 1) % 4


@dataclass(frozen=True, slots=True)
class _Row:
    split: str
    dialogue: int
    utterance: int
    text: str
    speaker: str
    emotion: str  # MELD's name of the emotion
    seconds: float


def _row(out: Path, spec: ClipSpec) -> _Row:
    text = read_truth(paths(out, spec)[-1])["text"].replace("'", "’")
    return _Row(*_key(spec), text, spec.speaker, _LABELS[spec.emotion], spec.seconds)


def _write_tables(out: Path, rows: Sequence[_Row]) -> None:
    """Writes the CSV files in the format of the release.

    Lines end with CRLF. Hours have one or two digits. One time per file has two decimals; all other times have three.
    """
    for split, name in TABLES.items():
        text = io.StringIO(newline="")
        text.write(_COLUMNS + "\r\n")
        table = csv.writer(text, lineterminator="\r\n")
        at = 60.0
        for index, row in enumerate(
            sorted((r for r in rows if r.split == split), key=lambda r: (r.dialogue, r.utterance))
        ):
            sentiment = {"joy": "positive", "neutral": "neutral"}.get(row.emotion, "negative")
            start, end = _clock(at, index), _clock(at + row.seconds, index)
            table.writerow((index + 1, row.text, row.speaker, row.emotion, sentiment, row.dialogue, row.utterance, 1, 1,
                            start, end[:-1] if index == 0 else end))  # fmt: skip
            at += row.seconds + 0.5
        lines = text.getvalue()
        write_text(out / name, lines.encode("cp1252").decode("latin-1") if split == _OLDER else lines)


def _clock(seconds: float, index: int) -> str:
    ms = round(seconds * 1000)
    hours = f"{ms // 3_600_000:02d}"
    return f"{hours if index % 3 else hours[1:]}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d},{ms % 1000:03d}"
