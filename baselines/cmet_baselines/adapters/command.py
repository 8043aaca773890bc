"""Defines the `command` adapter, which runs a command line once per pair.

For each run, the inputs are written as files into a new work folder. The printed output of the command is written to
the log of the pair. When the command ends, every process that it started is ended, too.
"""

from __future__ import annotations

import os
import re
import shlex
import string
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from cmet_baselines.adapters.conform import LengthRule, SizeRule, read_output
from cmet_baselines.adapters.environment import method_environment
from cmet_baselines.method import Case
from talking_face.execution.processes import GuardedProcess
from talking_face.lines import one_line
from talking_face.media.writing import Encoding, write_audio, write_video
from talking_face.names import Name, printable
from talking_face.reasons import ClipError, Reason
from talking_face.scratch import scratch_folder
from talking_face.user_files import Text

# {placeholder: the input that a command receives through this placeholder}; None: no input of `INPUTS`.
PLACEHOLDERS: Mapping[str, str | None] = {
    "reference_image": "reference-frames",  # PNG file, the first reference frame
    "reference_images": "reference-frames",  # folder with 0.png, 1.png ...
    "source_video": "source-video",  # MP4, H.264 4:4:4, 25 frames/s
    "driving_audio": "driving-audio",  # WAV, 16 kHz mono
    "emotion_audio": "emotion-audio",  # folder with 0.wav, 1.wav ... in the target emotion
    "neutral_audio": "neutral-audio",  # folder with 0.wav, 1.wav ... in neutral speech
    "target_emotion": "emotion-label",  # the label, renamed as in `emotions`
    "intensity": "emotion-label",  # 1 to 3, or empty
    "output": None,  # the MP4 file that the command must write
    "work": None,  # the work folder, in which the command can write files
    "n_frames": None,
    "seed": None,
    "width": None,
    "height": None,
}
LOG_BYTES = 16 << 20  # largest printed output of one pair; the log is also kept in memory for the error message
OUTPUT_BYTES = 4 << 30  # largest output file of one pair; a minute of 1080p without loss has 2 GB
WATCH_S = 0.1  # s between two looks at the sizes of these files
LONGEST_S = 7 * 86_400.0  # a longer deadline for one pair is a slip of the pen
_TAIL = 300  # number of the log's last characters in an error message


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError(f"{printable(text[:60])!r} is not the name of an environment variable")
    return text


Variable = Annotated[str, AfterValidator(_variable)]  # pydantic type: the name of an environment variable


class CommandRun(BaseModel):
    """The table `[command]` or `[example]` of an entry: how a command line is run. Unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    command: tuple[str, ...]  # a list, or one line that is split as in a shell; it runs without a shell
    folder: Path | None = None  # the working directory; default: the work folder
    # Variables that the command receives, and the names of this process's variables that it also receives.
    environment: dict[Variable, Text] = Field(default_factory=dict)
    environment_from: tuple[Variable, ...] = ()
    emotions: dict[Name, Text] = Field(default_factory=dict)  # {this suite's label: the method's name of the emotion}
    # Per pair; after it, the command and all its processes are ended.
    deadline_s: float = Field(default=600.0, gt=0, le=LONGEST_S)
    size: SizeRule = "as-is"
    length: LengthRule = "as-is"

    @field_validator("command", mode="before")
    @classmethod
    def _as_list(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(shlex.split(value))
        return tuple(value) if isinstance(value, list) else value

    @field_validator("command")
    @classmethod
    def _known_placeholders(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = placeholders(value)
        if any("\0" in part for part in value):
            raise ValueError("the command has a NUL character")
        if any(form or conversion for part in value for _, _, form, conversion in string.Formatter().parse(part)):
            raise ValueError("a placeholder has no format; write {seed} and not {seed:03d}")
        if unknown := sorted(names - PLACEHOLDERS.keys()):
            raise ValueError(f"unknown placeholder {', '.join(unknown)}; there are {', '.join(PLACEHOLDERS)}")
        if not value or "output" not in names:
            raise ValueError("the command needs {output}, the file it writes")
        return value

    def sees(self) -> frozenset[str]:
        """The inputs that the command receives through its placeholders."""
        return frozenset(seen for name in placeholders(self.command) if (seen := PLACEHOLDERS[name]))


class CommandMethod:
    """A method that is a command line."""

    def __init__(self, name: str, revision: str, sees: frozenset[str], run: CommandRun) -> None:
        self.name, self.revision, self.sees, self.run = name, revision, sees, run
        self.deadline_s = run.deadline_s

    def generate(self, case: Case) -> np.ndarray:
        """Write the inputs, run the command, and read the video that it wrote.

        Raises:
            ClipError: method-failed (the message contains the end of the command's output), deadline, or a reason of
                `read_output`.
        """
        with scratch_folder() as work:
            values = write_inputs(case, work, placeholders(self.run.command), self.run.emotions)
            command = [part.format_map(values) for part in self.run.command]
            log = case.log or work / "log.txt"
            log.parent.mkdir(parents=True, exist_ok=True)
            environment = method_environment(os.environ, self.run.environment, self.run.environment_from)
            folder, output = self.run.folder or work, work / "output.mp4"
            status = run_logged(command, folder, environment, self.run.deadline_s, log, output)
            if status != 0:
                tail = log.read_text("utf-8", "replace").strip()[-_TAIL:]
                text = one_line(tail) or "it printed nothing"
                raise ClipError(Reason.METHOD_FAILED, f"{self.name} ended with {status}: {text}")
            return read_output(output, case, self.run.size, self.run.length)


def placeholders(command: tuple[str, ...]) -> set[str]:
    """The names in braces in a command."""
    return {name for part in command for _, name, _, _ in string.Formatter().parse(part) if name is not None}


def write_inputs(case: Case, work: Path, names: set[str], emotions: Mapping[str, str]) -> dict[str, str]:
    """Write the input files that a command needs.

    Args:
        case: the inputs; only the inputs for `names` are loaded.
        work: an empty folder.
        names: the placeholders of the command.
        emotions: {this suite's label: the method's name of the emotion}.

    Returns:
        {placeholder: its value as text}.
    """
    values = {
        "output": str(work / "output.mp4"),
        "work": str(work),
        "n_frames": str(case.n_frames),
        "seed": str(case.seed),
        "height": str(case.size[0]),
        "width": str(case.size[1]),
    }
    if names & {"reference_image", "reference_images"}:
        values |= _write_references(case, work / "reference")
    if "source_video" in names:
        values["source_video"] = str(work / "source.mp4")
        write_video(work / "source.mp4", case.source_frames, encoding=Encoding())
    if "driving_audio" in names:
        values["driving_audio"] = str(work / "driving.wav")
        write_audio(work / "driving.wav", case.driving_audio, case.audio_rate, codec="pcm_s16le")
    for pool in ("emotion_audio", "neutral_audio"):
        if pool in names:
            (work / pool).mkdir()
            for i, samples in enumerate(getattr(case, pool)):
                write_audio(work / pool / f"{i}.wav", samples, case.audio_rate, codec="pcm_s16le")
            values[pool] = str(work / pool)
    if "target_emotion" in names:
        values["target_emotion"] = emotions.get(case.target_emotion, case.target_emotion)
    if "intensity" in names:
        values["intensity"] = "" if case.intensity is None else str(case.intensity)
    return values


def _write_references(case: Case, folder: Path) -> dict[str, str]:
    """Write the reference frames as PNG files, and return the values of their placeholders."""
    folder.mkdir()
    for i, frame in enumerate(case.reference_frames):
        if not cv2.imwrite(str(folder / f"{i}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)):
            raise OSError(f"cannot write into {folder}")
    return {"reference_images": str(folder), "reference_image": str(folder / "0.png")}


def run_logged(
    command: list[str], folder: Path, environment: Mapping[str, str], deadline_s: float, log: Path, output: Path
) -> int:
    """Run a command with its printed output in `log`, and return its exit status. No process of it is left running.

    Raises:
        ClipError: method-failed if the command cannot be started, or prints or writes too much; deadline if it takes
            too long.
    """
    with log.open("wb") as out:
        try:
            guarded = GuardedProcess(command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT)
        except OSError as error:
            raise ClipError(Reason.METHOD_FAILED, f"cannot start {command[0]}: {error.strerror}") from None
    end = time.monotonic() + deadline_s
    try:
        while True:
            try:
                status = guarded.process.wait(WATCH_S)
                check_sizes(command[0], log, output)
                return status
            except subprocess.TimeoutExpired:
                check_sizes(command[0], log, output)
            if time.monotonic() > end:
                raise ClipError(Reason.DEADLINE, f"{command[0]} took over {deadline_s:g} s and was stopped")
    finally:
        guarded.end()
        if file_size(log) > LOG_BYTES:
            os.truncate(log, LOG_BYTES)


def check_sizes(name: str, log: Path, output: Path) -> None:
    """Raises ClipError, method-failed, if the printed output or the output file of a method is too large."""
    if file_size(log) > LOG_BYTES:
        raise ClipError(Reason.METHOD_FAILED, f"{name} printed over {LOG_BYTES >> 20} MB and was stopped")
    if file_size(output) > OUTPUT_BYTES:
        raise ClipError(Reason.METHOD_FAILED, f"{name} wrote an output of over {OUTPUT_BYTES >> 30} GB and was stopped")


def file_size(path: Path) -> int:
    """Size of a file, bytes; 0 if there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
