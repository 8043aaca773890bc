"""Writes the tables and the card of a shard set: clips.parquet, ledger.parquet and dataset.json."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cmet_pipelines.job import Job, skipped_digest
from cmet_pipelines.readers import Skipped
from cmet_pipelines.records import (
    IDENTITY_FIELDS,
    INDEX_SCHEMA,
    LEDGER_SCHEMA,
    Card,
    CardHead,
    ClipOutcome,
    Counts,
)
from cmet_pipelines.shard_files import describe
from cmet_pipelines.shards import CARD, CLIPS, LEDGER, SHARDS
from cmet_pipelines.source_files import below, relative_path
from talking_face.clip import Clip
from talking_face.names import printable
from talking_face.origin import origin_of_clips
from talking_face.sealed import write_sealed_json, write_sealed_table
from talking_face.signature import digest

_LEDGER_LABELS = ("speaker", "emotion", "intensity", "view", "split")
_VERSIONS = ("cmet-eval", "av", "mediapipe", "numpy", "pyarrow")


def write_unfinished_card(job: Job) -> None:
    """Writes the card of an unfinished set."""
    _write_card(job.out, {**card_head(job), "complete": False})


def write_tables_and_card(job: Job, outcomes: Mapping[str, ClipOutcome]) -> Card:
    """Writes clips.parquet, ledger.parquet and the finished card. Every clip must have an outcome."""
    paths = [job.out / SHARDS / job.shard_name(index) for index in range(len(job.shards))]
    shards = {path.name: describe(path) for path in paths if path.is_file()}
    index = index_table(job.out / SHARDS, list(shards), outcomes)
    write_sealed_table(index, job.out / CLIPS, durable=True)
    write_sealed_table(ledger_table(job, outcomes), job.out / LEDGER, durable=True)
    card: Card = {
        **card_head(job),
        "complete": True,
        "digest": _content_digest(job, index, outcomes),
        "counts": _counts(index, outcomes, job.skipped),
        "origin": origin_of_clips(_speakers(index), job.content.get("origin")),
        "shards": dict(sorted(shards.items())),
    }
    _write_card(job.out, card)
    return card


def card_head(job: Job) -> CardHead:
    """The part of the card that is known before any clip is processed."""
    return {
        "dataset": job.dataset,
        "signature": str(job.settings.signature()),
        "settings": job.content,
        "settings_hash": job.key,
        "split_preset": job.preset,
        "manifest": job.manifest,
        "skipped": skipped_digest(job.skipped),
        "notes": [below(str(job.root), note) for note in job.notes],
        "versions": {name: _version(name) for name in _VERSIONS},
    }


def index_table(folder: Path, names: Sequence[str], outcomes: Mapping[str, ClipOutcome]) -> pa.Table:
    """clips.parquet: the identity columns of every clip in the shards `names`, and the columns of INDEX_SCHEMA."""
    columns = [field.name for field in IDENTITY_FIELDS]
    tables = []
    for name in names:
        table = pq.read_table(folder / name, columns=columns, page_checksum_verification=True)
        clips = [outcomes[clip_id] for clip_id in table["clip_id"].to_pylist()]
        added = {
            "shard": [name] * len(table),
            "row_group": list(range(len(table))),
            "entry": [outcome["entry"] for outcome in clips],
            "audio_sha256": [outcome["audio_sha256"] for outcome in clips],
        }
        for column, values in added.items():
            table = table.append_column(column, pa.array(values, INDEX_SCHEMA.field(column).type))
        tables.append(table.cast(INDEX_SCHEMA))
    return pa.concat_tables(tables) if tables else INDEX_SCHEMA.empty_table()


def ledger_table(job: Job, outcomes: Mapping[str, ClipOutcome]) -> pa.Table:
    """The ledger: one row per clip, and one row per other file that was found."""
    rows = [{**outcomes[clip.clip_id], **_ledger_labels(job, clip)} for clip in job.clips]
    rows += [_skipped_row(job, skip) for skip in job.skipped]
    names = [field.name for field in LEDGER_SCHEMA]
    return pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows], LEDGER_SCHEMA)


def _ledger_labels(job: Job, clip: Clip) -> dict[str, object]:
    sound = relative_path(clip.audio, str(job.root)) if clip.audio is not None else None
    return {name: getattr(clip, name) for name in _LEDGER_LABELS} | {"audio_source": sound}


def _skipped_row(job: Job, skip: Skipped) -> dict[str, object]:
    path = Path(skip.path)
    inside = path.is_absolute() and path.is_relative_to(job.root)
    shown = str(path.relative_to(job.root)) if inside else path.name if path.is_absolute() else skip.path
    row: dict[str, object] = {"source": printable(shown), "stage": "discover", "reason": skip.reason.value}
    row["detail"] = below(str(job.root), skip.detail)
    if skip.clip is None:
        return {**row, "status": "skipped"}
    return {**row, "status": "excluded", "clip_id": skip.clip.clip_id, **_ledger_labels(job, skip.clip)}


def _speakers(index: pa.Table) -> Iterator[tuple[str, str]]:
    """The dataset and the speaker of each clip."""
    return zip(index["dataset"].to_pylist(), index["speaker"].to_pylist(), strict=True)


def _content_digest(job: Job, index: pa.Table, outcomes: Mapping[str, ClipOutcome]) -> str:
    """Digest of the settings and of all clips: the digest of a kept clip, or the stage and reason of a dropped clip."""
    digests = dict(zip(index["clip_id"].to_pylist(), index["clip_digest"].to_pylist(), strict=True))
    results = [
        [clip_id, digests.get(clip_id) or [outcomes[clip_id]["stage"], outcomes[clip_id]["reason"]]]
        for clip_id in sorted(outcomes)
    ]
    return digest([job.content, results], 32)


def _counts(index: pa.Table, outcomes: Mapping[str, ClipOutcome], skipped: Sequence[Skipped]) -> Counts:
    reasons = Counter(outcome["reason"] for outcome in outcomes.values() if outcome["status"] == "dropped")
    return {
        "kept": len(index),
        "dropped": len(outcomes) - len(index),
        "excluded": sum(skip.clip is not None for skip in skipped),
        "skipped": sum(skip.clip is None for skip in skipped),
        "frames": sum(index["n_frames"].to_pylist()),
        "emotion": _count(index["emotion"]),
        "speaker": _count(index["speaker"]),
        "split": _count(index["split"]),
        "reasons": dict(sorted(reasons.items())),
    }


def _count(column: pa.ChunkedArray) -> dict[str, int]:
    return dict(sorted(Counter("unknown" if value is None else value for value in column.to_pylist()).items()))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _write_card(out: Path, card: Card) -> None:
    write_sealed_json(out / CARD, card, indent=1, durable=True)
