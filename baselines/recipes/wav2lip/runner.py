"""Runs Wav2Lip: calls `load_model` and `main` of `inference.py`, with the frames taken where it writes them."""

from __future__ import annotations

import shutil

import compat
import cv2
import numpy as np

# inference.py ends with the mel window (16 of 80 steps a second) that touches the end of the sound, so that the last
# frames are missing; 0.12 s more sound gives them.
_SILENCE = 1920  # samples


class Runner:
    """`inference.main` of Rudrabha/Wav2Lip, with S3FD boxes as the script makes them."""

    def __init__(self, setup) -> None:  # type: ignore[no-untyped-def]
        self._work = setup.work
        self._variant = setup.variant
        if setup.device == "cpu":
            compat.cpu()
        compat.numpy_names()
        compat.mel()
        compat.torch_home(self._work, {name: setup.weights[name] for name in ("s3fd-619a316812.pth",)})
        with compat.arguments("inference.py", "--checkpoint_path", "-", "--face", "-", "--audio", "-"):
            import inference
        self._script = inference
        inference.subprocess = _NoCommands()
        inference.cv2.VideoWriter = compat.FrameTaker
        inference._load = _load
        inference.device = setup.device.partition(":")[0]
        name = "wav2lip_gan.pth" if self._variant.startswith("gan") else "wav2lip.pth"
        model = inference.load_model(str(setup.weights[name]))
        inference.load_model = lambda path: model

    def generate(self, case) -> np.ndarray:  # type: ignore[no-untyped-def]
        """(T, H, W, 3) uint8 RGB, 25 frames/s: the source video with another lower half of the face."""
        compat.seed(case.seed)
        shutil.rmtree(self._work / "pair", ignore_errors=True)
        with compat.inside(self._work / "pair") as folder:
            (folder / "temp").mkdir()
            sound = compat.with_silence(case.driving_audio, _SILENCE)
            self._script.args.audio = str(compat.write_wav(folder / "sound.wav", sound))
            # A name without a folder: the script takes the text between the first two dots for the suffix.
            self._script.args.face = compat.write_video(folder / "face.mp4", self._face(case)).name
            self._script.main()
        made = compat.FrameTaker.frames
        case.note(f"{_SILENCE / 16:.0f} ms of silence behind the sound; {len(made)} frames made, {case.n_frames} kept")
        case.note("S3FD boxes, 10 px more below, mean of 5 frames; frames taken before the script encodes them")
        return np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in made[: case.n_frames]])

    def _face(self, case) -> np.ndarray:  # type: ignore[no-untyped-def]
        """The video that is edited."""
        if not self._variant.endswith("upper-half"):
            case.note(f"edits the source video of {len(case.source_frames)} frames, repeated where it is shorter")
            return case.source_frames
        case.note("edits the real upper half over the lower half of the first reference frame")
        frames = case.upper_half_frames.copy()
        middle = frames.shape[1] // 2
        frames[:, middle:] = case.reference_frames[0][middle:]
        return frames


def _load(path: str) -> dict:
    """The checkpoint: a pickled file, or the TorchScript archive that the README links to now (issue #743)."""
    import torch

    try:
        return {"state_dict": torch.jit.load(path, map_location="cpu").state_dict()}
    except RuntimeError:
        return torch.load(path, map_location="cpu", weights_only=True)


class _NoCommands:
    """Takes the place of `subprocess` in the script, which would encode the taken frames with ffmpeg."""

    @staticmethod
    def call(command: str, shell: bool = False) -> int:
        """Run nothing."""
        return 0
