"""Runs EAMM by the function `test` of its `demo.py`, with the models loaded once."""

from __future__ import annotations

import shutil
from argparse import Namespace
from types import SimpleNamespace

import compat
import numpy as np

SIZE = 256
SILENCE = 640  # of the sound, samples: the last window of MFCC needs one frame more than the sound has
# 3DDFA_V2's pose of a picture from MediaPipe's, fitted to the 17 pictures of the repository that have a pose file. The
# rest is 1.0 degrees of yaw, 2.1 of pitch, 0.7 of roll (RMS), and 0.8 and 2.2 px of the two shifts.
ANGLES = ((-1.035, -0.92), (-0.875, -1.07), (0.915, -0.19))  # factor and offset of yaw, pitch and roll, degrees
SHIFTS = ((-0.457, -0.024, 0.258, 60.77), (0.138, -0.464, -0.058, 68.90))  # factors of MediaPipe's angles, and offset
SCALE, DEPTH = 4.66e-4, -66.67


class Runner:
    """Calls `demo.test` of jixinya/EAMM, and takes the frames of its video with emotion."""

    def __init__(self, setup) -> None:  # type: ignore[no-untyped-def]
        import skimage.util

        skimage.util.pad = np.pad  # removed in scikit-image 0.18
        compat.numpy_names()
        if setup.device == "cpu":
            compat.cpu()
        self.setup, self.work = setup, setup.work
        for name in ("config", "M003_template.npy"):
            compat.link(self.work / name, setup.checkout / name)
        predictor = "shape_predictor_68_face_landmarks.dat"
        compat.link(self.work / predictor, setup.weights[predictor])
        with compat.inside(self.work):
            import demo

        self.demo, self.shown = demo, {}
        demo.imageio = SimpleNamespace(get_reader=lambda name: _Reader(self.video), mimsave=self._take)
        demo.add_audio = lambda *names: None
        listen = demo.test_auido
        demo.test_auido = lambda *given: self._limited(listen(*given))
        self.template = np.load(setup.checkout / "M003_template.npy")
        with compat.inside(self.work):
            loaded = demo.load_checkpoints(opt=self._options(), cpu=False, **self._files("checkpoint_path"))
        demo.load_checkpoints = lambda *given, **words: loaded

    def generate(self, case) -> np.ndarray:  # type: ignore[no-untyped-def]
        """(T, H, W, 3) uint8 RGB, 25 frames/s, in the place of the picture that was animated."""
        compat.seed(case.seed)
        shutil.rmtree(self.work / "pair", ignore_errors=True)
        picture = case.reference_frames[0]
        place = self._matrix(picture)  # before the long work, because it raises an error without a face
        folder = self.work / "pair"
        (source,) = compat.write_frames(folder, picture[None])
        self.video = self._emotion(case)
        np.save(folder / "pose.npy", poses(case.source_landmarks))
        case.note(
            f"pose of the {len(case.source_landmarks)} source frames, from MediaPipe's points in place of 3DDFA_V2"
        )
        options = self._options()
        options.source_image, options.pose_file = str(source), str(folder / "pose.npy")
        options.in_file = str(compat.write_wav(folder / "sound.wav", compat.with_silence(case.driving_audio, SILENCE)))
        options.emotion, options.result_path = self.setup.emotions[case.target_emotion], str(folder)
        with compat.inside(self.work):
            self.demo.test(options, "")
        frames = self.shown["emotion.mp4"]
        if self.setup.options.get("frames"):
            case.note(f"test-only limit: {len(frames)} frames drawn, repeated in turn")
        case.note(f"{SILENCE} samples of silence behind the sound; frames: {case.n_frames} wanted, {self.given} given")
        case.note("the video with emotion, taken before it is encoded, put back to the place of its aligned crop")
        return compat.warped(compat.repeated(frames, self.given), place[:2], picture.shape[:2], border=1)

    def _emotion(self, case) -> np.ndarray:  # type: ignore[no-untyped-def]
        """The video that shows the emotion, (T, 256, 256, 3) RGB, aligned to the template, as long as the sound."""
        if self.setup.variant == "other-take":
            case.note("emotion video: another take of the speaker with the target emotion, aligned by its first frame")
            frames = case.other_take_frames[: case.n_frames + 1]
            return (compat.aligned(frames, self._matrix(frames[0]), SIZE) * 255).astype(np.uint8)
        name = f"test/video/{case.target_emotion}.mp4"
        case.note(f"emotion video: {name} of the repository, an actor of MEAD")
        return compat.read_video(self.setup.checkout / name)[: case.n_frames + 1]

    def _options(self) -> Namespace:
        """The defaults of demo.py."""
        config = "config/MEAD_emo_video_aug_delta_4_crop_random_crop.yaml"
        flags = dict.fromkeys(("relative", "adapt_scale", "cpu", "pose_long", "add_emo", "check_add"), False)
        more = {"driving_video": "", "smooth_pose": True, "type": "linear_3", "kp_loss": 0, "weight": 0}
        return Namespace(config=config, **flags, **more, **self._files("checkpoint"))

    def _files(self, suffix: str) -> dict:
        names = {"": "124_52000", "audio_": "1-6000", "emo_": "5-3000"}
        return {part + suffix: str(self.setup.weights[f"{name}.pth.tar"]) for part, name in names.items()}

    def _limited(self, features):  # type: ignore[no-untyped-def]
        self.given = len(features[0])
        return features[:, : self.setup.options.get("frames", self.given)]

    def _take(self, path: str, frames: list, **words: object) -> None:
        self.shown[path.rpartition("/")[2]] = np.stack(frames)

    def _matrix(self, picture: np.ndarray) -> np.ndarray:
        return compat.template_place(picture, self.template, self.demo.detector, self.demo.predictor)


class _Reader(list):
    """Takes the place of the reader of a video file of 25 frames/s."""

    def get_meta_data(self) -> dict:
        return {"fps": 25.0}

    def close(self) -> None:
        """Do nothing."""


def poses(landmarks: np.ndarray) -> np.ndarray:
    """3DDFA_V2's pose, (T, 7): yaw, pitch and roll in degrees, scale, and the shifts x, y, z in a face box of 120 px.

    `landmarks`: (T, 478, 3), MediaPipe's points, px.
    """
    points = np.asarray(landmarks, np.float64) * [1, -1, -1]
    right = points[:, 263] - points[:, 33]
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    up = points[:, 10] - points[:, 152]
    up -= right * (up * right).sum(1, keepdims=True)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    ahead = np.cross(right, up)
    own = (np.arctan2(ahead[:, 0], ahead[:, 2]), np.arcsin(ahead[:, 1]), np.arctan2(right[:, 1], right[:, 0]))
    own = np.degrees(np.stack(own, 1))
    angles = own * [factor for factor, _ in ANGLES] + [offset for _, offset in ANGLES]
    shifts = np.c_[own, np.ones(len(own))] @ np.transpose(SHIFTS)
    constant = np.ones((len(own), 1))
    return np.concatenate([angles, SCALE * constant, shifts, DEPTH * constant], 1)
