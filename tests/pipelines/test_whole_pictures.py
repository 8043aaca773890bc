"""Shards with `--align none` hold whole pictures, each clip at its own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmet_pipelines.preprocess import preprocess
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.shards import ShardSet
from talking_face.media import read_frames
from talking_face.media.writing import write_video
from talking_face.reasons import UserError
from tests.pipelines.run_options import QUIET

SIZES = {"a": (288, 360), "b": (201, 255)}  # height, width


@pytest.fixture(scope="module")
def files(real_clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of one person, of different sizes, one of them odd."""
    root = tmp_path_factory.mktemp("whole") / "real"
    root.mkdir()
    frames = read_frames(real_clips[0])[:8]
    for name, (height, width) in SIZES.items():
        write_video(root / f"{name}.mp4", frames[:, -height:, 40 : 40 + width] if width < 360 else frames, 25.0)
    return root


@pytest.mark.parametrize(("codec", "floor"), [("jpeg-q97", 45.0), ("ffv1", np.inf)])
def test_a_shard_of_whole_pictures_equals_its_files_up_to_the_codec(
    codec: str, floor: float, files: Path, tmp_path: Path
) -> None:
    settings = ProcessingSettings(align="none", codec=codec, require_audio=False)
    preprocess("clips", files, tmp_path / "shards", settings, run=QUIET)
    shards = ShardSet(tmp_path / "shards")
    assert "|crop:none|" in shards.signature and set(shards.clips["size"]) == {0}
    for clip, source in zip(shards.clips["clip_id"], shards.clips["source"], strict=True):
        stored, file = shards.frames(clip), read_frames(files / source)
        assert stored.shape[1:3] == SIZES[Path(source).stem] and stored.shape == file.shape
        with np.errstate(divide="ignore"):
            errors = np.square(stored.astype(np.float64) - file).mean(axis=(1, 2, 3))
            assert (10 * np.log10(255**2 / errors)).min() >= floor
        assert np.array_equal(shards.crop_transform(clip), np.repeat(np.eye(2, 3)[None], len(file), axis=0))
        points = shards.landmarks(clip)[..., :2]
        assert 80 < np.ptp(points[..., 1], axis=1).mean() < 200  # the face of the picture, in its own pixels


def test_a_size_is_refused_for_whole_pictures_and_out_of_range_for_crops() -> None:
    assert ProcessingSettings(align="none").size == 0
    for settings in ({"align": "none", "size": 256}, {"size": 0}, {"align": "ffhq", "size": 4096}):
        with pytest.raises((UserError, ValueError), match=r"own size|16 to 2048"):
            ProcessingSettings(**settings)
