"""Defines the task that a worker runs for each clip: process the clip, store the result, and return the outcome."""

from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path

from cmet_pipelines.process_clip import StageLog, process_clip
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.records import ClipOutcome, ClipRecord
from cmet_pipelines.source_files import relative_path, source_bytes, source_sha256
from cmet_pipelines.staging import Staging
from talking_face.clip import Clip
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason

TASK = "cmet_pipelines.clip_task:process_to_staging"

log = logging.getLogger(__name__)


def process_to_staging(
    clip: Clip, settings: ProcessingSettings, staging: str, root: str, files: ModelFiles
) -> ClipOutcome:
    """Processes a clip and stores its record in the staging folder. Returns the clip's outcome.

    If the processing fails, the outcome contains the error. Only a full disk raises OSError, because a full disk is not
    an error of the clip.
    """
    started = time.perf_counter()
    stages = StageLog("probe")
    outcome = new_outcome(clip, root)
    record: ClipRecord | None = None
    try:
        outcome["source_bytes"] = source_bytes(clip.video)
        outcome["source_sha256"] = sha256 = source_sha256(clip.video)
        record = process_clip(clip, settings, root, sha256, stages, files=files)
        outcome["status"] = "kept"
    except ClipError as error:
        detail = error.detail.replace(f"{root}{os.sep}", "")  # the ledger must not depend on the root
        drop(outcome, stages.name, error.reason, detail)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        log.exception("%s: stage %s", clip.clip_id, stages.name)
        message = " ".join(str(error).split())[:200]
        drop(outcome, stages.name, Reason.CRASHED, f"{stages.name} failed: {type(error).__name__}: {message}")
    outcome["seconds"] = time.perf_counter() - started
    Staging(Path(staging)).put(outcome, record)
    return outcome


def new_outcome(clip: Clip, root: str) -> ClipOutcome:
    """The outcome of a clip that is not processed yet. Only the fields `clip_id` and `source` have real values."""
    return {
        "clip_id": clip.clip_id,
        "source": relative_path(clip.video, root),
        "status": "",
        "stage": "",
        "reason": "",
        "detail": "",
        "source_bytes": None,
        "source_sha256": None,
        "seconds": 0.0,
    }


def drop(outcome: ClipOutcome, stage: str, reason: Reason, detail: str) -> None:
    """Marks the clip of `outcome` as dropped, with the stage, the reason and a message."""
    outcome["status"] = "dropped"
    outcome["stage"], outcome["reason"], outcome["detail"] = stage, reason.value, detail
