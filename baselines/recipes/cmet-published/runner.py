"""Runs C-MET's script on pools of sound of the case: the frames are taken where the script would encode its video."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import sys
from pathlib import Path

import compat
import numpy as np

_POOL = 10  # vectors that the script draws from each pool
_SHORTEST = 25  # frames of the source: the script drops the rest of fives and 20 more, and repeats what is left
_CONNECTOR = "_epoch_2105_checkpoint_step000200000.pth"


class Runner:
    """`main` of inference.py of ChanHyeok-Choi/C-MET, and emotion2vec as its extract_e2v+L.py calls it."""

    def __init__(self, setup) -> None:  # type: ignore[no-untyped-def]
        if setup.device == "cpu":
            compat.cpu()
        compat.torchvision_operators()
        compat.mel()
        compat.qr()
        compat.stub("moviepy.editor")  # the super-resolution needs it, which is not used
        sys.path.append(str(setup.checkout / "src"))  # the script adds `src` relative to the working folder
        compat.options_in_weights()
        compat.keep_loaded()
        self._setup, self._videos = setup, compat.MemoryVideos()
        self._script = importlib.import_module("inference")
        generator = self._script.Generator
        generator.compute_alpha_D = _in_parts(generator.compute_alpha_D)
        compat.keep(self._script, "Audio2Lip", "Generator", "Connector_exp")
        for name in ("EDTalk.pt", "Audio2Lip.pt"):
            compat.link(setup.work / "pretrained_weights" / name, setup.weights[name])
        (setup.work / "pretrained_weights" / "EDTalk-V.pt").touch()  # not used, and else downloaded
        self._speech = _Emotion2Vec(setup)

    def generate(self, case) -> np.ndarray:  # type: ignore[no-untyped-def]
        """(T, 256, 256, 3) uint8 RGB, 25 frames/s."""
        if len(case.source_frames) < _SHORTEST:
            raise ValueError(f"the source has {len(case.source_frames)} frames; inference.py needs {_SHORTEST}")
        work, limit = self._setup.work, self._setup.options.get("frames")
        (picture,) = compat.write_frames(work / "picture", case.reference_frames[:1])
        self._videos["pose"] = case.source_frames
        sound = case.driving_audio[: limit * 640] if limit else case.driving_audio
        words = ["--config", self._setup.checkout / "configs" / "inference.yaml", "--device", self._setup.device]
        words += ["--connector_exp_path", self._setup.weights[_CONNECTOR], "--seed", case.seed]
        words += ["--source_path", picture, "--audio_driving_path", compat.write_wav(work / "sound.wav", sound)]
        words += ["--pose_driving_path", "pose", "--save_path", work / "out.mp4"]
        words += ["--neu_e2v_path", self._pool(case, "neutral"), "--emo_e2v_path", self._pool(case, "emotion")]
        with compat.arguments("inference.py", *map(str, words)):
            self._script.main()
        frames = self._videos.pop(str(work / "out_temp.mp4"))
        case.note("first reference frame and source video in the crop of the shards, resized to 256 px")
        case.note(f"pose and expression of the source video ({len(case.source_frames)} frames)")
        case.note(f"{len(frames)} frames made, {case.n_frames} wanted; taken before the script encodes them")
        if limit:
            case.note(f"test-only limit: {limit} frames drawn, repeated in turn")
            return compat.repeated(frames, case.n_frames)
        return frames

    def _pool(self, case, kind: str) -> Path:  # type: ignore[no-untyped-def]
        """A folder with exactly ten vectors, so that the script's draw depends on no order of files."""
        sounds = getattr(case, f"{kind}_audio")
        if limit := self._setup.options.get("pool"):
            case.note(f"test-only limit: {limit} of {len(sounds)} clips of the {kind} pool")
            sounds = sounds[:limit]
        vectors = np.stack([self._speech.vector(sound) for sound in sounds])
        if len(vectors) < _POOL:
            case.note(f"{kind} pool: mean of all {len(vectors)} clips, where the script draws {_POOL}")
            vectors = np.repeat(vectors.mean(0, keepdims=True), _POOL, axis=0)
        else:
            chosen = np.random.default_rng(case.seed).choice(len(vectors), _POOL, replace=False)
            case.note(f"{kind} pool: {_POOL} of {len(vectors)} clips, none of the pair")
            vectors = vectors[np.sort(chosen)]
        folder = self._setup.work / kind
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for i, vector in enumerate(vectors):
            np.save(folder / f"{i}.npy", vector)
        return folder


def _in_parts(encode):  # type: ignore[no-untyped-def]
    """`encode(network, frames)` in parts of eight frames, with the same values; 50 frames at once took 17 GB."""

    def whole(network, frames):  # type: ignore[no-untyped-def]
        import torch

        parts = [encode(network, part) for part in frames.split(8)]
        return tuple(torch.cat(values) for values in zip(*parts, strict=True))

    return whole


class _Emotion2Vec:
    """emotion2vec+ large, by FunASR, from a local folder. A sound is encoded once."""

    def __init__(self, setup) -> None:  # type: ignore[no-untyped-def]
        folder = setup.work / "emotion2vec_plus_large"
        for name in ("config.yaml", "model.pt"):
            compat.link(folder / name, setup.weights[f"emotion2vec_plus_large.{name}"])
        self._model = self._auto_model(str(folder), setup.device)
        self._kept: dict = {}

    @staticmethod
    def _auto_model(folder: str, device: str):  # type: ignore[no-untyped-def]
        return importlib.import_module("funasr").AutoModel(
            model=folder, device=device, disable_update=True, disable_pbar=True
        )

    def vector(self, sound: np.ndarray) -> np.ndarray:
        """(N,) int16 at 16 kHz to (1024,) float32."""
        key = hashlib.sha256(sound.tobytes()).digest()
        if key not in self._kept:
            wave = sound.astype(np.float32) / 32768
            (answer,) = self._model.generate(wave, fs=16000, granularity="utterance", extract_embedding=True)
            self._kept[key] = np.asarray(answer["feats"], np.float32).reshape(-1)
        return self._kept[key]
