"""Writes small stand-ins of the repositories of ETK, SadTalker, EAMM and EAT, with the interface that the recipes call.

A stand-in also holds modules in the place of large packages, such as torch and dlib; it is before them on the path.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmet_baselines.registry import catalogue

TORCH = """
import contextlib
import numpy as np


class Tensor(np.ndarray):
    def to(self, device):
        return self

    float = cpu = lambda self: self
    numpy = lambda self: np.asarray(self)


class nn:
    class Module:
        pass


class cuda:
    set_device = None


def device(name):
    return name


def from_numpy(array):
    return np.asarray(array, np.float32).view(Tensor)


def eye(n, device):
    return np.eye(n, dtype=np.float32).view(Tensor)


def load(path, map_location=None):
    return {"module.gain": int(np.load(path))}


manual_seed, einsum = np.random.seed, np.einsum
no_grad = contextlib.nullcontext
"""
DLIB = """
class Point:
    def __init__(self, i):
        self.x, self.y = 40 + i * 37 % 170, 30 + i * 53 % 190


class Shape:
    num_parts = 68
    part = staticmethod(Point)


def get_frontal_face_detector():
    return lambda image, upsample: [(0, 0, 9, 9)] if image.any() else []  # a black picture shows no face


def shape_predictor(path):
    assert open(path).read() == "points"
    return lambda grey, box: Shape()
"""
POINTS = """
import numpy as np


def shape_to_np(shape):
    return np.array([(shape.part(i).x, shape.part(i).y) for i in range(68)])
"""
ETK = {
    "librosa.py": "def resample(sound, orig_sr, target_sr):\n    return sound[:: orig_sr // target_sr]\n",
    "helper.py": POINTS,
    "facealigner.py": """
import cv2
import numpy as np
from types import SimpleNamespace


class FaceAligner:
    def __init__(self, predictor, desiredLeftEye, desiredFaceWidth):
        self.size = desiredFaceWidth

    def align(self, image, grey, box, shape, scale):
        return np.zeros((self.size, self.size, 3), np.uint8), 1

    def get_tform(self, image, shape, mean_shape, scale=None):
        assert mean_shape.min() == 0.2 * self.size and round(mean_shape.max()) == round(0.8 * self.size)
        self.tform = SimpleNamespace(params=np.diag([2.0, 2.0, 1.0]))

    def apply_tform(self, image):
        return cv2.resize(image, (self.size, self.size)), None
""",
    "models.py": """
import numpy as np
import torch


class GENERATOR:
    def __init__(self, args, train, debug):
        assert args.device == "cpu" and args.fs == 8000 and not train

    def to(self, device):
        return self

    def eval(self):
        return self

    def load_state_dict(self, state):
        self.gain = state["gain"]

    def __call__(self, picture, speech, label):
        assert picture.shape == (1, 3, 128, 128) and abs(picture).max() <= 1 and abs(speech).max() == 1
        n = speech.shape[2] // 320
        out = np.full((1, n, 3, 128, 128), -1, np.float32)  # blue, green, red
        out[0, :, 2] = self.gain * np.arange(n)[:, None, None] / 255 - 0.5
        out[0, :, 1] = (label[0].argmax() + 0.5) / 127.5 - 1
        return torch.from_numpy(out), None
""",
    "model/args.txt": "{}",
    "data/dlib_data/shape_predictor_68_face_landmarks.dat": "points",
}
SADTALKER = {
    "src/face3d/util/preprocess.py": "import numpy as np\n\n\ndef POS(*points):\n    return np.ones((2, 1)), 1\n",
    "src/utils/init_path.py": """
def init_path(weights, config, size, old, mode):
    assert open(f"{weights}/SadTalker_V0.0.2_256.safetensors").read() == "weights" and mode == "crop"
    return {}
""",
    "src/utils/preprocess.py": """
import os
from gfpgan import GFPGANer
from src.face3d.util import preprocess


class Finder:
    def get_landmark(self, picture):
        raise LookupError("facexlib finds no face")

    def crop(self, frames, still=False, xsize=512):
        assert self.get_landmark(frames[0]).shape == (68, 2)
        return frames, (10, 20, 250, 250), [2.0, 3.0, 120.0, 140.0]


Finder.predictor = Finder()


class CropAndExtract:
    def __init__(self, paths, device):
        assert os.listdir("gfpgan/weights")
        self.propress = Finder()

    def generate(self, path, folder, mode, is_image, size):
        import cv2

        assert not os.listdir(folder)  # an old file in it would be taken
        open(f"{folder}/landmarks.txt", "w").close()
        frames, crop, quad = self.propress.crop([cv2.imread(path)])
        if "suite" in os.environ.get("STAND_IN", "suite"):
            assert self.propress.predictor.extract_keypoint(frames, "")[0].shape == (68, 2)
        assert preprocess.POS()[0].shape == (2,)
        return "first", "cropped", ((128, 64), crop, quad)
""",
    "src/test_audio2coeff.py": """
class Audio2Coeff:
    def __init__(self, paths, device):
        pass

    def generate(self, batch, folder, style, pose):
        assert style == 0 and pose is None
        return batch
""",
    "src/generate_batch.py": """
import wave


def get_data(first, sound, device, blink):
    return wave.open(sound).getnframes() // 640
""",
    "src/generate_facerender_batch.py": """
import numpy as np


def get_facerender_data(found, cropped, first, sound, batch, size):
    return {"frame_num": found, "target_semantics_list": np.arange(found)[None, :, None, None]}
""",
    "src/facerender/animate.py": """
import numpy as np


class AnimateFromCoeff:
    def __init__(self, paths, device):
        pass

    def generate(self, data, folder, picture, info, preprocess, img_size):
        drawn = data["target_semantics_list"][0, : data["frame_num"], 0, 0]
        imageio.mimsave("a.mp4", [np.full((128, 256, 3), 10 + 20 * k, np.uint8) for k in drawn], fps=25.0)
        raise AssertionError("it encodes the video")
""",
}
EAMM = {
    "demo.py": POINTS
    + """
import wave
import dlib
import skimage.util

assert open("shape_predictor_68_face_landmarks.dat").read() == "points" and skimage.util.pad
detector, predictor = dlib.get_frontal_face_detector(), dlib.shape_predictor("shape_predictor_68_face_landmarks.dat")
loads = []


def load_checkpoints(opt, checkpoint_path, audio_checkpoint_path, emo_checkpoint_path, cpu=False):
    loads.append(1)
    assert len(loads) == 1


def test_auido(picture, net, pose, opt):
    return np.zeros((1, wave.open(opt.in_file).getnframes() // 640 - 1, 35))  # one frame less than the sound


def add_audio(video, sound):
    raise AssertionError("ffmpeg")


def test(opt, name):
    pose = np.load(opt.pose_file)
    assert pose.shape == (4, 7) and np.isfinite(pose).all()
    video = [frame for frame in imageio.get_reader(opt.driving_video)]
    assert video[0].shape == (256, 256, 3)
    load_checkpoints(opt, opt.checkpoint, opt.audio_checkpoint, opt.emo_checkpoint, opt.cpu)
    features = test_auido(None, None, pose, opt)
    for name, light in (("neutral", 0), ("emotion", 100), ("all", 0)):
        frames = [np.full((256, 256, 3), light + k, np.uint8) for k in range(len(features[0]))]
        imageio.mimsave(f"{opt.result_path}/{name}.mp4", frames, fps=25)
        add_audio(f"{name}.mp4", opt.in_file)
""",
    "config/MEAD_emo_video_aug_delta_4_crop_random_crop.yaml": "",
}
EAT = {
    "tensorflow.py": "class compat:\n    class v1:\n        disable_eager_execution = staticmethod(lambda: None)\n",
    "preprocess/generate_poseimg.py": """
import numpy as np
import torch


def get_pose_img(head):
    assert sorted(head) == ["exp", "pitch", "roll", "t", "yaw"]
    return torch.from_numpy(np.zeros((len(head["yaw"]), 1, 64, 64)))
""",
    "preprocess/deepspeech_features/deepspeech_features.py": """
import wave
import numpy as np


def prepare_deepspeech_net(path):
    return open(path).read()


def conv_audios_to_deepspeech(sounds, outputs, numbers, graph):
    assert prepare_deepspeech_net("nowhere") == "weights"
    np.save(outputs[0], np.zeros((wave.open(sounds[0]).getnframes() // 640, 16, 29)))
""",
    "demo.py": POINTS
    + """
import glob
import gzip
import cv2
import clip
import dlib
import torch

np.load("pad.npy")
detector = dlib.get_frontal_face_detector()
predictor = dlib.shape_predictor("demo/shape_predictor_68_face_landmarks.dat")
loads = []
root_wav = "demo/video_processed/none"


def build_model(config):
    loads.append(1)
    return "generator", "kp", "audio", "side", "prompt"


def load_ckpt(path, kp_detector, generator, audio2kptransformer, sidetuning, emotionprompt):
    assert (kp_detector, generator, sidetuning) == ("kp", "generator", "side") and open(path).read() == "weights"


def load_checkpoints_extractor(config, checkpoint):
    return "kp", "pose"


def crop_image(path, out):
    cv2.imwrite(out, cv2.imread(path))


def estimate_latent(frames, points, pose):
    part = torch.from_numpy(np.zeros((1, 66)))
    return {"value": part}, {key: [part for _ in frames] for key in ("yaw", "pitch", "roll", "t", "exp")}


def test(ckpt, emotype, save_dir):
    build_model(None)
    load_ckpt("", kp_detector=None)
    assert loads == [1] and glob.glob("demo/imgs_cropped/*.jpg") == ["demo/imgs_cropped/pair.jpg"]
    assert np.load("demo/imgs_latent/pair.npy", allow_pickle=True)[1]["yaw"].shape == (1, 66)
    count = len(glob.glob(f"{root_wav}/images_evp_25/cropped/*.jpg"))
    head = np.load(f"{root_wav}/latent_evp_25/{root_wav}.npy", allow_pickle=True)[1]
    speech = np.load(f"{root_wav}/deepfeature32/{root_wav}.npy")
    pose = np.load(gzip.open(f"{root_wav}/poseimg/{root_wav}.npy.gz"))
    assert len(head["yaw"]) == count and len(pose) == len(speech)
    light = {"hap": 100}[emotype]
    imageio.mimsave("a.mp4", [np.full((256, 256, 3), light + k, np.uint8) for k in range(count)], fps=25.0)
    raise AssertionError("it encodes the video")
""",
    "config/deepprompt_eam3d_st_tanh_304_3090_all.yaml": "{}",
    "expPCAnorm_fin/none": "",
}
FILES = {"etk": ETK, "sadtalker": SADTALKER, "eamm": EAMM, "eat": EAT}


def write_checkout(name: str, folder: Path) -> tuple[Path, dict[str, Path]]:
    """Writes the stand-in of a repository, and its weights. Returns the checkout and the paths of the weights."""
    import cv2

    checkout, weights = folder / "checkout", folder / "weights"
    for path, text in {"torch.py": TORCH, "dlib.py": DLIB, **FILES[name]}.items():
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text(text)
    weights.mkdir()
    found = {weight.file: weights / weight.file for weight in catalogue()[name].weights}
    for path in found.values():
        path.write_text("points" if path.suffix == ".dat" else "weights")
    template = np.array([(40 + i * 37 % 170, 30 + i * 53 % 190) for i in range(68)])
    if name == "etk":
        (checkout / "data_prep").mkdir()
        cv2.imwrite(str(checkout / "data_prep" / "template_face.jpg"), np.full((32, 32, 3), 99, np.uint8))
        with found["generator.pt"].open("wb") as file:
            np.save(file, 2)
    if name == "eamm":
        np.save(checkout / "M003_template.npy", template)
    if name == "eat":
        np.save(checkout / "pad.npy", template)
        np.save(found["M003_template.npy"], template)
    return checkout, found
