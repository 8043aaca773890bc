"""Generation of one pair by one method, as it runs in a worker's child: a video file, and a record that says how."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cmet_baselines.method import Case, CaseSpec, Method, check_output
from cmet_baselines.registry import get_method
from cmet_eval.protocol.pairs import pair_file_name
from cmet_eval.runs.timing import Stopwatch, hardware
from cmet_pipelines.shards import ShardSet
from cmet_reference.clips import bridged
from cmet_reference.geometry import fit_pose, template_of
from cmet_reference.training.checkpoints import look_beside
from talking_face.clip import Pair
from talking_face.files import sha256_of, write_json
from talking_face.media.writing import Encoding, write_video
from talking_face.reasons import ClipError, Reason
from talking_face.signature import digest

# Near-lossless, so that the format costs little next to any method's error, with full chroma.
WRITER = {"codec": "h264", "pix_fmt": "yuv444p", "crf": 10, "preset": "veryfast"}
CODEC = "h264-yuv444p-crf10"


_TRAINING_CLIPS = 512  # that retrieval chooses from: 50 MB of sound


_warm: set[str] = set()  # methods that have made a video in this process


@lru_cache(maxsize=2)
def open_shards(folder: str) -> ShardSet:
    """The shard set of that folder, opened once a process."""
    return ShardSet(folder)


def generation_key(method: str, revision: str, pair: Pair, data_digest: str) -> str:
    """Digest of everything a generated video depends on; a record with another key is out of date."""
    return digest([method, revision, pair.to_row(), data_digest, WRITER])


def make_case(
    shards: ShardSet,
    pair: Pair,
    n_frames: int,
    sees: frozenset[str],
    watch: Stopwatch | None = None,
    log: Path | None = None,
) -> Case:
    """The case of a pair; its arrays are read from the shards when the method asks for them, on `watch`'s time."""

    def truth() -> str:
        if pair.ground_truth_clip is None:
            raise ClipError(Reason.NO_GROUND_TRUTH, f"{pair.pair_id} has no ground-truth clip")
        return pair.ground_truth_clip

    def without_gaps(clip_id: str, track: np.ndarray) -> np.ndarray:
        try:
            return bridged(track)
        except ValueError:
            raise ClipError(Reason.NO_FACE, f"{clip_id} shows no face, so it has no landmarks to go by") from None

    def landmarks(clip_id: str) -> np.ndarray:
        return without_gaps(clip_id, shards.landmarks(clip_id, smoothed=True))

    def references() -> np.ndarray:
        return landmarks(pair.reference_clip)[list(pair.reference_frames)]

    def upper_half() -> np.ndarray:
        frames = shards.frames(truth()).copy()
        frames[:, frames.shape[1] // 2 :] = 0
        return frames

    def true_pose() -> np.ndarray:
        pose = fit_pose(landmarks(truth()), template_of(references()))
        return np.concatenate([pose.rotation * pose.scale[:, None, None], pose.shift[..., None]], axis=2)

    def pool(clips: tuple[str, ...], emotion: str) -> list[np.ndarray]:
        if not clips:
            raise ClipError(
                Reason.UNLABELLED, f"no clip of these shards is labelled {emotion}, so there is no such sound"
            )
        return [shards.audio(clip) for clip in clips]

    reads = watch.reads if watch else lambda loader: loader
    loaders: dict[str, Callable[..., Any]] = {
        "reference_frames": lambda: shards.frames(pair.reference_clip, list(pair.reference_frames)),
        "reference_landmarks": references,
        "source_frames": lambda: shards.frames(pair.source_clip),
        "source_landmarks": lambda: landmarks(pair.source_clip),
        "source_blendshapes": lambda: without_gaps(pair.source_clip, shards.blendshapes(pair.source_clip)),
        "source_audio": lambda: shards.audio(pair.source_clip),
        "driving_audio": lambda: shards.audio(pair.driving_clip),
        "emotion_audio": lambda: pool(pair.emotion_audio, pair.target_emotion),
        "neutral_audio": lambda: pool(pair.neutral_audio, "neutral"),
        "upper_half_frames": upper_half,
        "ground_truth_pose": true_pose,
        "ground_truth_frames": lambda: shards.frames(truth()),
        "ground_truth_landmarks": lambda: landmarks(truth()),
        "other_take_frames": lambda: shards.frames(_other_take(shards, pair, truth())),
        "training_audio": lambda: [shards.audio(clip) for clip in _training_clips(shards)],
        "training_emotions": lambda: (
            shards.clips.set_index("clip_id").loc[_training_clips(shards), "emotion"].to_numpy(str)
        ),
    }
    loaders = {name: reads(loader) for name, loader in loaders.items()}
    loaders["training_frames"] = lambda index: reads(lambda: shards.frames(_training_clips(shards)[index]))()
    size = reads(lambda: shards.frames(pair.reference_clip, [pair.reference_frames[0]]))().shape[1:3]
    spec = CaseSpec(
        pair_id=pair.pair_id,
        setting=pair.setting,
        speaker=pair.speaker,
        n_frames=n_frames,
        size=(int(size[0]), int(size[1])),
        seed=pair.seed,
        target_emotion=pair.target_emotion,
        intensity=pair.intensity,
        file_name=pair_file_name(pair.pair_id),
        log=log,
    )
    return Case(spec, loaders, sees)


def _other_take(shards: ShardSet, pair: Pair, truth: str) -> str:
    """Another clip of the speaker in the target emotion, of another sentence where sentences are known; by hash."""
    clips = shards.clips
    said = clips.set_index("clip_id").at[truth, "sentence_id"]
    rows = clips[(clips["speaker"] == pair.speaker) & (clips["emotion"] == pair.target_emotion)]
    rows = rows[(rows["clip_id"] != truth) & ((rows["sentence_id"] != said) | rows["sentence_id"].isna())]
    if rows.empty:
        raise ClipError(Reason.NO_GROUND_TRUTH, f"{pair.speaker} has no other {pair.target_emotion} clip than {truth}")
    return str(min(rows["clip_id"], key=lambda clip: digest([pair.pair_id, "other-take", clip])))


def _training_clips(shards: ShardSet) -> list[str]:
    """Labelled clips of the training split by id; of more than 512, those whose ids hash lowest."""
    rows = shards.clips[(shards.clips["split"] == "train") & shards.clips["emotion"].notna()]
    if rows.empty:
        raise ClipError(Reason.UNLABELLED, f"{shards.folder} has no labelled clip in a training split")
    return sorted(sorted(rows["clip_id"], key=lambda clip: digest(["training", clip]))[:_TRAINING_CLIPS])


def generate_pair(
    method_name: str, pair: Pair, data: str, n_frames: int, video: str, record: str, key: str, workers: int = 0
) -> None:
    """Generate one pair and write `video` (driving audio muxed in), then `record`, each by an atomic rename.

    `workers`: processes that may run beside one another, for the record's times; 0: not known.

    Raises:
        ClipError: method-failed with the method's own message, or what reading and writing raise.
    """
    shards = open_shards(data)
    look_beside(data)
    watch, warm = Stopwatch(), method_name in _warm
    try:
        # Inside the clock: a method may load its weights when it is made.
        with watch:
            method = _method(method_name)
            _refuse_trained_on(method, pair)
            case = make_case(shards, pair, n_frames, method.sees, watch, Path(record).with_suffix(".log"))
            frames = check_output(method.generate(case))
    except (ClipError, MemoryError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:500]
        raise ClipError(Reason.METHOD_FAILED, f"{method_name}: {type(error).__name__}: {text}") from None
    _warm.add(method_name)
    path = Path(video)
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = shards.audio(pair.driving_clip)
    write_video(path, frames, case.fps, audio, case.audio_rate, Encoding(**WRITER))  # type: ignore[arg-type]
    write_json(
        Path(record),
        {
            "key": key,
            "pair_id": pair.pair_id,
            "method": method_name,
            "revision": method.revision,
            "codec": CODEC,
            "n_frames": len(frames),
            "n_frames_wanted": n_frames,
            "notes": case.notes,
            "video_sha256": sha256_of(path),
            "timing": {
                "seconds": watch.seconds,
                "reading": watch.reading,
                "warm": warm,
                "hardware": hardware(),
                "workers": workers,
            },
        },
    )


def _refuse_trained_on(method: Method, pair: Pair) -> None:
    """Raises ClipError where the method's weights were fitted to a clip of the pair, or to its speaker's."""
    learnt: frozenset[str] = getattr(method, "trained_on", frozenset())
    clips = {pair.reference_clip, pair.source_clip, pair.driving_clip, pair.ground_truth_clip}
    if both := sorted(clip for clip in clips if clip in learnt):
        raise ClipError(
            Reason.TRAINED_ON, f"{method.name} was trained on {both[0]}; score it on clips that it has not seen"
        )


@cache
def _method(name: str) -> Method:
    return get_method(name)
