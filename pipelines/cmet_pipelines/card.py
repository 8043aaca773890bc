"""Writes the tables and the card of a shard set: clips.parquet, ledger.parquet and dataset.json."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cmet_pipelines.job import Job, clip_labels, skipped_digest
from cmet_pipelines.readers import Skipped
from cmet_pipelines.records import IDENTITY_FIELDS, LEDGER_SCHEMA, Card, CardHead, ClipOutcome, Counts
from cmet_pipelines.shards import CARD, CLIPS, LEDGER, SHARDS
from cmet_pipelines.source_files import relative_path
from talking_face.clip import Clip
from talking_face.files import replacing, write_text
from talking_face.signature import digest

_INDEX_SCHEMA = pa.schema([*IDENTITY_FIELDS, pa.field("shard", pa.string()), pa.field("row_group", pa.int32())])
_LEDGER_LABELS = ("speaker", "emotion", "intensity", "view", "split")
_VERSIONS = ("cmet-eval", "av", "mediapipe", "numpy", "pyarrow")


def write_unfinished_card(job: Job, labels: Mapping[str, str]) -> None:
    """Writes the card of an unfinished set. `labels`: from an earlier card, the digest of each clip's labels."""
    _write_card(job.out, {**card_head(job), "complete": False, "labels": dict(labels)})


def write_tables_and_card(job: Job, outcomes: Mapping[str, ClipOutcome]) -> Card:
    """Writes clips.parquet, ledger.parquet and the finished card. Every clip must have an outcome."""
    names = [job.shard_name(index) for index in range(len(job.shards))]
    sizes = {name: path.stat().st_size for name in names if (path := job.out / SHARDS / name).is_file()}
    index = index_table(job.out / SHARDS, list(sizes))
    _write_table(job.out / CLIPS, index)
    _write_table(job.out / LEDGER, ledger_table(job, outcomes))
    card: Card = {
        **card_head(job),
        "complete": True,
        "digest": _content_digest(job, index, outcomes),
        "counts": _counts(index, outcomes, job.skipped),
        "shards": dict(sorted(sizes.items())),
        "labels": {clip.clip_id: digest(clip_labels(clip), 8) for clip in job.clips},
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
        "notes": job.notes,
        "versions": {name: _version(name) for name in _VERSIONS},
    }


def index_table(folder: Path, names: Sequence[str]) -> pa.Table:
    """Identity columns of every clip in the shards `names`, with the clip's `shard` and `row_group`."""
    columns = [field.name for field in IDENTITY_FIELDS]
    tables = []
    for name in names:
        table = pq.read_table(folder / name, columns=columns)
        table = table.append_column("shard", pa.array([name] * len(table), pa.string()))
        tables.append(table.append_column("row_group", pa.array(range(len(table)), pa.int32())))
    return pa.concat_tables([t.cast(_INDEX_SCHEMA) for t in tables]) if tables else _INDEX_SCHEMA.empty_table()


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
    shown = Path(os.path.relpath(path, job.root)).as_posix() if path.is_absolute() else skip.path
    row: dict[str, object] = {"source": shown, "stage": "discover", "reason": skip.reason.value, "detail": skip.detail}
    if skip.clip is None:
        return {**row, "status": "skipped"}
    return {**row, "status": "excluded", "clip_id": skip.clip.clip_id, **_ledger_labels(job, skip.clip)}


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


def _write_table(path: Path, table: pa.Table) -> None:
    with replacing(path, durable=True) as temporary, temporary.open("wb") as file:
        pq.write_table(table, file, compression="zstd")


def _write_card(out: Path, card: Card) -> None:
    write_text(out / CARD, json.dumps(card, indent=1, ensure_ascii=False) + "\n", durable=True)
