"""Writes small repositories with the interfaces of EDTalk, C-MET, PD-FGC, FLOAT and IP-LAP, without torch.

The frames of a stand-in show its inputs, so that a test sees which input came to which place.
"""

from __future__ import annotations

from pathlib import Path

# What all stand-ins import: a torch with what the shims change, and a torchvision and a librosa of the same kind.
COMMON = {
    "torch/__init__.py": """
import numpy as np
LOADED = []
class Tensor: pass
class Frames:
    def __init__(self, array): self.array = array
    def split(self, count): return [Frames(self.array[i:i + count]) for i in range(0, len(self.array), count)]
class nn:
    class Module:
        def cuda(self): raise RuntimeError("no GPU")
class cuda:
    @staticmethod
    def is_available(): return True
class library: pass
SAFE = []
class serialization:
    add_safe_globals = staticmethod(SAFE.extend)
def load(path, map_location=None):
    assert map_location == "cpu"
    LOADED.append(str(path))
    return path
def cat(parts): return np.concatenate(parts)
def from_numpy(array): return array
def zeros(*shape): return np.zeros(shape)
def manual_seed(value): pass
def device(name): return name
""",
    "torchvision/__init__.py": "from . import io, models",
    "torchvision/io.py": "",
    "torchvision/models.py": "def vgg19(weights): return weights",
    "librosa/__init__.py": "",
    "librosa/filters.py": "def mel(*, sr, n_fft): return sr, n_fft",
    "sound.py": """
import wave
def frames(path):
    with wave.open(str(path)) as file:
        assert file.getframerate() == 16000
        return file.getnframes() // 640
""",
}
_EDTALK = """
import argparse
import os
import cv2
import librosa.filters
import numpy as np
import sound
import torch
import torchvision.io
from moviepy.editor import *

MADE = []
class Generator(torch.nn.Module):
    def __init__(self, *sizes): MADE.append(sizes)
class Audio2Lip(torch.nn.Module): pass

class Demo:
    def __init__(self, args):
        librosa.filters.mel(16000, 800)
        self.args, self.picture = args, cv2.imread(args.source_path)[..., ::-1]
        Audio2Lip().cuda()
        Generator(args.size).cuda()
        torch.load(args.model_path)
        assert torch.SAFE == [argparse.Namespace]  # the authors' file has the options of its training
        self.pose, _, about = torchvision.io.read_video(args.pose_driving_path, pts_unit="sec")
        assert about["video_fps"] == 25
        self.expression = self.read_expression()
        self.T = sound.frames(args.audio_driving_path)
        self.audio = np.zeros(self.T)

    def run(self):
        frames = np.zeros((len(self.audio), 256, 256, 3), np.uint8)
        frames[:, 0, 0] = self.picture[0, 0]
        frames[:, 0, 1] = [self.pose[min(t, len(self.pose) - 1)][0, 0] for t in range(self.T)]
        frames[:, 0, 2], frames[:, 0, 3] = self.expression, (len(MADE), len(torch.LOADED), 0)
        file = args.save_path.replace(".mp4", "_temp.mp4")
        torchvision.io.write_video(file, frames, fps=25)
        os.remove(file)
"""
EDTALK = {
    "demo_EDTalk_A_using_predefined_exp_weights.py": _EDTALK
    + """
    def read_expression(self):
        return np.load(os.path.join("ckpts/predefined_exp_weights", self.args.exp_type + ".npy"))
""",
    "demo_EDTalk_A.py": _EDTALK
    + """
    def read_expression(self):
        return torchvision.io.read_video(self.args.exp_driving_path)[0][0, 0, 0]
""",
}
CMET = {
    "configs/inference.yaml": "",
    "src/tools.py": "WORDS = 3",
    "funasr.py": """
import numpy as np
CALLS = []
class AutoModel:
    def __init__(self, model, **settings):
        assert open(model + "/config.yaml").read() and open(model + "/model.pt").read()
    def generate(self, wave, fs, granularity, extract_embedding):
        CALLS.append(len(wave))
        return [{"feats": np.full((1024,), 1000 * wave[0])}]
""",
    "inference.py": """
import argparse, os
import numpy as np
import funasr, sound, tools, torch
import torchvision.io
from moviepy.editor import *

class Audio2Lip: pass
class Connector_exp: pass
class Generator:
    def compute_alpha_D(self, frames):
        assert len(frames.array) <= 8  # more at once do not fit into memory
        return frames.array[:, 0, 0], frames.array[:, 0, 1]

def mean(folder):
    names = os.listdir(folder)
    assert len(names) == 10
    return np.mean([np.load(os.path.join(folder, name)) for name in names])

def main():
    parser = argparse.ArgumentParser()
    names = "config device connector_exp_path seed source_path audio_driving_path pose_driving_path save_path"
    for name in (names + " neu_e2v_path emo_e2v_path").split():
        parser.add_argument("--" + name, required=True)
    args = parser.parse_args()
    for name in ("EDTalk.pt", "Audio2Lip.pt", "EDTalk-V.pt"):
        assert os.path.exists("pretrained_weights/" + name)
    pose = torchvision.io.read_video(args.pose_driving_path)[0]
    codes, _ = Generator().compute_alpha_D(torch.Frames(pose))
    frames = np.zeros((sound.frames(args.audio_driving_path), 256, 256, 3), np.uint8)
    frames[:, 0, 0], frames[:, 0, 1] = codes[-1], len(codes)
    frames[:, 0, 2] = round(mean(args.emo_e2v_path)), round(mean(args.neu_e2v_path)), len(funasr.CALLS)
    torchvision.io.write_video(args.save_path.replace(".mp4", "_temp.mp4"), frames, fps=25)
""",
}
PD_FGC = {
    "configs/inference.yaml": "",
    "lib/__init__.py": "",
    "lib/config/__init__.py": "",
    "lib/config/config.py": """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--cfg_file")
parser.add_argument("--all", action="store_true")
cfg = parser.parse_args()
assert cfg.all and open(cfg.cfg_file)
""",
    "lib/inferencer.py": """
import os
import cv2
import lws
import numpy as np
import wave

def read(path):
    picture = cv2.resize(cv2.imread(path), (224, 224))
    return cv2.resize(picture[:192, 16:208], (224, 224))

class Tester:
    def __init__(self, cfg):
        assert os.path.exists("checkpoints/generator_model.pth")
    def reset_cfg(self, cfg): pass
    def inference(self, audio, picture, folders):
        with wave.open(audio) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        bins = lws.lws(1280, 160, mode="speech").stft(samples / 32768)
        count = len(bins) // 4 - 4
        drivers = [[read(os.path.join(folder, name)) for name in sorted(os.listdir(folder))][2:] for folder in folders]
        strips = []
        for i in range(count):
            face = read(picture)
            face[:3] = drivers[0][i % len(drivers[0])][:3]
            strips.append(np.concatenate([face * 0, face, *(driver[i % len(driver)] for driver in drivers)], 1))
        return strips
""",
}
FLOAT = {
    "generate.py": """
import argparse, os, tempfile
import cv2
import face_alignment
import numpy as np
import sound
import torch
import torchvision.io

class InferenceOptions:
    def parse(self):
        parser = argparse.ArgumentParser()
        for name in ("ckpt_path", "wav2vec_model_path", "audio2emotion_path"):
            parser.add_argument("--" + name, required=True)
        return parser.parse_args()

class InferenceAgent:
    def __init__(self, opt):
        assert opt.rank == "cpu" and os.path.exists(opt.wav2vec_model_path + "/preprocessor_config.json")
        assert os.path.exists(opt.audio2emotion_path + "/pytorch_model.bin")
        self.faces = face_alignment.FaceAlignment(face_alignment.LandmarksType.TWO_D, flip_input=False)

    def run_inference(self, video, picture, audio, emo):
        picture = cv2.imread(picture)[..., ::-1]
        ratio = 360 / len(picture)
        resized = cv2.resize(picture, None, fx=ratio, fy=ratio)
        ((left, top, right, bottom, score),) = self.faces.face_detector.detect_from_image(resized)
        left, top, right, bottom = (int(value / ratio) for value in (left, top, right, bottom))
        half = int(max(int((bottom - top) / 2), int((right - left) / 2)) * 1.6)
        x, y = int((left + right) / 2) + half, int((top + bottom) / 2) + half
        picture = cv2.copyMakeBorder(picture, half, half, half, half, cv2.BORDER_CONSTANT, value=0)
        face = cv2.resize(picture[y - half : y + half, x - half : x + half], (512, 512))
        face[:40, :40] = {"S2E": 10, "happy": 20}[emo]
        with tempfile.NamedTemporaryFile(suffix=".mp4", delete=False) as file:
            torchvision.io.write_video(file.name, np.stack([face] * sound.frames(audio)), fps=25)
""",
}
IP_LAP = {
    "draw_landmark.py": """
from mediapipe.framework.formats import landmark_pb2
class DrawingSpec:
    def __init__(self, thickness, circle_radius): pass
""",
    "models/__init__.py": """
import lws
from . import video_renderer
MADE = []
class Landmark_generator:
    def __init__(self, **sizes): MADE.append(self)
class Renderer:
    def __init__(self):
        MADE.append(self)
        self.flow, self.loss = video_renderer.DenseFlowNetwork(), video_renderer.PerceptualLoss()
""",
    "models/video_renderer.py": """
import torchvision.models
class PerceptualLoss:
    def __init__(self): assert torchvision.models.vgg19(pretrained=True) is None
    def forward(self, made): raise AssertionError("the loss is computed")
class DenseFlowNetwork:
    def forward(self, pictures, sketches, drawn): return pictures.shape[1]
""",
    "inference_single.py": """
import argparse
import cv2
import face_alignment
import mediapipe as mp
import models
import numpy as np
import sound
import torch
from models import Landmark_generator, Renderer

parser = argparse.ArgumentParser()
for name in ("input", "audio", "output_dir", "landmark_gen_checkpoint_path", "renderer_checkpoint_path"):
    parser.add_argument("--" + name, required=True)
args = parser.parse_args()
assert not torch.cuda.is_available() and args.input.split(".")[1] == "mp4"
fa = face_alignment.FaceAlignment(face_alignment.LandmarksType._2D, flip_input=False, device="cuda")
mp.solutions.drawing_utils.DrawingSpec(thickness=1, circle_radius=1)
Landmark_generator(T=5)
renderer = Renderer()
reader, frames = cv2.VideoCapture(args.input), []
while (answer := reader.read())[0]:
    frames.append(answer[1])
boxes = []
with mp.solutions.face_mesh.FaceMesh(static_image_mode=True) as mesh:
    for again in range(2):
        for frame in frames:
            face = mesh.process(frame).multi_face_landmarks[0]
            x = [256 * point.x for point in face.landmark]
            y = [256 * point.y for point in face.landmark]
            boxes.append((int(min(y)), int(max(y)) + 1, int(min(x)), int(max(x)) + 1))
count = sound.frames(args.audio) - 4
order = (frames + frames[::-1]) * 9
places = (boxes[: len(frames)] + boxes[: len(frames)][::-1]) * 9
writer = cv2.VideoWriter("result.avi", 0, 25, (512, 256))
for i in range(count - 2):
    picture = order[i + 2].copy()
    top, bottom, left, right = places[i + 2]
    points = fa.get_landmarks(picture[top:bottom, left:right])[0] + (left, top)
    picture[0, :27] = np.round(points[:, :1])
    picture[1, 0] = len(models.MADE), renderer.flow.forward(np.zeros((1, 25)), np.zeros((1, 25)), None), 0
    whole = np.concatenate([picture * 0, picture], 1)
    for _ in range(3 if i == 0 else 1):
        writer.write(whole)
writer.release()
""",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    """Writes a stand-in with the modules that all of them import. Returns the folder."""
    for name, text in {**COMMON, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
