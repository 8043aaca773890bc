"""Runs EDTalk's scripts for sound: the frames are taken where the script would encode its video."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import compat
import numpy as np

_BUILT_IN, _FROM_VIDEO = "demo_EDTalk_A_using_predefined_exp_weights", "demo_EDTalk_A"
_SHORTEST = 21  # frames of an expression video: the script drops the last 20, and repeats the others without end
_DEFAULTS = {
    **{"size": 256, "channel_multiplier": 1, "latent_dim_style": 512, "latent_dim_lip": 20},
    **{"latent_dim_pose": 6, "latent_dim_exp": 10},
    **{"face_sr": False, "need_crop_source_img": False, "need_crop_pose_video": False},
}


class Runner:
    """`Demo(args).run()` of demo_EDTalk_A_using_predefined_exp_weights.py of tanshuai0219/EDTalk."""

    def __init__(self, setup) -> None:  # type: ignore[no-untyped-def]
        """The variant `other-take` runs demo_EDTalk_A.py instead, which takes the expression from a video."""
        if setup.device == "cpu":
            compat.cpu()
        compat.torchvision_operators()
        compat.numpy_names()
        compat.mel()
        compat.qr()
        compat.stub("moviepy.editor")  # the super-resolution needs it, which is not used
        compat.options_in_weights()
        compat.keep_loaded()
        self._setup, self._videos = setup, compat.MemoryVideos()
        self._script = importlib.import_module(_FROM_VIDEO if setup.variant else _BUILT_IN)
        compat.keep(self._script, "Audio2Lip", "Generator")
        compat.link(setup.work / "ckpts", setup.checkout / "ckpts")  # the built-in expressions

    def generate(self, case) -> np.ndarray:  # type: ignore[no-untyped-def]
        """(T, 256, 256, 3) uint8 RGB, 25 frames/s."""
        compat.seed(case.seed)
        work, weights = self._setup.work, self._setup.weights
        (picture,) = compat.write_frames(work / "picture", case.reference_frames[:1])
        self._videos.update({"pose": case.source_frames})
        args = SimpleNamespace(**_DEFAULTS, source_path=str(picture), pose_driving_path="pose")
        args.audio_driving_path = str(compat.write_wav(work / "sound.wav", case.driving_audio))
        args.model_path, args.audio2lip_model_path = str(weights["EDTalk.pt"]), str(weights["Audio2Lip.pt"])
        args.save_path = str(work / "out.mp4")
        self._add_expression(case, args)
        self._script.args = args  # `run` reads the global name, too
        demo = self._script.Demo(args)
        if limit := self._setup.options.get("frames"):
            demo.audio, demo.T = demo.audio[:limit], min(limit, demo.T)
        demo.run()
        frames = self._videos.pop(args.save_path.replace(".mp4", "_temp.mp4"))
        case.note(f"first reference frame and source video in the crop of the shards, resized to {args.size} px")
        case.note(f"pose of the source video ({len(case.source_frames)} frames), whose last pose is held")
        case.note(f"{len(frames)} frames made, {case.n_frames} wanted; taken before the script encodes them")
        if limit:
            case.note(f"test-only limit: {limit} frames drawn, repeated in turn")
            return compat.repeated(frames, case.n_frames)
        return frames

    def _add_expression(self, case, args: SimpleNamespace) -> None:  # type: ignore[no-untyped-def]
        if not self._setup.variant:
            args.exp_type = self._setup.emotions[case.target_emotion]
            case.note(f"built-in expression {args.exp_type}")
            return
        take = case.other_take_frames
        if len(take) < _SHORTEST:
            raise ValueError(f"the expression video has {len(take)} frames; EDTalk needs {_SHORTEST}")
        args.exp_driving_path, self._videos["expression"] = "expression", take
        case.note("expression of another clip of the speaker with the target emotion")
