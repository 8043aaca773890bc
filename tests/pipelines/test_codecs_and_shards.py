"""Frame codecs are lossless or exact where they claim it; shards follow from the manifest and are read by column."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cmet_pipelines.codec_table import mean_psnr
from cmet_pipelines.frames_codec import DEFAULT_CODEC, LOSSLESS_CODEC, get_codec
from cmet_pipelines.preprocess import Selection, preprocess
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.readers.clips import ClipsOptions
from cmet_pipelines.shard_files import clips_per_shard, plan, write_shard
from cmet_pipelines.shards import ShardSet
from talking_face.reasons import UserError
from talking_face.sealed import write_sealed_json
from talking_face.signature import Signature
from tests.pipelines.run_options import QUIET


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """(30, 64, 64, 3): a moving gradient with some grain, so that order and colour order matter."""
    rng = np.random.default_rng(0)
    y, x, t = np.mgrid[:64, :64, :30]
    picture = np.stack([2 * x + 3 * t, 3 * y, 120 + 40 * np.sin(x / 9 + t)], -1).transpose(2, 0, 1, 3)
    return np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["png", "webp-lossless", "ffv1", "x264rgb-lossless", "x264rgb-lossless-gop10"])
def test_lossless_is_lossless(name: str, frames: np.ndarray) -> None:
    codec = get_codec(name)
    assert codec.lossless and np.array_equal(codec.decode(codec.encode(frames)), frames)


@pytest.mark.parametrize(
    "name", ["jpeg-q97", "jpeg420-q90", "webp-q90", "x264-q8", "x264-q8-gop10", "x264rgb-q10-gop25", "ffv1"]
)
def test_random_access_and_determinism(name: str, frames: np.ndarray) -> None:
    codec = get_codec(name)
    stored = codec.encode(frames)
    assert stored == codec.encode(frames)
    whole = codec.decode(stored)
    assert whole.shape == frames.shape and whole.flags.c_contiguous
    assert mean_psnr(frames, whole) > 25
    wanted = [29, 0, 12, 12, 25, 3]
    assert np.array_equal(codec.decode(stored, wanted), whole[wanted])
    with pytest.raises(IndexError):
        codec.decode(stored, [30])


@pytest.mark.parametrize("name", ["jpeg", "png-q3", "x264-q52", "webp-q101", "mpeg4", "ffv1-q2"])
def test_unknown_codecs_are_told(name: str) -> None:
    with pytest.raises(ValueError, match=f"default is {DEFAULT_CODEC}"):
        get_codec(name)


def test_the_default_keeps_45_db_on_real_faces(real_clips: list[Path], tmp_path: Path) -> None:
    """A shard's frames against the crop before encoding, which the lossless setting keeps."""
    folder = real_clips[0].parent
    lossy = ShardSet(preprocess("clips", folder, tmp_path / "a", run=QUIET, selection=Selection(limit=2)).out)
    exact_settings = ProcessingSettings(codec=LOSSLESS_CODEC)
    exact = ShardSet(
        preprocess("clips", folder, tmp_path / "b", exact_settings, run=QUIET, selection=Selection(limit=2)).out
    )
    for clip_id in lossy.clips["clip_id"]:
        assert mean_psnr(exact.frames(clip_id), lossy.frames(clip_id)) >= 45
        assert np.array_equal(exact.landmarks(clip_id), lossy.landmarks(clip_id))
        assert lossy.valid(clip_id).mean() >= 0.99 and len(lossy.valid(clip_id)) == 75
    assert lossy.signature != exact.signature and lossy.digest != exact.digest
    assert "codec:jpeg-q97" in lossy.signature and "codec:ffv1" in exact.signature


def test_signature_holds_content_and_nothing_else() -> None:
    base = ProcessingSettings()
    assert Signature.parse(str(base.signature())) == base.signature()
    clips = ClipsOptions()
    content = base.content("clips", clips)
    assert content == ProcessingSettings(deadline_s=1).content("clips", ClipsOptions(labels=Path("x.csv")))
    for change in ({"size": 128}, {"codec": "ffv1"}, {"enlarge": 1.6}, {"min_frames": 9}, {"require_audio": False}):
        other = ProcessingSettings.model_validate(change)
        assert other.signature() != base.signature() and other.content("clips", clips) != content
    with pytest.raises(ValueError, match="fsp"):
        ProcessingSettings.model_validate({"fsp": 25})


def test_plan_depends_on_the_manifest_alone() -> None:
    ids = [f"c{n:03d}" for n in range(30)]
    shards = plan(ids[::-1], 8)
    assert [len(shard) for shard in shards] == [8, 8, 8, 6] and [*chain(*shards)] == ids
    assert plan([], 8) == []
    assert clips_per_shard(256, get_codec(DEFAULT_CODEC)) % 8 == 0
    assert 8 <= clips_per_shard(1024, get_codec("png")) < clips_per_shard(64, get_codec(DEFAULT_CODEC)) <= 512


def test_columns_are_read_alone_and_row_groups_are_small(small_mead: Path, tmp_path: Path) -> None:
    out = preprocess("mead", small_mead, tmp_path / "out", run=QUIET, selection=Selection(limit=3)).out
    (shard,) = (out / "shards").iterdir()
    with pq.ParquetFile(shard) as file:
        meta = file.metadata
        sizes = {
            meta.row_group(0).column(i).path_in_schema.split(".")[0]: meta.row_group(0).column(i).total_compressed_size
            for i in range(meta.num_columns)
        }
        assert all(meta.row_group(group).num_rows <= 8 for group in range(meta.num_row_groups))
        assert sizes["landmarks"] * 3 < sizes["frames"]  # so reading landmarks touches a fraction of the bytes
        rows = [file.read_row_group(group) for group in range(meta.num_row_groups)]
    write_shard(tmp_path / "again.parquet", rows)
    assert (tmp_path / "again.parquet").read_bytes() == shard.read_bytes()


def test_an_unfinished_folder_is_told(small_mead: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no shards"):
        ShardSet(tmp_path)
    out = preprocess("mead", small_mead, tmp_path / "out", run=QUIET, selection=Selection(limit=1)).out
    write_sealed_json(out / "dataset.json", {**ShardSet(out).card, "complete": False})
    with pytest.raises(UserError, match="not finished"):
        ShardSet(out)
