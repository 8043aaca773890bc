"""C-MET: its training stage, generation, the authors' codecs on stand-ins, the ablation."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cmet_reference.cmet import ablation, figures, generate, losses
from cmet_reference.cmet.codec import Face
from cmet_reference.cmet.connector import Connector, ConnectorSettings
from cmet_reference.cmet.data import Sampling
from cmet_reference.cmet.generate import CMetFace
from cmet_reference.cmet.train import CMetSettings, CMetStage, read_settings
from cmet_reference.training import checkpoints, config
from talking_face.emotions import EMOTIONS
from talking_face.pretrained.store import MissingWeights
from talking_face.reasons import ClipError, UserError
from tests import edtalk_stand_in
from tests.cmet_eval.conftest import make_record, write_shard_set
from tests.cmet_reference.cmet_parts import SMALL, clips_of, stage_of
from tests.models import models


@pytest.fixture(scope="module")
def stage() -> CMetStage:
    return stage_of()


def _tensors(stage: CMetStage, step: int) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in stage.batch(step).items()}


@pytest.mark.parametrize("reference", ["released", "predicted"])
def test_gradients_reach_every_parameter(reference: str) -> None:
    stage = stage_of(reference=reference, reconstruction="bmse")
    stage.net.train()
    loss, parts = stage.loss(_tensors(stage, 0), "net")
    loss.backward()
    assert set(parts) == {"reconstruction", "contrast", "direction"}
    # A convolution's bias before batch norm has a gradient of rounding only, but it is reached.
    assert [name for name, p in stage.net.named_parameters() if p.grad is None] == []


def test_one_batch_overfits_and_the_same_seed_gives_the_same_weights() -> None:
    ends = []
    for steps in (40, 4, 4):
        stage = stage_of()
        batch, optimizer = _tensors(stage, 0), torch.optim.AdamW(stage.net.parameters(), lr=1e-2)
        stage.net.train()
        torch.manual_seed(0)
        curve = []
        for _ in range(steps):
            loss, parts = stage.loss(batch, "net")
            curve.append(float(parts["reconstruction"].detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if steps == 40:
            assert curve[-1] < 0.2 * curve[0]
        ends.append(torch.cat([p.detach().flatten() for p in stage.net.parameters()]))
    assert torch.equal(ends[1], ends[2])


def test_held_out_figures_know_a_perfect_and_a_useless_prediction(
    stage: CMetStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stage.held_out_clips is not None
    lookup = stage.net.label_codes.numpy()
    seen = iter(range(100))
    order = [e for e in EMOTIONS if e != "neutral"] * 2

    def perfect(connector: object, speech_vectors: np.ndarray, codes: np.ndarray, reference: str) -> np.ndarray:
        next(seen)
        return np.stack([np.repeat(lookup[EMOTIONS.index(e)][None], codes.shape[1], axis=0) for e in order])

    monkeypatch.setattr(figures, "predict", perfect)
    result = figures.directions(stage.net.connector, stage.held_out_clips, lookup, stage.pool_encoder)
    assert result["cosine"] == pytest.approx(result["cosine_lookup"])
    assert result["emotion_accuracy"] == 1.0
    monkeypatch.setattr(figures, "predict", lambda c, h, codes, r: np.ones_like(codes))  # the same for every emotion
    assert figures.directions(stage.net.connector, stage.held_out_clips, lookup, stage.pool_encoder)["cosine"] == 0.0


def test_no_figures_without_neutral_training_clips(stage: CMetStage) -> None:
    assert stage.held_out_clips is not None
    nothing = np.zeros_like(stage.net.label_codes.numpy())
    assert figures.directions(stage.net.connector, stage.held_out_clips, nothing, stage.pool_encoder) == {}


def test_configurations_are_read_and_unknown_fields_refused() -> None:
    adapted, demo = (read_settings(config.load("cmet_reference.cmet", name)) for name in ("adapted", "demo"))
    assert replace(adapted.connector, speech=1024) == ConnectorSettings()
    assert adapted.losses == losses.LossSettings()
    assert adapted.sampling == Sampling()
    assert (adapted.rate, adapted.weight_decay, adapted.steps) == (1e-4, 1e-5, 200_000)
    assert demo.connector.window == 5
    with pytest.raises(UserError, match="depth"):
        read_settings({"connector": {"depth": 3}})


# -- generation --------------------------------------------------------------------------------------------------------


def test_blocks_refer_to_the_prediction_before(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Connector(SMALL)
    seen = []
    real = Connector.forward

    def forward(self: Connector, reference: torch.Tensor, speech_vectors: torch.Tensor, codes: torch.Tensor) -> object:
        out = real(self, reference, speech_vectors, codes)
        seen.append((reference, out[0]))
        return out

    monkeypatch.setattr(Connector, "forward", forward)
    out = figures.predict(net, np.ones((2, 6)), np.random.default_rng(0).normal(size=(2, 12, 10)))
    assert out.shape == (2, 12, 10)
    assert len(seen) == 3
    assert not seen[0][0].any()
    assert torch.equal(seen[1][0], seen[0][1])
    assert torch.equal(seen[2][0], seen[1][1])


def test_released_tracks_drop_twenty_frames_and_go_back_and_forth() -> None:
    net, codes = Connector(SMALL), np.random.default_rng(0).normal(size=(33, 10)).astype(np.float32)
    whole = generate.expression_track(net, np.ones(6), codes, 33, generate.Inference())
    released = generate.expression_track(net, np.ones(6), codes, 33, generate.RELEASED)
    np.testing.assert_array_equal(released[:10], whole[:10])  # 30 in whole blocks, 10 left
    np.testing.assert_array_equal(released[10:20], whole[:10][::-1])
    # The longer track is mirrored as a whole: 10, 20, 40 frames.
    np.testing.assert_array_equal(released[20:33], released[:20][::-1][:13])
    with pytest.raises(ClipError, match="20 frames"):
        generate.expression_track(net, np.ones(6), codes[:24], 33, generate.RELEASED)


# -- the authors' codecs, on stand-ins of the form of their repositories -----------------------------------------------


def test_the_edtalk_codec_loads_a_checkout_and_its_weights(tmp_path: Path) -> None:
    from cmet_reference.cmet import edtalk

    with pytest.raises(UserError, match="not a checkout of EDTalk"):
        edtalk.EDTalkCodec(tmp_path)
    edtalk_stand_in.write_code(tmp_path)
    with pytest.raises(UserError, match=r"EDTalk\.pt is absent"):
        edtalk.EDTalkCodec(tmp_path)
    weights = tmp_path / "pretrained_weights"
    weights.mkdir()
    module = edtalk.import_from(tmp_path / "networks", "generator")
    state = module.Generator(256, 512, 20, 6, 10, 1).state_dict()
    lips = edtalk.import_from(tmp_path / "networks", "audio_encoder").Audio2Lip().state_dict()
    torch.save({"gen": state}, weights / "EDTalk.pt")
    torch.save({"audio2lip": lips, "optimizer": Path("x")}, weights / "Audio2Lip.pt")
    with pytest.raises(UserError, match=r"Audio2Lip\.pt cannot be read as tensors"):
        edtalk.EDTalkCodec(tmp_path)
    torch.save({"audio2lip": lips}, weights / "Audio2Lip.pt")
    codec = edtalk.EDTalkCodec(tmp_path)
    frames = np.stack([np.full((32, 24, 3), v, np.uint8) for v in (0, 128, 255)])
    face = Face(frames)
    codes = codec.encode(face)
    w = {name: value.numpy() for name, value in state.items()}
    styles = np.array([-1, 128 / 127.5 - 1, 1])[:, None] * w["enc.conv.weight"].sum((1, 2, 3)) + w["enc.conv.bias"]
    shared = styles @ w["fc.weight"].T + w["fc.bias"]
    expected = shared @ w["exp_fc.weight"].T + w["exp_fc.bias"]
    np.testing.assert_allclose(codes, expected, atol=1e-5)
    speech_vectors = codec.lips(np.zeros(640 * 4, np.int16), face, 4)
    assert speech_vectors.shape == (4, 20)
    video = codec.decode(face, speech_vectors, face, np.full((2, 10), 0.05, np.float32))
    assert video.shape == (4, 256, 256, 3)
    poses = (shared @ w["pose_fc.weight"].T + w["pose_fc.bias"])[[0, 1, 2, 2]]
    moved = styles[0].mean() + np.hstack([speech_vectors, poses, np.full((4, 10), 0.05)]).mean(axis=1)
    grey = ((0.5 - moved).clip(-1, 1) + 1) * 127.5  # ten codes of 0.05 are 0.5; the picture of the identity is -1
    assert np.abs(video - grey[:, None, None, None]).max() <= 0.51
    with pytest.raises(ClipError, match="frames"):
        codec.encode(Face(landmarks=np.zeros((1, 478, 3))))


def test_the_pd_fgc_codec_says_what_is_missing(tmp_path: Path) -> None:
    from cmet_reference.cmet import pd_fgc

    with pytest.raises(UserError, match="not a checkout of PD-FGC"):
        pd_fgc.PDFGCCodec(tmp_path)


def test_a_checkpoint_of_an_earlier_version_says_what_to_run(stage: CMetStage, tmp_path: Path) -> None:
    path, record = tmp_path / "cmet.safetensors", dict(stage.record())
    text = "was trained by an earlier version; train again: `cmet-eval train cmet --stage cmet --data SHARDS --fresh`"
    for missing in ("heard", "encoded", "strength"):
        checkpoints.save(path, stage.net.state_dict(), {k: v for k, v in record.items() if k != missing})
        with pytest.raises(UserError, match=re.escape(text)):
            CMetFace(tmp_path, files=models())
    state = {**stage.net.state_dict(), "label_speech": torch.zeros(8, 1)}
    checkpoints.save(path, state, record)
    with pytest.raises(UserError, match=re.escape(text)):
        CMetFace(tmp_path, files=models())


def test_pictures_of_the_ablation_show_several_emotions() -> None:
    """112 combinations and 16, 8 or 4 videos: an even stride would take one emotion only."""
    pools = {"neutral": list(range(16))} | {emotion: [] for emotion in EMOTIONS if emotion != "neutral"}
    for count, least in ((16, 4), (8, 3), (4, 2)):
        cases = ablation.cases_of(pools, count)  # type: ignore[arg-type]
        assert len(set(cases)) == count and len({emotion for _, emotion in cases}) >= least


def test_the_ablation_trains_again_with_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_shard_set(tmp_path / "data", [make_record(0, 12, clip_id="c", speaker="A", split="train")])
    clips = {"train": clips_of(("M1", "W1")), "test": clips_of(("M2",))}
    monkeypatch.setattr(ablation, "read_clips", lambda folders, split="train", quiet=True: clips[split])
    settings = CMetSettings(steps=2, connector=SMALL, sampling=Sampling(batch=4), speech="prosody")
    path = tmp_path / "out" / "losses" / "reconstruction" / "0" / "cmet.safetensors"
    times = []
    for changed in (settings, settings, replace(settings, rate=5e-3)):
        figures_of = ablation.run("losses", data, changed, [0], tmp_path / "out")
        times.append(path.stat().st_mtime_ns)
    assert times[0] == times[1] < times[2]
    assert list(figures_of) == ["reconstruction", "+ contrast", "+ contrast + direction"]
    assert checkpoints.trained_on(path)["data"] == {"main": "d" * 32}
    table = ablation.table_of(figures_of).splitlines()
    assert table[0].startswith("| | ") or table[0].startswith("|  | ")
    assert any(line.startswith("| + contrast + direction minus |") for line in table)
    # Where the evaluators are absent, `pictures` stops before the first training.
    with pytest.raises(MissingWeights, match="train evaluators"):
        ablation.run("losses", data, settings, [0], tmp_path / "pictures", pictures=1)
    assert not (tmp_path / "pictures").exists()
    clips["test"] = []
    with pytest.raises(UserError, match="held-out speakers"):
        ablation.run("losses", data, settings, [0], tmp_path / "none")
