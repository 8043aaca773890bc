"""Defines the messages between a worker and its child process. A message is a length, followed by a pickle.

It is safe to read these pickles, because only the worker and its child process hold the two ends of the channel.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import BinaryIO

HEADER = struct.Struct("<Q")  # length of the pickle that follows, bytes
LARGEST = 256 << 20  # bytes; a longer message is an error: large values belong into files
ANSWER, STAGE, LIMIT = "answer", "stage", "limit"  # kinds of messages from a child: (kind, content)

Failure = tuple[str, str]  # code of a talking_face.reasons.Reason, or DAMAGED; detail
DAMAGED = "damaged"  # a stored file that other tasks need too is damaged, so the run stops
Outcome = tuple[object, Failure | None]  # (value of a call, None) or (None, failure)


@dataclass(frozen=True)
class Report:
    """How one call ended.

    Attributes:
        value: the value that the function returned; None if there is a failure.
        failure: None if the function returned a value.
        seconds: wall time of the call, including a second attempt.
        stage: last stage that the call entered before its process died or was ended; empty in all other cases.
    """

    value: object
    failure: Failure | None
    seconds: float
    stage: str = ""


def packed(message: object) -> bytes:
    """A message as bytes. Raises what `pickle.dumps` raises, and ValueError if the message is longer than LARGEST."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    if len(data) > LARGEST:
        raise ValueError(f"{len(data) >> 20} MB are too large for a message; at most {LARGEST >> 20} MB are sent")
    return HEADER.pack(len(data)) + data


def write_message(file: BinaryIO, message: object) -> None:
    """Writes one message and flushes the file. Raises the errors of `packed` before anything is written."""
    file.write(packed(message))
    file.flush()


def read_bytes(file: BinaryIO) -> bytes:
    """The pickle of the next message. Raises EOFError at the end of the input."""
    header = file.read(HEADER.size)
    data = file.read(HEADER.unpack(header)[0]) if len(header) == HEADER.size else b""
    if not data:
        raise EOFError
    return data
