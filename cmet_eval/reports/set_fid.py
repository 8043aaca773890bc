"""Report: FID of each method, computed from the frames of all videos of the method together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cmet_eval.measuring.scoring import default_deadline
from cmet_eval.protocol.pair_files import read_pairs
from cmet_eval.protocol.pairs import PairList, pair_file_name
from cmet_eval.reports.report import Line, Report, table, text, work_on_clips
from cmet_eval.runs.generate import open_shards
from cmet_leaderboards.statistics import common_pairs
from cmet_metrics.base import Sample
from cmet_metrics.fid import DatasetFid, FeatureSums
from cmet_pipelines.shards import ShardSet
from talking_face.execution.options import RunOptions
from talking_face.execution.stage import allow_seconds
from talking_face.files import sha256_of, unchanged
from talking_face.media.reading import read_frames
from talking_face.names import file_name_of
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError
from talking_face.sealed import Damaged, discard, read_sealed_table, write_sealed_table
from talking_face.signature import digest

HEAD = (
    *("setting", "method", "fid", "n", "expected", "frames", "real_frames", "compared", "signature", "pairs_digest"),
)


class _Features(NamedTuple):
    """The files with the Inception features of one pair: one file for the video, one file for the ground truth."""

    video: Path
    truth: Path

    def exist(self) -> bool:
        return self.video.exists() and self.truth.exists()


@dataclass
class _Store:
    """The folder of stored features, RUN/features, and the tasks that compute features without a stored file."""

    run: Path
    data: Path
    signature: str
    files: ModelFiles
    tasks: dict[str, tuple[object, ...]] = field(default_factory=dict)

    def path(self, kind: str, place: str, what: Sequence[str]) -> Path:
        """The file of the features of a video or a clip. If the file is absent, a task that writes the file is added.

        `kind` is "video" or "clip". `place` is the path of the video or the id of the clip. `what` holds values that
        identify the content, for example a hash.
        """
        key = digest([kind, *what, self.signature], 32)
        path = self.run / "features" / key[:2] / f"{key}.parquet"
        if _read_features(path) is None:
            self.tasks[key] = (kind, str(self.data), place, what[0], str(path), self.files)
        return path


def dataset_fid(run: Path, data: Path, options: RunOptions | None = None, files: ModelFiles | None = None) -> Report:
    """`fid:dataset` of every method in every setting of a run.

    The frames of all videos of a method are compared with the frames of the ground truths of these videos. If several
    pairs have the same ground truth, its frames count several times. The features of each video and clip are stored in
    RUN/features. The features take 8 kB per frame.

    Args:
        run: folder of `cmet-eval run`.
        data: folder of the shard set from which the run's pairs were drawn.
        options: worker processes, and whether progress is printed.
        files: folders with the file of the Inception network; None: the folders in the environment variables.

    Raises:
        MissingWeights: the file of the Inception network is absent.
        UserError: the folder `run` contains no pair lists, or its pairs were drawn from other data.
    """
    from talking_face.pretrained import inception
    from talking_face.pretrained.store import weight_path

    files = files or ModelFiles.from_environment()
    weight_path(inception.NAME, files)
    shards, signature = ShardSet(data), str(DatasetFid(files).signature())
    lists = [read_pairs(path) for path in sorted((run / "pairs").glob("*.parquet"))]
    if not lists:
        raise UserError(f"no pair lists in {run / 'pairs'}; give the folder of a cmet-eval run")
    store = _Store(run, data, signature, files)
    sets = [(pair_list, _features(pair_list, shards, store)) for pair_list in lists]
    work_on_clips("cmet_eval.reports.set_fid:video_features", store.tasks, "features", options or RunOptions())
    rows = [row for pair_list, found in sets for row in _rows(pair_list, found, signature)]
    markdown = text(
        "# FID over a set",
        "Frames of all videos against the frames of all their ground truths, pooled. Methods are compared on the pairs "
        "that all of them have. Biased upwards, the more the fewer frames: under 10,000 a side it compares with "
        "nothing outside this table. It has no interval: leaving out a speaker would take 10 s each and change "
        "the bias.",
        table(HEAD[:8], [row[:8] for row in rows]),
        f"Signature: `{signature}`. Data: `{shards.digest}`.",
    )
    return Report("fid", markdown, HEAD, tuple(rows))


def _features(pair_list: PairList, shards: ShardSet, store: _Store) -> dict[str, dict[str, _Features]]:
    """Method -> pair_id -> the pair's feature files. Pairs without a video or without a ground truth are left out."""
    if pair_list.data_digest != shards.digest:
        raise UserError(f"the pairs of {pair_list.setting} were drawn from other data than {shards.folder}")
    found: dict[str, dict[str, _Features]] = {}
    for folder in sorted(store.run.glob(f"videos/*/{file_name_of(pair_list.setting)}")):
        for pair in pair_list.pairs:
            video, clip = folder / f"{pair_file_name(pair.pair_id)}.mp4", pair.ground_truth_clip
            if clip is not None and video.exists():
                files = _Features(
                    store.path("video", str(video), [sha256_of(video)]),
                    store.path("clip", clip, [shards.digest, clip]),
                )
                found.setdefault(folder.parent.name, {})[pair.pair_id] = files
    return found


def _rows(pair_list: PairList, found: Mapping[str, Mapping[str, _Features]], signature: str) -> list[Line]:
    """The report's rows for one setting, one per method."""
    expected = sum(pair.ground_truth_clip is not None for pair in pair_list.pairs)
    complete = {m: {pair: files for pair, files in by.items() if files.exist()} for m, by in found.items()}
    compared, shared = common_pairs({m: frozenset(by) for m, by in complete.items()}, expected)
    rows: list[Line] = []
    for method, by_pair in complete.items():
        use = sorted(shared if method in compared else by_pair)
        value, frames, real_frames = None, 0, 0
        if use:
            made = _pooled([by_pair[pair].video for pair in use])
            real = _pooled([by_pair[pair].truth for pair in use])
            value, frames, real_frames = DatasetFid().value(made, real), made.n, real.n
        numbers = (value, len(use), expected, frames, real_frames, method in compared)
        rows.append((pair_list.setting, method, *numbers, signature, pair_list.digest))
    return rows


def video_features(kind: str, data: str, place: str, sha256: str, path: str, files: ModelFiles) -> None:
    """Writes the Inception features, (T, 2048), of one video or clip to `path`; runs in a worker's child process.

    Raises ClipError if the video has not, or no longer, the SHA-256 `sha256`. For a clip, `sha256` is not used.
    """
    from cmet_metrics.fid import inception_features

    if kind == "clip":
        frames = open_shards(data).frames(place)
    else:
        with unchanged(Path(place), sha256):
            frames = read_frames(Path(place), 25.0)
    allow_seconds(default_deadline(len(frames)))
    found = inception_features(Sample(frames, name=Path(place).name), files).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), found.shape[1])
    write_sealed_table(pa.table({"features": column}), Path(path), compression="none")


def _read_features(path: Path) -> np.ndarray | None:
    """The features in a file, (T, 2048) float32; None if it is absent or damaged.

    A damaged file is removed with a message.
    """
    try:
        column = read_sealed_table(path, "the report computes the features again")["features"].combine_chunks()
    except FileNotFoundError:
        return None
    except Damaged as error:
        discard(error)
        return None
    return column.flatten().to_numpy().reshape(len(column), -1)


def _pooled(paths: Sequence[Path]) -> FeatureSums:
    total: FeatureSums | None = None
    for path in paths:
        features = _read_features(path)
        if features is None:
            raise UserError(f"{path} was removed while the report was made; run the same command again")
        total = FeatureSums.of(features) if total is None else total + FeatureSums.of(features)
    assert total is not None
    return total
