"""Defines the rows and the card of a shard set as TypedDicts, and creates the Arrow schemas from the TypedDicts.

A schema has one column per key of the TypedDict, in the same order. The type of the key gives the Arrow type of the
column. If the type includes `None`, the column is nullable. `About` gives the description of the column.
"""

from __future__ import annotations

from typing import Annotated, TypedDict

import numpy as np
import pyarrow as pa

from talking_face.arrow import About, Flat, Int8, Int32, Int64, schema_of
from talking_face.origin import Origin

SCHEMA_VERSION = "3"


class ClipIdentity(TypedDict):
    """All values of a clip except the arrays. INDEX_SCHEMA adds the columns that only clips.parquet has."""

    clip_id: str
    dataset: str
    speaker: str
    emotion: str | None
    emotion_voted: Annotated[str | None, About("what most viewers saw and heard; null: a tie")]
    intensity: Int8 | None
    take: str | None
    view: str | None
    sentence_id: str | None
    transcript: str | None
    split: str | None
    source: Annotated[str, About("path below the dataset's root; archive!member in a tar")]
    audio_source: Annotated[str | None, About("separate sound file; null: the video's own track")]
    source_sha256: str
    source_width: Int32
    source_height: Int32
    source_fps: float
    source_codec: str | None
    source_pix_fmt: str | None
    fps: float
    align: Annotated[str, About("talking_face.faces.align mode of the crop")]
    size: Annotated[Int32, About("side of the crop, px")]
    codec: Annotated[str, About("pipelines.frames_codec name")]
    n_frames: Int32
    n_valid: Annotated[Int32, About("frames with a face")]
    valid_fraction: float
    jitter: Annotated[float | None, About("tracking noise of the raw landmarks, crop px")]
    audio_surplus: Annotated[Int32 | None, About("samples cut off the end (positive) or zeros added (negative)")]
    n_faces: Annotated[Int32, About("people followed from the first picture with a face on")]
    face_choice: Annotated[str, About("of them, the only, the speaking or the largest was taken")]
    face_margin: Annotated[float | None, About("sound and mouth: the taken face's correlation over the next")]
    face_height: Annotated[float, About("median, hairline to chin, source px")]
    sharpness: Annotated[float, About("variance of the crop's Laplacian, median of every 5th frame")]
    brightness: Annotated[float, About("mean grey of the crop, 0 to 255, median of every 5th frame")]
    black_frames: Int32
    scene_cuts: Annotated[list[Int32], About("frames with which another shot begins")]
    identity_distance: Annotated[float | None, About("dlib, across cuts and jumps; over 0.6: two people")]
    warnings: Annotated[list[str], About("what was noticed, in short")]
    clip_digest: Annotated[str, About("SHA-256 of all other columns except column_checksums")]
    column_checksums: Annotated[list[Int64], About("CRC-32 of each array column, in their order")]


class ClipArrays(TypedDict):
    """The arrays of a clip. A shard stores each array as a flat list; `Flat.shape` is the shape of the array."""

    frames: Annotated[
        list[bytes], Flat(pa.binary(), "T or 1"), About("encoded RGB frames; one blob a clip for video codecs")
    ]
    landmarks: Annotated[np.ndarray, Flat(pa.float32(), "T,478,3"), About("raw, crop px, NaN where not valid")]
    landmarks_smoothed: Annotated[
        np.ndarray, Flat(pa.float32(), "T,478,3"), About("as landmarks, smoothed, gaps up to 5 frames bridged")
    ]
    blendshapes: Annotated[np.ndarray, Flat(pa.float32(), "T,52"), About("MediaPipe's order, NaN where not valid")]
    valid: Annotated[np.ndarray, Flat(pa.bool_(), "T"), About("a face was found in the frame")]
    crop_transform: Annotated[np.ndarray, Flat(pa.float32(), "T,2,3"), About("source px to crop px")]
    audio: Annotated[np.ndarray, Flat(pa.int16(), "N"), About("16 kHz mono, N = round(T / fps * 16000)")]


class ClipRecord(ClipIdentity, ClipArrays):
    """One row of a shard: all values and arrays of one clip."""


class ClipOutcome(TypedDict):
    """The result of processing one clip: the clip's ledger row without the labels."""

    clip_id: str
    source: str
    status: str  # kept or dropped
    stage: str
    reason: str
    detail: str
    source_bytes: int | None
    source_mtime_ns: int | None
    source_sha256: str | None
    audio_bytes: int | None
    audio_mtime_ns: int | None
    audio_sha256: str | None
    entry: str
    seconds: float | None


class LedgerRow(TypedDict):
    """One row of ledger.parquet: a clip, or a file that is not a clip."""

    clip_id: Annotated[str | None, About("null for a file that is no clip")]
    source: str
    status: Annotated[str, About("kept, dropped or excluded (a clip), or skipped (a file that is none)")]
    stage: Annotated[str, About("where a dropped clip failed")]
    reason: Annotated[str, About("talking_face.reasons.Reason")]
    detail: str
    speaker: str | None
    emotion: str | None
    intensity: Int8 | None
    view: str | None
    split: str | None
    audio_source: Annotated[str | None, About("the clip's separate sound file, used or not")]
    source_bytes: Int64 | None
    source_mtime_ns: Annotated[Int64 | None, About("time of the last change of the video or archive, ns since 1970")]
    source_sha256: str | None
    audio_bytes: Annotated[Int64 | None, About("of the separate sound file, as the next two columns")]
    audio_mtime_ns: Int64 | None
    audio_sha256: str | None
    entry: Annotated[str | None, About("digest of the clip's labels and of the names of its files")]
    seconds: float | None


class Counts(TypedDict):
    """Numbers of clips, files and frames of a finished set.

    `emotion`, `speaker` and `split` count the kept clips per label.
    """

    kept: int
    dropped: int
    excluded: int  # clips that a table, a list or an option left out
    skipped: int  # files that are not clips
    frames: int
    emotion: dict[str, int]
    speaker: dict[str, int]
    split: dict[str, int]
    reasons: dict[str, int]  # number of dropped clips per reason


class ShardFile(TypedDict):
    """What a reader of a shard compares before it parses the shard."""

    bytes: int  # size of the file
    footer: str  # SHA-256 of the file's footer, which names the places of all columns


class CardHead(TypedDict):
    """The part of dataset.json that is known before any clip is processed."""

    dataset: str
    signature: str
    settings: dict[str, object]
    settings_hash: str
    split_preset: str
    manifest: str  # digest of the selected clips, with their labels and files
    skipped: str  # digest of the skipped files and excluded clips, with the reasons
    notes: list[str]
    versions: dict[str, str]


class Card(CardHead, total=False):
    """The content of dataset.json. The card of an unfinished set has no `digest`, `counts`, `origin` and `shards`."""

    complete: bool
    digest: str
    counts: Counts
    origin: Origin  # of the kept clips; older sets do not have it
    shards: dict[str, ShardFile]  # by file name


IDENTITY_FIELDS: tuple[pa.Field, ...] = tuple(schema_of(ClipIdentity))
ARRAY_FIELDS: tuple[pa.Field, ...] = tuple(schema_of(ClipArrays))
SCHEMA = pa.schema([*IDENTITY_FIELDS, *ARRAY_FIELDS], {"schema_version": SCHEMA_VERSION})
LEDGER_SCHEMA = schema_of(LedgerRow)
# clips.parquet. With `entry` and `audio_sha256`, a lost ledger can be replaced for the kept clips.
INDEX_SCHEMA = pa.schema(
    [
        *IDENTITY_FIELDS,
        *(pa.field("shard", pa.string()), pa.field("row_group", pa.int32())),
        *(pa.field("entry", pa.string()), pa.field("audio_sha256", pa.string())),
    ]
)
