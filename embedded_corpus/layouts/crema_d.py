"""Writes the embedded corpus as CREMA-D: VideoFlash/<actor>_<sentence>_<emotion>_<level>.flv, AudioWAV/ and the votes.

Actors have the numbers 1901 and up, which no real actor has. The actors speak the sentences of CREMA-D. As in the
release, the sentence IEO is spoken at three levels (LO, MD, HI). The other sentences have the level XX: no level is
specified. CREMA-D has no contempt
and no surprise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmet_pipelines.readers.crema_d import SENTENCES, TABLE, VOTES
from embedded_corpus.clip import ClipSpec, render_clip
from embedded_corpus.identity import key_seed
from embedded_corpus.layouts import TRUTH, write_once, write_truth
from embedded_corpus.voice import resampled
from talking_face.emotions import DATASET_LABELS
from talking_face.files import sha256_of, write_text
from talking_face.media import AUDIO_RATE, read_audio, read_frames
from talking_face.media.writing import Encoding, write_audio, write_video
from talking_face.reasons import UserError

SIZE = "480x360"

_FPS = 30000 / 1001
_FLV_RATE = 44100  # Hz
_CODES = {ours: code for code, ours in DATASET_LABELS["crema-d"].items()}
_LEVELS = {1: "LO", 2: "MD", 3: "HI"}
_OTHERS = tuple(code for code in SENTENCES if code != "IEO")
_SPARE = 1999  # number of the actor whose files are damaged
_ACTORS = 98  # maximum number of speakers (1901 to 1998); 1999 is reserved for the damaged files


def select(specs: Sequence[ClipSpec]) -> list[ClipSpec]:
    """The clips of the six emotions, with CREMA-D's sentences.

    A speaker's neutral clips have the sentence IEO and other sentences; with one take, there are three other sentences.
    The clips of an emotion have IEO once per level, and otherwise one of these three sentences. So every emotional clip
    has a neutral clip of the same sentence. CREMA-D's file names have no take number. Therefore,
    of two clips with the same actor, sentence, emotion and level, only the first is kept.
    """
    taken: set[tuple[Path, ...]] = set()
    count: Counter[tuple[str, str]] = Counter()
    chosen: list[ClipSpec] = []
    for spec in specs:
        if spec.emotion not in _CODES:
            continue
        number = _number(spec)
        if number > 1900 + _ACTORS:
            raise UserError(f"CREMA-D's layout has numbers for {_ACTORS} actors; give fewer speakers")
        others = [_OTHERS[(3 * number + k) % len(_OTHERS)] for k in range(len(_OTHERS))]
        at = count[spec.speaker, spec.emotion]
        count[spec.speaker, spec.emotion] += 1
        if spec.emotion == "neutral":
            sentence = ("IEO", *others)[at % 12]
        else:
            first = all(s.level != spec.level for s in chosen if (s.speaker, s.emotion) == (spec.speaker, spec.emotion))
            sentence = "IEO" if first else others[(at + list(_CODES).index(spec.emotion)) % 3]
        one = replace(spec, sentence_ids=(sentence,))
        if paths(Path(), one) not in taken:
            taken.add(paths(Path(), one))
            chosen.append(one)
    return chosen


def paths(out: Path, spec: ClipSpec) -> tuple[Path, ...]:
    """The files of a clip: video, sound and ground truth."""
    name = _name(spec)
    return out / "VideoFlash" / f"{name}.flv", out / "AudioWAV" / f"{name}.wav", out / TRUTH / f"{name}.json"


def write(out: Path, spec: ClipSpec) -> None:
    """Writes one FLV file and one WAV file.

    FLV: Sorenson H.263 at 30000/1001 frames/s, with MP3 at 44.1 kHz. WAV: 16 kHz, mono, 16 bits.
    """
    frames, sound, truth = render_clip(spec, _FPS)
    video, audio, truth_file = paths(out, spec)
    _write_flv(video, frames, resampled(sound, _FLV_RATE))
    write_audio(audio, resampled(sound, AUDIO_RATE), AUDIO_RATE, codec="pcm_s16le")
    write_truth(truth_file, {**truth, "name": _name(spec)})


def finish(out: Path, specs: Sequence[ClipSpec]) -> None:
    """Writes SentenceFilenames.csv, and processedResults/summaryTable.csv with the votes of viewers.

    The votes agree with the intended emotion as often as in the release.
    """
    names = [_name(spec) for spec in specs]
    lines = [f'{number},"{name}"\n' for number, name in enumerate(names, 1)]
    write_text(out / "SentenceFilenames.csv", '"Stimulus_Number","Filename"\n' + "".join(lines))
    head = ("", "FileName", "VoiceVote", "VoiceLevel", "FaceVote", "FaceLevel", "MultiModalVote", "MultiModalLevel")
    rows = [head, *((str(number), name, *_votes(name)) for number, name in enumerate(names, 1))]
    text = "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in rows)
    write_text(out / "processedResults" / TABLE, text)


def add_defects(out: Path, specs: Sequence[ClipSpec]) -> None:
    """Writes the known bad clips with the names of the release, and damaged files of actor 1999.

    All these files are made from the clips of the first actor. At least eight clips with different labels are needed.
    """
    clips = {_name(spec)[5:]: paths(out, spec)[:2] for spec in reversed(specs)}  # key: the name without the actor
    some = sorted(clips, key=lambda rest: (not rest.endswith("XX"), rest))
    if len(some) < 8:
        raise UserError(f"the defects need eight different clips, and there are {len(some)}")
    flv, wav = [clips[rest][0] for rest in some], [clips[rest][1] for rest in some]

    def video(name: str) -> Path:
        return out / "VideoFlash" / f"{name}.flv"

    def sound(name: str) -> Path:
        return out / "AudioWAV" / f"{name}.wav"

    grey = _add_known_defects(video, sound, flv, wav)
    spare = [f"{_SPARE}_{rest}" for rest in some]
    # Write a sound file whose name ends in X instead of XX. Until October 2022 the release had such a file,
    # 1040_ITH_SAD_X.wav. Then write a copy of the clip into another folder.
    write_once(video(spare[0]), flv[0].read_bytes())
    write_once(sound(spare[0].removesuffix("X")), wav[0].read_bytes())
    upload = out / "crema_test" / "test" / f"s{_SPARE % 100}"
    _write_mp4(upload / f"{spare[0]}.mp4", flv[0])
    # Write a silent FLV file with a good WAV file, because 28 FLV files of the release were silent until December 2020.
    _write_flv(video(spare[1]), read_frames(flv[1], None), None)
    write_once(sound(spare[1]), wav[1].read_bytes())
    _write_mp3(out / "AudioMP3" / f"{spare[1]}.mp3")
    # Write a git-lfs pointer in place of a sound, and another git-lfs pointer in place of a video.
    write_once(video(spare[2]), flv[2].read_bytes())
    write_once(sound(spare[2]), _pointer(wav[2]))
    write_once(video(spare[3]), _pointer(flv[3]))
    write_once(sound(spare[3]), wav[3].read_bytes())
    # Write four files: a clip that is only in another folder, a truncated file, an empty file, and a clip of grey
    # pictures that is not in the table of known defects.
    _write_mp4(upload / f"{spare[4]}.mp4", flv[4])
    write_once(video(spare[5]), flv[5].read_bytes()[: flv[5].stat().st_size // 2])
    write_once(video(spare[6]), b"")
    _write_flv(video(spare[7]), grey[:30], None)
    for index in (4, 5, 6, 7):
        write_once(sound(spare[index]), wav[index].read_bytes())
    for name in ("XYZ_HAP_XX", "IEO_JOY_HI", "IEO_HAP_ZZ", "IEO_HAP"):  # unknown sentence, emotion, level; no level
        write_once(video(f"{_SPARE}_{name}"), flv[0].read_bytes())
    write_once(out / "VideoFlash" / f"._{spare[0]}.flv", b"\0\5\x16\7" + bytes(60))
    write_text(out / "README.md", "The embedded corpus as CREMA-D, with what is wrong with CREMA-D.\n")


def _add_known_defects(
    video: Callable[[str], Path], sound: Callable[[str], Path], flv: Sequence[Path], wav: Sequence[Path]
) -> np.ndarray:
    """Writes the clips that cmet_pipelines/defects/crema-d.csv names. Returns grey pictures, (T, H, W, 3) uint8."""
    # The two clips of a pair have different names and videos, but the same sound.
    pairs = ("1006_TIE_HAP_XX", "1006_TIE_NEU_XX", "1013_WSI_DIS_XX", "1013_WSI_SAD_XX", "1017_IWW_ANG_XX")
    for index, name in enumerate((*pairs, "1017_IWW_FEA_XX")):
        write_once(video(name), flv[index].read_bytes())
        write_once(sound(name), wav[index - index % 2].read_bytes())
    base = read_frames(flv[0], None)
    grey = np.full_like(base, 128)
    broken = {
        "1076_MTI_NEU_XX": base[:4],  # very short
        "1076_MTI_SAD_XX": grey[:20],  # grey pictures; the real clip shows an error picture
        "1064_TIE_SAD_XX": base[:1],  # a single picture, so the file states no duration
        "1064_IEO_DIS_MD": np.concatenate([base] * 6),  # far too long; the real clip has a length of one minute
    }
    for name, frames in broken.items():
        _write_flv(video(name), frames, None)
        write_once(sound(name), wav[0].read_bytes())
    return grey


def _number(spec: ClipSpec) -> int:
    """The actor's number: 1901 for M901, 1902 for W901, 1903 for M902. Men have odd numbers."""
    return 1900 + 2 * (int(spec.speaker[1:]) - 901) + (1 if spec.speaker.startswith("M") else 2)


def _name(spec: ClipSpec) -> str:
    sentence = spec.sentence_ids[0]
    level = _LEVELS[spec.level] if sentence == "IEO" and spec.emotion != "neutral" else "XX"
    return f"{_number(spec)}_{sentence}_{_CODES[spec.emotion]}_{level}"


def _votes(name: str) -> tuple[str, ...]:
    """(vote, level) for the voice alone, then for the face alone, then for voice and face together.

    The votes agree with the intended emotion as often as in the release: in 42, 66 and 72 % of the clips.
    """
    letters = tuple(VOTES)
    asked = next(letter for letter, ours in VOTES.items() if _CODES[ours] == name[9:12])
    cells: list[str] = []
    for kind, share in (("voice", 0.416), ("face", 0.663), ("both", 0.722)):
        rng = np.random.default_rng(key_seed("crema-d votes", kind, name))
        draw, other = rng.random(), str(rng.choice([letter for letter in letters if letter != asked]))
        vote = asked if draw < share else ":".join(sorted((asked, other))) if draw > 0.94 else other
        cells += [vote, ":".join(f"{rng.uniform(30, 90):.2f}" for _ in vote.split(":"))]
    return tuple(cells)


def _write_flv(path: Path, frames: Iterable[np.ndarray], sound: np.ndarray | None) -> None:
    if path.is_file():
        return
    flv = Encoding(codec="flv1", pix_fmt="yuv420p", audio_codec="libmp3lame", options={"b": "1000000"})
    write_video(path, frames, _FPS, sound, _FLV_RATE, flv)


def _write_mp4(path: Path, flv: Path) -> None:
    if not path.is_file():
        sound = read_audio(flv, _FLV_RATE)
        write_video(path, read_frames(flv, None), _FPS, sound, _FLV_RATE, Encoding(crf=18, pix_fmt="yuv420p"))


def _write_mp3(path: Path) -> None:
    """Writes one second of silence."""
    if not path.is_file():
        write_audio(path, np.zeros(_FLV_RATE, np.int16), _FLV_RATE, codec="libmp3lame")


def _pointer(path: Path) -> bytes:
    data = path.read_bytes()
    oid = sha256_of(data)
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n".encode()
