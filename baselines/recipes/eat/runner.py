"""Runs EAT by `test` of its `demo.py` and by functions of its `preprocess`, with the models loaded once."""

from __future__ import annotations

import gzip
import shutil
import sys
from types import SimpleNamespace

import compat
import numpy as np

SIZE = 256
LINKS = ("config", "expPCAnorm_fin", "pad.npy")  # parts of the checkout that demo.py reads from the working directory
DEMO = ("M003_template.npy", "shape_predictor_68_face_landmarks.dat")  # files that it expects in ./demo
SPEECH = "deepspeech-0_1_0-b90017e8.pb"


class Runner:
    """Calls `demo.test` and `demo.estimate_latent` of yuangan/EAT_code, and takes the frames of the video."""

    def __init__(self, setup) -> None:  # type: ignore[no-untyped-def]
        compat.numpy_names()
        compat.stub("clip")  # only losses of the training use it
        import torch

        product = torch.einsum  # in current versions its result can have an order in memory that `view` refuses
        torch.einsum = lambda *given: product(*given).contiguous()
        if setup.device == "cpu":
            compat.cpu()
            torch.Tensor.get_device = lambda self: self.device
        self.setup, self.work = setup, setup.work
        for name in LINKS:
            compat.link(self.work / name, setup.checkout / name)
        for name in DEMO:
            compat.link(self.work / "demo" / name, setup.weights[name])
        checkpoint = "pretrain_new_274.pth.tar"
        compat.link(self.work / "ckpt" / checkpoint, setup.weights[checkpoint])
        compat.link(self.work / "Utils", setup.weights["Utils"])
        sys.path[1:1] = [str(self.work), str(setup.checkout / "preprocess")]
        sys.path.append(str(setup.checkout / "preprocess" / "deepspeech_features"))
        with compat.inside(self.work):
            import demo
            import yaml

            demo.DataParallelWithCallback = lambda net: net
            config = yaml.safe_load((setup.checkout / "config/deepprompt_eam3d_st_tanh_304_3090_all.yaml").read_text())
            nets = demo.build_model(config)
            demo.load_ckpt(setup.weights["deepprompt_eam3d_all_final_313.pth.tar"], *_in_order(nets))
            self.finders = demo.load_checkpoints_extractor("config/vox-256-spade.yaml", f"ckpt/{checkpoint}")
            from generate_poseimg import get_pose_img
        demo.build_model, demo.load_ckpt = lambda config: nets, lambda *names, **words: None
        demo.imageio, demo.root_wav = SimpleNamespace(mimsave=_take), "driving"
        self.demo, self.pose_pictures = demo, get_pose_img
        self.listen = _deepspeech(str(setup.weights[SPEECH]))
        self.template = np.load(setup.weights["M003_template.npy"])

    def generate(self, case) -> np.ndarray:  # type: ignore[no-untyped-def]
        """(T, H, W, 3) uint8 RGB, 25 frames/s, in the place of the picture that was animated."""
        import cv2

        compat.seed(case.seed)
        for name in ("demo/imgs_cropped", "demo/imgs_latent", "driving"):  # it takes up files of an earlier pair
            shutil.rmtree(self.work / name, ignore_errors=True)
            (self.work / name).mkdir()
        picture, emotion = case.reference_frames[0], self.setup.emotions[case.target_emotion]
        place = self._matrix(picture)
        with compat.inside(self.work):
            (source,) = compat.write_frames(self.work / "picture", picture[None])
            self.demo.crop_image(str(source), "demo/imgs_cropped/pair.jpg")
            cropped = cv2.imread("demo/imgs_cropped/pair.jpg")[..., ::-1] / 255
            self._save_latent("demo/imgs_latent/pair.npy", cropped[None])
            self._drive(case)
            try:
                self.demo.test("", emotion, save_dir="made")
            except _Taken as taken:
                frames = np.stack(taken.args[0])
        case.note(f"label {emotion}; the aligned crop of {SIZE} px (JPEG) is put back to its place")
        frames = compat.repeated(frames, case.n_frames) if self.setup.options.get("frames") else frames
        case.note(f"frames: {case.n_frames} wanted, {len(frames)} given, taken before it encodes them")
        return compat.warped(frames, place[:2], picture.shape[:2], border=1)

    def _drive(self, case) -> None:  # type: ignore[no-untyped-def]
        """Write what drives the picture: the sound, its DeepSpeech features, and the pose of the source video."""
        real = self.setup.variant == "real-pose"
        frames = case.ground_truth_frames if real else case.source_frames
        wanted, found, folder = case.n_frames, len(frames), self.work / "driving"
        count = min(self.setup.options.get("frames", wanted), wanted)
        if count < wanted:
            case.note(f"test-only limit: {count} frames drawn, repeated in turn")
        for name in ("deepfeature32", "latent_evp_25", "poseimg", "images_evp_25/cropped"):
            (folder / name).mkdir(parents=True)
        for i in range(count):  # it counts these files, and reads none
            (folder / f"images_evp_25/cropped/{i}.jpg").touch()
        sound = compat.write_wav(folder / "driving.wav", case.driving_audio)
        self.listen(str(sound), str(folder / "deepfeature32/driving.npy"))
        order = np.arange(count) % (2 * found)  # forwards, then backwards, and so on
        used = frames[np.where(order < found, order, 2 * found - 1 - order)]
        head = self._save_latent("driving/latent_evp_25/driving.npy", compat.aligned(used, self._matrix(used[0]), SIZE))
        pictures = self.pose_pictures(head).cpu().numpy()
        with gzip.open(folder / "poseimg/driving.npy.gz", "wb") as file:
            np.save(file, np.concatenate([pictures, np.repeat(pictures[-1:], wanted - count, 0)]))
        whose, again = "real" if real else "source", "" if found >= wanted else ", forwards and backwards"
        case.note(f"pose of the {found} {whose} frames{again}; DeepSpeech features of the driving sound")

    def _save_latent(self, name: str, frames: np.ndarray) -> dict:
        """Save the keypoints and the head pose of aligned frames, and return the head pose."""
        points, head = self.demo.estimate_latent(list(frames), *self.finders)
        head = {key: np.concatenate([part.cpu().numpy() for part in parts]) for key, parts in head.items()}
        saved = np.empty(2, object)  # current numpy makes no array of two unequal objects from a list
        saved[:] = points["value"].cpu().numpy(), head
        np.save(self.work / name, saved, allow_pickle=True)
        return head

    def _matrix(self, picture: np.ndarray) -> np.ndarray:
        return compat.template_place(picture, self.template, self.demo.detector, self.demo.predictor)


def _in_order(nets: tuple) -> tuple:
    """The networks in the order of `load_ckpt`, from the order of `build_model`."""
    generator, points, speech, side, prompt = nets
    return points, generator, speech, side, prompt


def _deepspeech(graph: str):  # type: ignore[no-untyped-def]
    """The function (WAV file, .npy file) that writes DeepSpeech features; the graph is loaded once."""
    import tensorflow as tf

    tf.compat.v1.disable_eager_execution()
    import deepspeech_features as features

    loaded = features.prepare_deepspeech_net(graph)
    features.prepare_deepspeech_net = lambda path: loaded
    return lambda sound, out: features.conv_audios_to_deepspeech([sound], [out], [None], graph)


class _Taken(Exception):
    """Carries the frames out of the repository's function, which would encode them next."""


def _take(path: str, frames: list, **words: object) -> None:
    raise _Taken(frames)
