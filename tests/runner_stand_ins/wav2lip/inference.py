"""Has the interface of Wav2Lip's inference.py: arguments at import, `_load`, `load_model`, `main`. Not their code."""

import argparse
import itertools
import subprocess

import audio
import cv2
import face_detection
import numpy as np
import torch
from models import Wav2Lip

parser = argparse.ArgumentParser()
for name in ("--checkpoint_path", "--face", "--audio"):
    parser.add_argument(name, required=True)
parser.add_argument("--outfile", default="results/result_voice.mp4")
args = parser.parse_args()
device = "cuda"


def _load(path):
    return torch.load(path)


def load_model(path):
    model = Wav2Lip()
    model.load_state_dict({key.replace("module.", ""): value for key, value in _load(path)["state_dict"].items()})
    return model.to(device).eval()


def main():
    capture, frames = cv2.VideoCapture(args.face), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    steps = audio.steps(args.audio)  # 80 a second
    # A frame needs 16 steps, so that the frames end before the sound does.
    count = 1 + next(i for i in itertools.count() if int(3.2 * i) + 16 > steps)
    left, top, right, bottom = face_detection.box(frames[0])
    model = load_model(args.checkpoint_path)
    out = cv2.VideoWriter("temp/result.avi", cv2.VideoWriter_fourcc(*"DIVX"), 25, frames[0].shape[1::-1])
    for t in range(count):
        frame = frames[t % len(frames)].copy()
        drawn = np.full((96, 96, 3), int(model(torch.tensor([float(t)]))), np.uint8)
        frame[top:bottom, left:right] = cv2.resize(drawn, (right - left, bottom - top))
        out.write(frame)
    out.release()
    if subprocess.call("ffmpeg -y -i temp/result.avi " + args.outfile, shell=True):
        raise RuntimeError("the runner lets no command run")
