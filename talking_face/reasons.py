"""Reason codes: why a clip was excluded, or why a score has no value. Each such case has one of these codes."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The codes. Ledgers and result rows store their values, so a value is never renamed; new values can be added."""

    MISSING_FILE = "missing-file"
    EMPTY_FILE = "empty-file"
    LFS_POINTER = "lfs-pointer"
    NOT_MEDIA = "not-media"
    TRUNCATED = "truncated"
    DECODE_ERROR = "decode-error"
    NO_VIDEO = "no-video"
    NO_AUDIO = "no-audio"
    TOO_SHORT = "too-short"
    TOO_LONG = "too-long"
    NO_FACE = "no-face"
    FEW_FACES = "few-faces"
    DEADLINE = "deadline"
    CRASHED = "crashed"
    NO_SPACE = "no-space"
    UNREADABLE = "unreadable"
    BAD_LABEL = "bad-label"
    UNLABELLED = "unlabelled"
    DUPLICATE_ID = "duplicate-id"
    NOT_A_CLIP = "not-a-clip"
    COMPRESSED = "compressed"
    KNOWN_DEFECT = "known-defect"
    NOT_ASKED = "not-asked"
    # Scoring only.
    LENGTH_MISMATCH = "length-mismatch"
    RATE_MISMATCH = "rate-mismatch"
    SIZE_MISMATCH = "size-mismatch"
    NO_GROUND_TRUTH = "no-ground-truth"
    MISSING_OUTPUT = "missing-output"
    METHOD_FAILED = "method-failed"
    MISSING_WEIGHTS = "missing-weights"
    INFINITE = "infinite"
    NOT_FINITE = "not-finite"
    SILENT = "silent"
    UNSUPPORTED_LABEL = "unsayable"  # the classifier does not have the label of this emotion
    TRAINED_ON = "trained-on"  # the evaluator was trained on the clip


class ClipError(Exception):
    """One clip cannot be used. `reason` is the code; `detail` explains it and, where possible, how to correct it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ClipError], tuple[Reason, str]]:
        # By default only the message of an exception is pickled, and the reason would be lost between processes.
        return type(self), (self.reason, self.detail)


class UserError(Exception):
    """The command cannot do what the user asked for. Its message contains a remedy. The exit code is 2."""
