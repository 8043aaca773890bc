"""What EBM's training computes for all clips is kept beside the shards, and is not computed again on resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmet_reference.cem_net import aee, ebm, ebm_stage
from cmet_reference.cem_net.audio2mouth import Audio2Mouth
from tests.cmet_eval.conftest import make_record, write_shard_set
from tests.cmet_reference.cem_net_parts import clips_of, small, small_aee
from tests.models import models


def test_lips_and_emotions_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [make_record(0, 16, clip_id=c.clip_id, speaker=c.speaker, split="train") for c in clips_of()]
    clips = [replace(clip, folder=write_shard_set(tmp_path / "s", records)) for clip in clips_of()[:1]]
    clips += [replace(clip, folder=clips[0].folder) for clip in clips_of()[1:]]
    net, encoder = small().eval(), small_aee().eval()

    def stage(keep: bool, seed: int = 0) -> ebm_stage.EbmStage:
        sizes = ebm.EbmNetSettings(slots=4, width=8, hidden=8, picture_emotion=4)
        fixed = ebm_stage.FixedNetworks(net, encoder, models(), keep)
        return ebm_stage.EbmStage(sizes, ebm_stage.EbmSettings(1), ebm.EbmLossWeights(), fixed, clips, [], seed)

    plain, first = stage(keep=False), stage(keep=True)

    def fails(*_: object) -> np.ndarray:
        raise AssertionError("computed again")

    monkeypatch.setattr(Audio2Mouth, "mouth", fails)
    monkeypatch.setattr(aee.AEE, "emotion", fails)
    second = stage(keep=True)
    for a, b, c in zip(plain.pairs, first.pairs, second.pairs, strict=True):
        assert a.source is b.source is c.source and a.face.clip.clip_id == c.face.clip.clip_id
        assert np.array_equal(a.lips, b.lips) and np.array_equal(b.lips, c.lips)
        assert np.array_equal(a.audio_emotion, b.audio_emotion) and np.array_equal(b.audio_emotion, c.audio_emotion)
    with pytest.raises(AssertionError, match="computed again"):
        stage(keep=True, seed=1)  # other pairs
