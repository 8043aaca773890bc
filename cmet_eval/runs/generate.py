"""Generates the video of one pair with one method, and writes a record of the video.

The functions run in the child process of a worker.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TypedDict, TypeGuard

import numpy as np

from cmet_baselines.adapters.recipe import RecipeMethod
from cmet_baselines.adapters.videos import VideosMethod
from cmet_baselines.method import Case, Method, check_output
from cmet_baselines.registry import get_method, shown
from cmet_eval.measuring.job import MAX_VIDEO_BYTES
from cmet_eval.measuring.score_records import write_record
from cmet_eval.runs.cases import make_case
from cmet_eval.runs.leakage import refuse_training_data
from cmet_eval.runs.records import GenerationRecord, Timing
from cmet_eval.runs.timing import Stopwatch, hardware
from cmet_pipelines.shards import ShardSet
from talking_face.clip import Pair
from talking_face.files import open_regular, replacing, sha256_of
from talking_face.lines import one_line
from talking_face.media import probe
from talking_face.media.writing import Encoding, write_video
from talking_face.names import storable
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason
from talking_face.sealed import Damaged
from talking_face.signature import digest


class VideoFormat(TypedDict):
    """How generated videos are encoded; see `Encoding`."""

    codec: str
    pix_fmt: str
    crf: int
    preset: str


# Nearly lossless and with full colour resolution: the encoding error is small compared with the error of any method.
WRITER: VideoFormat = {"codec": "h264", "pix_fmt": "yuv444p", "crf": 10, "preset": "veryfast"}
CODEC = "h264-yuv444p-crf10"


warm_methods: set[str] = set()  # methods that have already generated a video in this process
_recipes: dict[str, RecipeMethod] = {}  # the recipe whose process has its models in memory, by the method's name


@dataclass(frozen=True)
class GenerationJob:
    """One video to generate."""

    method: str  # name of a method in the catalogue, path of a .toml file, or module:Class
    pair: Pair
    data: str  # folder of the shard set
    n_frames: int  # number of frames that the method must generate
    video: str  # path of the file to write
    record: str  # path of the video's record
    key: str  # result of `generation_key`
    files: ModelFiles  # folders in which the method's model files are searched for
    workers: int = 0  # number of processes that can run at the same time, stored with the times; 0: unknown


@lru_cache(maxsize=2)
def open_shards(folder: str) -> ShardSet:
    """The shard set in the folder. Each process opens it only once."""
    return ShardSet(folder)


def generation_key(method: Method, pair: Pair, data_digest: str) -> str:
    """Digest of everything that a generated video depends on. If a record has another key, its video is out of date."""
    writer: object = "copy" if _finished(method) else WRITER
    return digest([method.name, method.revision, pair.to_row(), data_digest, writer])


def generate_pair(job: GenerationJob) -> None:
    """Generates one video with the driving audio as its sound, then writes the video's record.

    A video that is already finished is copied, with its own sound and without a new encoding. Each file gets its final
    name by an atomic rename.

    Raises:
        ClipError: the method failed (reason `method-failed`, with the method's message), or a file could not be read or
            written.
    """
    try:
        _generate(job)
    except ClipError as error:
        raise ClipError(error.reason, storable(error.detail, folders=_folders(job))) from None


def _folders(job: GenerationJob) -> tuple[Path, ...]:
    """The folders that a message of the method or the suite can name."""
    own = (Path(job.method).parent,) if job.method.endswith(".toml") else ()
    return (Path(job.video).parent, Path(job.record).parent, Path(job.data), *own)


def _generate(job: GenerationJob) -> None:
    shards = open_shards(job.data)
    stopwatch, warm = Stopwatch(), job.method in warm_methods
    method, case, made = _call_method(job, shards, stopwatch)
    warm_methods.add(job.method)
    path = Path(job.video)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(made, Path):
        codec, n_frames = _copy(made, path)
    else:
        write_video(path, made, case.fps, shards.audio(job.pair.driving_clip), case.audio_rate, Encoding(**WRITER))
        codec, n_frames = CODEC, len(made)
    timing = Timing(stopwatch.seconds, stopwatch.reading, warm, hardware(), job.workers)
    record = GenerationRecord(
        key=job.key,
        pair_id=job.pair.pair_id,
        method=method.name,
        revision=method.revision,
        codec=codec,
        n_frames=n_frames,
        n_frames_wanted=job.n_frames,
        notes=[storable(note, folders=_folders(job)) for note in case.notes],
        video_sha256=sha256_of(path),
        # The videos of a folder were not generated here, so that no time was measured.
        timing=None if isinstance(method, VideosMethod) else timing,
    )
    write_record(Path(job.record), record)


def _finished(method: Method) -> TypeGuard[VideosMethod]:
    """Whether the videos of the method are finished, and are scored as they are."""
    return isinstance(method, VideosMethod) and method.keeps_files


def _copy(source: Path, target: Path) -> tuple[str, int]:
    """Copies a finished video. Returns its codec and the number of frames that its header states (0: unknown).

    Raises ClipError: too-large, unreadable, no-video, or a reason of `probe`.
    """
    try:
        if source.stat().st_size > MAX_VIDEO_BYTES:
            raise ClipError(Reason.TOO_LARGE, f"{source.name} is larger than {MAX_VIDEO_BYTES >> 30} GB")
        video = probe(source).video
        if video is None:
            raise ClipError(Reason.NO_VIDEO, f"{source.name} has no picture")
        with open_regular(source) as file, replacing(target) as temporary, temporary.open("wb") as copy:
            shutil.copyfileobj(file, copy)
    except PermissionError as error:
        raise ClipError(Reason.UNREADABLE, f"{source.name} cannot be read: {error.strerror}") from None
    return f"{video.codec}-{video.pix_fmt}", video.n_frames


def _call_method(job: GenerationJob, shards: ShardSet, stopwatch: Stopwatch) -> tuple[Method, Case, np.ndarray | Path]:
    """Creates the method and the case, and generates the frames. An exception of the method becomes a ClipError.

    If the videos of the method are finished, the path of the video takes the place of the frames.
    """
    try:
        # The creation of the method is included in the measured time, because some methods load their weights then.
        with stopwatch:
            method = _method(job.method, job.files)
            refuse_training_clips(method, job.pair)
            if isinstance(method, RecipeMethod):
                refuse_training_data(method, job.pair, shards)
                _keep_only(job.method, method)
            log = Path(job.record).with_suffix(".log")
            case = make_case(shards, job.pair, job.n_frames, method.sees, stopwatch, log)
            return method, case, method.file(case) if _finished(method) else check_output(method.generate(case))
    except (ClipError, Damaged, MemoryError):
        raise
    except Exception as error:
        text = one_line(error, 500)
        raise ClipError(Reason.METHOD_FAILED, f"{shown(job.method)}: {type(error).__name__}: {text}") from None


def _keep_only(name: str, method: RecipeMethod) -> None:
    """Ends the process of the previous recipe, so that this process holds the models of one recipe (1 to 4 GB)."""
    for other in _recipes.keys() - {name}:
        _recipes.pop(other).close()
        warm_methods.discard(other)
    _recipes[name] = method


def refuse_training_clips(method: Method, pair: Pair) -> None:
    """Raises ClipError if the method was trained on a clip of the pair."""
    learnt: frozenset[str] = getattr(method, "trained_on", frozenset())
    clips = {pair.reference_clip, pair.source_clip, pair.driving_clip, pair.ground_truth_clip}
    # "mead/M005/*" means all clips of a speaker. An imported checkpoint records no single clips.
    folders = tuple(name[:-1] for name in learnt if name.endswith("/*"))
    if both := sorted(str(c) for c in clips if c in learnt or (folders and str(c).startswith(folders))):
        raise ClipError(
            Reason.TRAINED_ON, f"{method.name} was trained on {both[0]}; score it on clips that it has not seen"
        )


@cache
def _method(name: str, files: ModelFiles) -> Method:
    return get_method(name, files)
