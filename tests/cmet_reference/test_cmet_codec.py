"""C-MET on EDTalk's codec, by the real commands, on a stand-in checkout: training, generation, scores, import."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from cmet_eval.cli import build
from cmet_eval.runs.generate import refuse_training_clips
from cmet_leaderboards.results import read_results
from cmet_pipelines.shards import ShardSet
from cmet_reference import methods
from cmet_reference.cmet import edtalk, generate, pd_fgc, released, speech, train
from cmet_reference.cmet.codec import Face, as_bytes
from cmet_reference.cmet.connector import Connector, ConnectorSettings
from cmet_reference.cmet.store_vectors import store
from cmet_reference.training import checkpoints
from cmet_reference.training.options import TrainOptions
from talking_face.clip import Pair
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason, UserError
from tests.cmet_eval.conftest import make_record, write_shard_set
from tests.edtalk_stand_in import write_checkout
from tests.models import models

EMOTIONS, FRAMES, SIZE = ("neutral", "happy", "sad"), 27, 64
RELEASED_SIZES = ConnectorSettings(width=16, layers=1, heads=2, feed_forward=16)


def command(name: str, *words: object) -> Result:
    return CliRunner().invoke(build(name), [name, *map(str, words)])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards of four speakers, vectors of their clips, a checkout, settings, and a trained C-MET."""
    folder, draw = tmp_path_factory.mktemp("cmet"), np.random.default_rng(0)
    records = []
    for seed, (speaker, emotion, take) in enumerate(itertools.product("ABCD", EMOTIONS, (1, 2))):
        name, split = f"clips/{speaker}/{emotion}/{take}", "train" if speaker in "AB" else "test"
        shapes = draw.random((FRAMES, 52)).astype(np.float32)
        labels = {"clip_id": name, "speaker": speaker, "emotion": emotion, "take": str(take), "split": split}
        records.append(make_record(seed, FRAMES, **labels, blendshapes=shapes))
        (path := folder / "vectors" / f"{name}.npy").parent.mkdir(parents=True, exist_ok=True)
        np.save(path, draw.normal(EMOTIONS.index(emotion), 0.1, 1024).astype(np.float32))
    write_shard_set(folder / "shards", records)
    write_checkout(folder / "EDTalk")
    (folder / "own.toml").write_text(
        f'base = "adapted"\nsteps = 3\ncodec = "edtalk:{folder / "EDTalk"}"\nspeech = "stored:{folder / "vectors"}"\n'
        'inference = "released"\n[connector]\nwidth = 16\nlayers = 1\nheads = 2\nfeed_forward = 16\n'
        "[sampling]\nbatch = 4\n"
    )
    return folder


@pytest.fixture(scope="module")
def trained(world: Path) -> Path:
    """The shard set, with a C-MET that the command trained."""
    result = command("train", "cmet", "--data", world / "shards", "--config", world / "own.toml", "--device", "cpu")
    assert result.exit_code == 0, (result.output, result.exception)
    return world / "shards"


def test_a_method_on_edtalk_needs_its_own_checkpoint_alone_and_ends_on_a_board(
    trained: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(world))  # the checkpoint records `edtalk:EDTalk` and `stored:vectors`
    words = ("--setting", "cross-emotion", "--max-pairs", 4, "--seeds", 1, "--metrics", "psnr:frame-mean", "--quiet")
    run = tmp_path / "run"
    done = command("run", "--method", "cmet", "--method", "source-video", "--data", trained, "--run", run, *words)
    assert done.exit_code == 0, (done.output, done.exception)
    rows = read_results(run / "results").frame()
    ours = rows[rows["method"] == "cmet"]
    assert len(ours) == 4 and ours["value"].notna().all()
    board = command("leaderboard", "--run", tmp_path / "run", "--out", tmp_path / "board")
    assert board.exit_code == 0, board.output
    assert any("cmet" in page.read_text() for page in (tmp_path / "board").rglob("*.md"))


def test_the_revision_follows_the_checkout(trained: Path, world: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="no folder EDTalk here; set CMET_EVAL_WEIGHTS"):
        _ = methods.CMet(models(trained)).revision
    shutil.copytree(world / "EDTalk", tmp_path / "EDTalk")
    shutil.copytree(world / "vectors", tmp_path / "vectors")
    before = methods.CMet(models(trained)).revision
    generate.CMetFace(files=models(trained))
    code = tmp_path / "EDTalk" / "networks" / "generator.py"
    code.write_text(code.read_text() + "\n# changed\n")
    assert methods.CMet(models(trained)).revision != before
    with pytest.raises(UserError, match="the checkout has other code or weights"):
        generate.CMetFace(files=models(trained))


def test_codes_are_computed_once_on_the_device_of_the_training(world: Path, trained: Path, monkeypatch) -> None:
    made, encoded = [], []
    real = edtalk.EDTalkCodec
    monkeypatch.setattr(real, "encode", lambda self, face: encoded.append(face))
    monkeypatch.setattr(edtalk, "EDTalkCodec", lambda *given: made.append(given[1]) or real(*given))
    settings = {"codec": f"edtalk:{world / 'EDTalk'}", "speech": f"stored:{world / 'vectors'}"}
    settings |= {"connector": {"width": 16, "heads": 2, "layers": 1}, "sampling": {"batch": 4}}
    for device in ("cpu", "meta"):
        try:
            train.stages(settings, {"main": trained}, world, TrainOptions(device=device, quiet=True), models())[0]()
        except NotImplementedError:  # torch cannot copy numbers from the meta device
            pass
    assert made[0] == "cpu" and made[-1] == "meta"
    assert encoded == []  # all codes are next to the shards
    (kept,) = (trained / "reference" / "kept").iterdir()
    assert kept.name == f"edtalk-{edtalk.revision_of(world / 'EDTalk')}"
    part = sorted(kept.iterdir())[0]
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    monkeypatch.undo()
    train.stages(settings, {"main": trained}, world, TrainOptions(device="cpu", quiet=True), models())[0]()
    assert part.is_file()  # a damaged file is computed again


def test_absent_vectors_are_counted_before_any_code_is_computed(world: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "vectors", tmp_path / "some")
    (tmp_path / "some/clips/A/happy/1.npy").unlink()
    settings = {"codec": f"edtalk:{world / 'EDTalk'}", "speech": f"stored:{tmp_path / 'some'}"}
    with pytest.raises(UserError, match="1 of 24 clips have no utterance vector, the first is clips/A/happy/1"):
        train.stages(settings, {"main": trained}, world, TrainOptions(device="cpu", quiet=True), models())[0]()


def test_pools_are_found_by_clip_id_or_by_folder(world: Path, tmp_path: Path) -> None:
    stored, sound = speech.StoredVectors(world / "vectors"), np.zeros(640, np.int16)
    ids = [f"clips/{s}/happy/1" for s in "AB"]
    by_id = speech.Utterances([sound, sound], ids).vectors(stored)
    for k, name in enumerate(ids):
        shutil.copy(world / "vectors" / f"{name}.npy", tmp_path / f"{k}.npy")
    np.testing.assert_array_equal(speech.Utterances(folder=tmp_path).vectors(stored), by_id)
    with pytest.raises(ClipError, match="1024 numbers each"):
        speech.Utterances(folder=tmp_path / "none").vectors(stored)
    pooled = tmp_path / "angry/emotion2vec+large_features/M003_level_3_005.npy"
    pooled.parent.mkdir(parents=True)
    np.save(pooled, np.ones(1024))
    assert speech.StoredVectors(tmp_path).encode(sound, "mead/M003/front/angry/3/005").sum() == 1024


def test_vectors_are_written_by_clip_id_and_not_twice(world: Path, tmp_path: Path) -> None:
    shards = ShardSet(world / "shards")
    assert store(shards, speech.Prosody(), tmp_path, quiet=True) == 24
    assert store(shards, speech.Prosody(), tmp_path, quiet=True) == 0
    (tmp_path / "clips/A/happy/1.npy").unlink()
    assert store(shards, speech.Prosody(), tmp_path, quiet=True) == 1
    assert speech.StoredVectors(tmp_path).absent([str(c) for c in shards.clips["clip_id"]]) == []


def test_pictures_are_drawn_in_batches_as_one_by_one_and_stretched_as_released(world: Path) -> None:
    codec, draw = edtalk.EDTalkCodec(world / "EDTalk"), np.random.default_rng(0)
    face = Face(draw.integers(0, 256, (20, SIZE, SIZE, 3), np.uint8))
    lips, codes = (draw.normal(0, 0.1, (n, c)).astype(np.float32) for n, c in ((40, 20), (37, 10)))
    whole = codec.decode(face, lips, face, codes)
    poses = Face(np.concatenate([face.frames, face.frames[-1:].repeat(20, axis=0)]))
    one = [codec.decode(face, lips[i : i + 1], Face(poses.frames[i : i + 1]), codes[[min(i, 36)]]) for i in range(40)]
    assert np.abs(whole.astype(int) - np.concatenate(one)).max() <= 1
    video = torch.tensor([-2.0, -0.5, 0.2, 0.5]).reshape(4, 1, 1, 1).expand(4, 3, 1, 1)
    assert as_bytes(video)[:, 0, 0, 0].tolist() == [0, 64, 153, 191]
    assert as_bytes(video, stretched=True)[:, 0, 0, 0].tolist() == [0, 85, 204, 255]  # -1 to 0.5


def test_codes_and_pictures_equal_the_released_calls_in_every_bit(world: Path) -> None:
    """The order of compute_alpha_D (the codes of all frames in one call) and of test_EDTalk_AV_use_exp_weight (one
    frame at a time), with pictures in the memory layout that torch.stack makes."""
    codec, draw = edtalk.EDTalkCodec(world / "EDTalk", stretched=True), np.random.default_rng(0)
    frames, net = draw.integers(0, 256, (7, 256, 256, 3), np.uint8), codec.net
    lips, codes = (torch.from_numpy(draw.normal(0, 0.3, (9, c)).astype(np.float32)) for c in (20, 10))
    pictures = torch.stack([(frame / 255 - 0.5) * 2 for frame in torch.from_numpy(frames.transpose(0, 3, 1, 2).copy())])
    drawn = []
    with torch.inference_mode():
        styles = torch.cat([net.enc(picture[None], None)[0] for picture in pictures])
        np.testing.assert_array_equal(codec.encode(Face(frames)), net.exp_fc(net.fc(styles)))
        for i in range(9):
            style, _, features, _ = net.enc(pictures[:1], None)
            pose = net.pose_fc(net.fc(styles[min(i, 6)][None]))
            weights = torch.cat([lips[i : i + 1], pose, codes[i : i + 1]], dim=1)
            bank = net.direction_lipnonlip.weight
            expression = net.direction_exp.get_exp_latent(net.direction_exp.get_shared_out(weights, bank))
            drawn.append(net.dec(style + weights.mean(1, keepdim=True), features, expression))
    video = torch.cat(drawn).clamp(-1, 1).permute(0, 2, 3, 1)
    stretched = ((video - video.min()) / (video.max() - video.min()) * 255).type(torch.uint8)
    np.testing.assert_array_equal(codec.decode(Face(frames), lips.numpy(), Face(frames), codes.numpy()), stretched)


def _released_file(path: Path, settings: ConnectorSettings, **changes: object) -> Path:
    """A file as C-MET's save_checkpoint writes it, with the authors' names of tensors."""
    torch.manual_seed(1)
    ours, state = Connector(settings).state_dict(), {}
    names = {new: old for old, new in released_names().items()}
    for name, value in ours.items():
        head, rest = next((h, name[len(h) :]) for h in names if name.startswith(h))
        state[names[head] + rest.replace(".conv.", ".conv_block.0.").replace(".norm.", ".conv_block.1.")] = value
    state["fusion_transformer_encoder.position_r.pe"] = torch.zeros(1, 512, settings.width)
    content = {"state_dict": state, "optimizer": {"state": {}}, "global_step": 200_000, "global_epoch": 2105}
    torch.save(content | changes, path)
    return path


def released_names() -> dict[str, str]:
    return {
        "fusion_transformer_encoder.modality.": "modality.",
        "fusion_transformer_encoder.transformer_encoder.": "encoder.",
        "exp_encoder.": "input_tokenizer.blocks.",
        "ref_encoder.": "reference_tokenizer.blocks.",
        "speaker_encoder.proj.": "speech_tokenizer.linear.",
        "speaker_encoder.norm.": "speech_tokenizer.norm.",
        "projector.projector.": "head.",
        "Norm.": "visual_norm.",
    }


def test_an_authors_checkpoint_is_read_compared_and_imported(world: Path, tmp_path: Path, monkeypatch) -> None:
    path = _released_file(tmp_path / "step.pth", RELEASED_SIZES)
    found = released.read(path, RELEASED_SIZES)
    assert found.fits and (found.step, found.epoch) == (200_000, 2105)
    wrong = released.read(path)  # the released sizes
    assert not wrong.fits and "modality.weight: (4, 16) in the file, (4, 1024)" in " ".join(wrong.misshapen)
    monkeypatch.setattr(released, "ConnectorSettings", lambda: RELEASED_SIZES)
    given = ["--codec", f"edtalk:{world / 'EDTalk'}", "--speech", f"stored:{world / 'vectors'}"]
    done = command("import", "cmet", path, *given, "--out", tmp_path / "out")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "step 200000, epoch 2105" in done.output and "missing: none" in done.output
    with pytest.raises(UserError, match="exists"):
        raise command("import", "cmet", path, *given, "--out", tmp_path / "out").exception or AssertionError
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(world))
    tensors, _ = checkpoints.load(tmp_path / "out/cmet.safetensors", "cmet")
    assert all(torch.equal(tensors[f"connector.{name}"], value) for name, value in found.tensors.items())
    face = generate.CMetFace(tmp_path / "out", files=models())
    assert face.settings == generate.RELEASED
    frames = np.random.default_rng(0).integers(0, 256, (27, 256, 256, 3), np.uint8)
    pools = [speech.Utterances(folder=world / "vectors/clips/A" / name) for name in ("happy", "neutral")]
    video = face.video(np.zeros(640 * 9, np.int16), Face(frames), *pools)
    assert video.shape == (9, 256, 256, 3)
    with pytest.raises(ClipError, match="needs neutral utterances"):
        face.direction(pools[0])
    monkeypatch.setenv("CMET_EVAL_CHECKPOINTS", str(tmp_path / "out"))
    seen = dict.fromkeys(("reference_clip", "source_clip", "driving_clip"), "mead/M026/front/neutral/1/001")
    with pytest.raises(ClipError) as error:
        refuse_training_clips(methods.CMet(models()), _pair(**seen))
    assert error.value.reason == Reason.TRAINED_ON
    refuse_training_clips(methods.CMet(models()), _pair(**dict.fromkeys(seen, "mead/M003/front/neutral/1/001")))


def _pair(**clips: str) -> Pair:
    fields = {"pair_id": "p", "setting": "s", "speaker": "x", "seed": 0, "target_emotion": "happy", "intensity": 1}
    fields["reference_emotion"] = "neutral"
    return Pair(**fields, ground_truth_clip=None, reference_frames=(0,), **clips)  # type: ignore[arg-type]


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("evil"),))


def test_a_file_with_code_or_without_a_connector_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": Evil()}}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="cannot be read as tensors"):
        released.read(tmp_path / "evil.pth")
    assert not (tmp_path / "evil").exists()
    torch.save({"gen": {}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="has no state_dict of tensors"):
        released.read(tmp_path / "other.pth")
    path = _released_file(tmp_path / "less.pth", RELEASED_SIZES)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["other.weight"] = content["state_dict"].pop("Norm.weight")
    torch.save(content, path)
    found = released.read(path, RELEASED_SIZES)
    assert (found.missing, found.surplus, found.misshapen) == (("visual_norm.weight",), ("other.weight",), ())
    assert asdict(RELEASED_SIZES)["width"] == 16
    with pytest.raises(UserError, match=r"missing: visual_norm\.weight; surplus: other\.weight"):
        released.save(found, tmp_path, "edtalk:x", "stored:y", ModelFiles())


def test_the_released_inference_has_no_strength() -> None:
    with pytest.raises(UserError, match=r"inference = 'released' has strength 1\.0, not 2"):
        train.read_settings({"inference": "released", "strength": 2.0})
    assert generate.NAMED[train.read_settings({"inference": "ours"}).inference] == generate.Inference()


def test_pd_fgc_names_what_is_missing_before_its_code_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a checkout of PD-FGC"):
        pd_fgc.revision_of(tmp_path)
