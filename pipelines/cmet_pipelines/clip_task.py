"""Defines the task that a worker runs for each clip: process the clip, store the result, and return the outcome."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from cmet_pipelines.out_folder import FULL
from cmet_pipelines.process_clip import StageLog, process_clip
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.records import ClipOutcome, ClipRecord
from cmet_pipelines.source_files import below, file_state, hash_or_none, relative_path, source_sha256
from cmet_pipelines.staging import Staging
from talking_face.clip import Clip, MediaSource
from talking_face.execution.calls import error_line
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason

TASK = "cmet_pipelines.clip_task:process_to_staging"

log = logging.getLogger(__name__)


def process_to_staging(
    clip: Clip, entry: str, settings: ProcessingSettings, staging: str, root: str, files: ModelFiles
) -> ClipOutcome:
    """Processes a clip and stores its record in the staging folder. Returns the clip's outcome.

    `entry` is the clip's digest in `Job.entries`. If the processing fails, the outcome contains the error. Only a full
    disk raises OSError, because a full disk is not an error of the clip.
    """
    started = time.perf_counter()
    stages = StageLog("probe")
    outcome = new_outcome(clip, entry, root)
    record: ClipRecord | None = None
    try:
        outcome["source_sha256"] = sha256 = source_sha256(clip.video)
        outcome["audio_sha256"] = hash_or_none(clip.audio) if clip.audio is not None else None
        record = process_clip(clip, settings, root, sha256, stages, files=files)
        _check_unchanged(clip, outcome)
        outcome["status"] = "kept"
    except ClipError as error:
        drop(outcome, stages.name, error.reason, below(root, error.detail))
        record = None
    except MemoryError as error:
        drop(outcome, stages.name, Reason.OUT_OF_MEMORY, below(root, f"{stages.name} failed: {error_line(error)}"))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        log.exception("%s: stage %s", clip.clip_id, stages.name)
        message = below(root, str(error))[:200]
        drop(outcome, stages.name, Reason.CRASHED, f"{stages.name} failed: {type(error).__name__}: {message}")
    outcome["seconds"] = time.perf_counter() - started
    Staging(Path(staging)).put(outcome, record)
    return outcome


def new_outcome(clip: Clip, entry: str, root: str) -> ClipOutcome:
    """The outcome of a clip that is not processed yet, with the present state of its source files."""
    source, audio = _state(clip.video), _state(clip.audio)
    return {
        "clip_id": clip.clip_id,
        "source": relative_path(clip.video, root),
        "status": "",
        "stage": "",
        "reason": "",
        "detail": "",
        "source_bytes": source[0],
        "source_mtime_ns": source[1],
        "source_sha256": None,
        "audio_bytes": audio[0],
        "audio_mtime_ns": audio[1],
        "audio_sha256": None,
        "entry": entry,
        "seconds": 0.0,
    }


def _state(source: MediaSource | None) -> tuple[int | None, int | None]:
    """Size in bytes and time of the last change in ns; (None, None) if there is no such file."""
    return (source and file_state(source)) or (None, None)


def _check_unchanged(clip: Clip, outcome: ClipOutcome) -> None:
    """Raises ClipError if a source file changed since `new_outcome`, because its hash may then be of other bytes."""
    before = (outcome["source_bytes"], outcome["source_mtime_ns"]), (outcome["audio_bytes"], outcome["audio_mtime_ns"])
    if (_state(clip.video), _state(clip.audio)) != before:
        raise ClipError(Reason.UNREADABLE, f"{clip.video} or its sound changed while it was read; run again (--retry)")


def drop(outcome: ClipOutcome, stage: str, reason: Reason, detail: str) -> None:
    """Marks the clip of `outcome` as dropped, with the stage, the reason and a message."""
    outcome["status"] = "dropped"
    outcome["stage"], outcome["reason"], outcome["detail"] = stage, reason.value, detail
