"""Sends messages between a worker and its child process over pipes. A message is a length, followed by a pickle.

It is safe to read pickles from these pipes, because only the worker and its child process have access to the pipes.
"""

from __future__ import annotations

import pickle
import struct
from typing import BinaryIO

HEADER = struct.Struct("<Q")  # length of the pickle that follows, bytes
ANSWER, STAGE = "answer", "stage"  # kinds of messages from a child: (kind, content)

Failure = tuple[str, str]  # code of a talking_face.reasons.Reason, detail
Outcome = tuple[object, Failure | None]  # (value of a call, None) or (None, failure)


def write_message(file: BinaryIO, message: object) -> None:
    """Writes one message and flushes the file."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    file.write(HEADER.pack(len(data)) + data)
    file.flush()


def read_message(file: BinaryIO) -> object:
    """The next message. Raises EOFError at the end of the input."""
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        raise EOFError
    return pickle.loads(file.read(HEADER.unpack(header)[0]))
