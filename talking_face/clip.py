"""The records of a clip and of an evaluation pair: plain, frozen dataclasses."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from talking_face.names import printable


@dataclass(frozen=True, slots=True)
class MediaSource:
    """Where media is stored: a file, or a member of a tar archive.

    The names are as on disk: bytes that are not UTF-8 are lone surrogates. `str(source)` is printable.
    """

    path: str  # absolute path of the file, or of the archive
    # Name of the member inside the archive; `inner.tar!name` if the member is in a nested archive; None: a plain file.
    member: str | None = None
    offset: int | None = None  # first byte of the member in the archive; None: the archive is scanned for the member
    size: int | None = None  # bytes of the member
    # The files that follow `path` in a split archive. `offset` is counted from the start of the file `path`.
    parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return printable(self.path if self.member is None else f"{self.path}!{self.member}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One recording of one speaker. Dataset readers create a `Clip` from file names and label files only."""

    clip_id: str  # stable and readable: mead/M003/front/angry/3/001
    dataset: str
    speaker: str
    video: MediaSource
    audio: MediaSource | None = None  # a separate sound file; None: the sound track of the video
    emotion: str | None = None  # one of talking_face.emotions.EMOTIONS, or an extended label; None: no label
    # The label that most raters chose. None if the dataset has no raters, or if several labels have the most votes.
    emotion_voted: str | None = None
    intensity: int | None = None  # 1..3 in MEAD; None if the dataset has no levels
    take: str = ""  # number that the dataset gives to the clip; it does not identify the sentence
    view: str | None = None
    sentence_id: str | None = None  # None: the dataset does not state which sentence is spoken
    transcript: str | None = None
    split: str | None = None  # train | val | test, from a named split


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One evaluation case. Each clip is given by its clip_id, and all clips are in the same shard set."""

    pair_id: str  # neutral-base/M903/neutral>happy/s0/0001
    setting: str
    seed: int
    speaker: str
    reference_clip: str  # the clip that gives the method the identity
    reference_frames: tuple[int, ...]  # indices into the reference clip's 25 fps frames
    reference_emotion: str
    source_clip: str  # pose or source video, for methods that edit a video
    driving_clip: str  # the clip whose sound drives the lips
    target_emotion: str
    intensity: int | None
    ground_truth_clip: str | None  # None in the extended setting
    emotion_audio: tuple[str, ...] = ()  # C-MET's pool of clips with the target emotion
    neutral_audio: tuple[str, ...] = ()  # C-MET's pool of neutral clips
    visible: str = "none"  # part of the ground truth that the method receives: none | upper-half | all

    def to_row(self) -> dict[str, object]:
        """A flat row for CSV or Parquet; tuples become lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}
