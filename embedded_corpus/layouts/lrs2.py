"""Writes the embedded corpus as LRS2: mvlrs_v1/main and mvlrs_v1/pretrain, one transcript per clip, and four lists.

Each speaker is one television programme. The number of the programme has nineteen digits and begins with 9000, unlike
the numbers of real programmes. The clips of test speakers are stored in main and listed in test.txt. A clip of any
other speaker is stored in pretrain if the clip's level is 2, and in main otherwise.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmet_pipelines.splits import presets
from embedded_corpus.clip import ClipSpec, ClipTruth, render_clip
from embedded_corpus.layouts import TRUTH, tar_of, write_once, write_truth
from embedded_corpus.voice import resampled
from talking_face.emotions import EMOTIONS
from talking_face.files import write_text
from talking_face.media import AUDIO_RATE, read_frames
from talking_face.media.writing import Encoding, write_video

SIZE = "160x160"

_FPS = 25.0
_ZOOM = 1.3  # pictures are drawn larger by this factor and then cropped, because heads fill the pictures of LRS2
_TOP = 0.35  # share of the removed picture rows that are removed at the top
_HOME = "mvlrs_v1"
_WORDS = "WORD START END ASDSCORE"


def select(specs: Sequence[ClipSpec]) -> list[ClipSpec]:
    """The neutral clips, and the clips of emotions at levels 2 and 3: 25 clips per speaker.

    LRS2 has no emotion labels, so the emotions are stored only in the ground truth.
    """
    return [spec for spec in specs if spec.emotion == "neutral" or spec.level > 1]


def paths(out: Path, spec: ClipSpec) -> tuple[Path, ...]:
    """The files of a clip: video, transcript and ground truth."""
    clip = f"{_subset(spec)}/{_key(spec)}"
    return out / _HOME / f"{clip}.mp4", out / _HOME / f"{clip}.txt", out / TRUTH / f"{clip}.json"


def write(out: Path, spec: ClipSpec) -> None:
    """Writes the video (MPEG-4 part 2 at 25 frames/s, AAC at 16 kHz mono) and the transcript.

    The transcript has the format of the clip's subset, main or pretrain.
    """
    video, text, truth_file = paths(out, spec)
    size = [2 * round(_ZOOM * side / 2) for side in (spec.width, spec.height)]
    frames, sound, truth = render_clip(replace(spec, width=size[0], height=size[1]), _FPS)
    left, top = (size[0] - spec.width) // 2, round((size[1] - spec.height) * _TOP)
    cut = (frame[top : top + spec.height, left : left + spec.width] for frame in frames)
    _write_mp4(video, cut, resampled(sound, AUDIO_RATE))
    write_text(text, _transcript(truth, _subset(spec) == "pretrain"))
    write_truth(truth_file, {**truth, "size": [spec.width, spec.height], "cut_from": [left, top, *size]})


def finish(out: Path, specs: Sequence[ClipSpec]) -> None:
    """Writes the lists pretrain.txt, train.txt, val.txt and test.txt. An empty list is not written."""
    for name in ("pretrain", "train", "val", "test"):
        if text := "".join(list_lines(specs, name)):
            write_text(out / f"{name}.txt", text)


def add_defects(out: Path, specs: Sequence[ClipSpec]) -> None:
    """Writes defects of LRS2, made from the first four clips in main.

    Programme 9...9990 has damaged clips. Programme 9...9991 is only in the part files of a tar. Programme 9...9992 is
    only in a list.
    """
    good = [paths(out, spec)[:2] for spec in specs if _subset(spec) == "main"]
    mp4, txt = [path.read_bytes() for path, _ in good[:4]], [path.read_bytes() for _, path in good[:4]]
    broken, packed, absent = (f"9{number:018d}" for number in (9990, 9991, 9992))
    main, pretrain = out / _HOME / "main", out / _HOME / "pretrain"

    def put(number: int, video: bytes | None, text: bytes | None) -> Path:
        path = main / broken / f"{number:05d}.mp4"
        if video is not None:
            write_once(path, video)
        if text is not None:
            write_once(path.with_suffix(".txt"), text)
        return path

    # Write a clip into pretrain with the same programme and number as a different clip in main.
    twin = pretrain / good[0][0].relative_to(main)
    write_once(twin, mp4[1])
    write_once(twin.with_suffix(".txt"), txt[1] + f"\n{_WORDS}\n".encode())
    put(1, mp4[0], None)  # no transcript
    put(2, mp4[1], b"Text:  {NS} GOOD EVENING {LG} AND {WELCOME\nConf:  3\n")
    put(3, mp4[2], b"GOOD EVENING\n")  # a transcript in an unknown format
    put(4, mp4[3][: len(mp4[3]) // 2], txt[3])  # truncated
    put(5, b"", txt[3])
    frames = read_frames(good[0][0], None)
    silent = put(6, None, txt[0])
    if not silent.is_file():
        _write_mp4(silent, frames, None)
    short = put(7, None, txt[0])
    if not short.is_file():
        _write_mp4(short, frames[:3], np.zeros(1920, np.int16))
    put(8, None, txt[0])  # no video
    put(9, mp4[0], txt[0])  # in no list
    # Write files that other tools leave: the sound next to the clip, and frames in a folder with the name of the clip.
    write_once(main / broken / "00001.wav", b"RIFF")
    write_once(main / broken / "00001" / "0.jpg", b"\xff\xd8\xff\xe0")
    write_once(main / broken / "._00001.mp4", b"\0\5\x16\7")
    listed = [f"{broken}/{number:05d}" for number in range(1, 9)] + [f"{packed}/00001", f"{absent}/00001"]
    more = [f"{listed[0]}.mp4\r\n", *(f"{name}\n" for name in listed[1:]), "# end of the list\n"]
    write_text(out / "train.txt", "".join([*list_lines(specs, "train"), *more]))
    write_text(out / _HOME / "train.txt", "".join(list_lines(specs, "train")))  # a second copy, inside mvlrs_v1
    members = {
        f"{_HOME}/main/{packed}/00001.mp4": mp4[1],
        f"{_HOME}/main/{packed}/00001.txt": txt[1],
        f"{_HOME}/pretrain/{packed}/00001.mp4": mp4[2],
        f"{_HOME}/pretrain/{packed}/00001.txt": txt[2] + f"\n{_WORDS}\n".encode(),
        f"{_HOME}/main/{broken}/00009.mp4": mp4[0],  # a clip that is also on disk
        f"../main/{packed}/00002.mp4": mp4[0],
    }
    data = tar_of(members, tarfile.GNU_FORMAT)
    third = len(data) // 3  # each part ends in the middle of a member
    for index, name in enumerate("abc"):
        end = third * (index + 1) if index < 2 else len(data)
        write_once(out / f"lrs2_v1_parta{name}", data[third * index : end])


def _is_tested(spec: ClipSpec) -> bool:
    return spec.speaker in presets()["embedded"]["test"]


def _subset(spec: ClipSpec) -> str:
    return "pretrain" if spec.level == 2 and not _is_tested(spec) else "main"


def _key(spec: ClipSpec) -> str:
    """`programme/number` of a clip.

    The programme is 9...0901 for M901 and 9...1901 for W901. The number encodes emotion, level and take.
    """
    programme = int(spec.speaker[1:]) + (1000 if spec.speaker.startswith("W") else 0)
    return f"9{programme:018d}/{(EMOTIONS.index(spec.emotion) * 3 + spec.level - 1) * 1000 + spec.take:05d}"


def list_lines(specs: Sequence[ClipSpec], name: str) -> Iterator[str]:
    """The lines of one list. The lines of test.txt end with a flag.

    The list pretrain has the clips of pretrain, and the list test has the clips of test speakers. The remaining clips
    are in the list val if the emotion is surprise, and in the list train otherwise.
    """
    for index, spec in enumerate(sorted(specs, key=_key)):
        trains = "val" if spec.emotion == "surprised" else "train"
        where = "pretrain" if _subset(spec) == "pretrain" else "test" if _is_tested(spec) else trains
        if where == name:
            yield _key(spec) + ((" NF", " MV")[index % 2] if name == "test" else "") + "\n"


def _transcript(truth: ClipTruth, timed: bool) -> str:
    """A transcript with the lines `Text:` and `Conf:`. If `timed`, also a table with the times of each word.

    The length of each word in seconds is proportional to the number of letters of the word.
    """
    words = "".join(char for char in truth["text"].upper() if char.isalpha() or char in " '").split()
    head = f"Text:  {' '.join(words)}\nConf:  5\n"
    if not timed:
        return head
    spoken = [phone for phone in truth["phones"] if phone["phone"] != "sil"]
    start, end = spoken[0]["start"], spoken[-1]["end"]
    edges = start + (end - start) * np.cumsum([0, *map(len, words)]) / sum(map(len, words))
    rows = [f"{word} {a:.2f} {b:.2f} 8.0\n" for word, a, b in zip(words, edges, edges[1:], strict=False)]
    return f"{head}\n{_WORDS}\n{''.join(rows)}"


def _write_mp4(path: Path, frames: np.ndarray | Iterable[np.ndarray], sound: np.ndarray | None) -> None:
    mpeg4 = Encoding(codec="mpeg4", pix_fmt="yuv420p", options={"b": "600000"})
    write_video(path, frames, _FPS, sound, AUDIO_RATE, mpeg4)
