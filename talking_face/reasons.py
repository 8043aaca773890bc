"""Reason codes. Each excluded clip and each score without a value has a code that states the reason."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The reason codes. Ledgers and result rows store the code's text; therefore a text must never be changed."""

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
    TOO_LARGE = "too-large"  # more pixels or more bytes than are taken
    NO_FACE = "no-face"
    FEW_FACES = "few-faces"
    DEADLINE = "deadline"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out-of-memory"
    NO_SPACE = "no-space"
    UNREADABLE = "unreadable"
    BAD_LABEL = "bad-label"
    UNLABELLED = "unlabelled"
    DUPLICATE_ID = "duplicate-id"
    NOT_A_CLIP = "not-a-clip"
    COMPRESSED = "compressed"
    KNOWN_DEFECT = "known-defect"
    NOT_ASKED = "not-asked"
    # The codes below occur only in scoring.
    LENGTH_MISMATCH = "length-mismatch"
    RATE_MISMATCH = "rate-mismatch"
    SIZE_MISMATCH = "size-mismatch"
    MISREGISTERED = "misregistered"  # the face has another place or size than in the ground truth, in the whole video
    NO_GROUND_TRUTH = "no-ground-truth"
    MISSING_OUTPUT = "missing-output"
    CHANGED = "changed"  # the video was changed while it was scored
    METHOD_FAILED = "method-failed"
    MISSING_WEIGHTS = "missing-weights"
    INFINITE = "infinite"
    NOT_FINITE = "not-finite"
    SILENT = "silent"
    UNSUPPORTED_LABEL = "unsayable"  # the classifier does not have the label of this emotion
    TRAINED_ON = "trained-on"  # the evaluator was trained on the clip


class ClipError(Exception):
    """One clip cannot be used. `reason` is the code. `detail` explains the problem and, if possible, its correction."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ClipError], tuple[Reason, str]]:
        # By default, pickle stores only the message of an exception. Between processes, the reason would be lost.
        return type(self), (self.reason, self.detail)


class UserError(Exception):
    """The command cannot do what the user asked for. Its message contains a remedy. The exit code is 2."""


class NoSpace(UserError):
    """The disk is full. The message says which work is kept. The exit code is 1."""
