"""Runs ETK, the generator of eeskimez/emotalkingface, for the outputs of one emotion.

The repository's `generate.py` is a script that deletes its output folder and makes all six emotions. This file calls
the classes that the script calls: `models.GENERATOR`, `facealigner.FaceAligner` and `helper.shape_to_np`.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import compat
import numpy as np

LABELS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")  # in the order of the generator's one-hot vector
RATE, FPS = 8000, 25
CUT = 10  # generate.py cuts the last ten frames
SIZE = 128


class Runner:
    """Calls `models.GENERATOR` of eeskimez/emotalkingface with the label of the target emotion."""

    def __init__(self, setup) -> None:  # type: ignore[no-untyped-def]
        import dlib
        import torch
        from models import GENERATOR

        self.setup, self.device = setup, torch.device(setup.device)
        settings = json.loads((setup.checkout / "model" / "args.txt").read_text())
        settings |= {"fs": RATE, "fps": float(FPS), "increment": RATE / FPS, "device": self.device}
        self.generator = GENERATOR(SimpleNamespace(**settings), train=False, debug=True).to(self.device).eval()
        state = torch.load(setup.weights["generator.pt"], map_location=self.device)
        self.generator.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
        self.detect = dlib.get_frontal_face_detector()
        places = setup.checkout / "data" / "dlib_data" / "shape_predictor_68_face_landmarks.dat"
        self.predict = dlib.shape_predictor(str(places))
        self.mean_shape = self._mean_shape()

    def generate(self, case) -> np.ndarray:  # type: ignore[no-untyped-def]
        """(T, H, W, 3) uint8 RGB, 25 frames/s, in the place of the picture that was animated."""
        import librosa
        import torch

        compat.seed(case.seed)
        image, place = self._picture(case)
        picture = torch.from_numpy(image).to(self.device)
        sound = compat.with_silence(case.driving_audio, CUT * 16000 // FPS)
        speech = librosa.resample(sound / np.float32(32768), orig_sr=16000, target_sr=RATE)
        speech = torch.from_numpy(speech / max(float(np.abs(speech).max()), 1e-9)).float().to(self.device)
        emotion = self.setup.emotions[case.target_emotion]
        label = torch.eye(len(LABELS), device=self.device)[[LABELS.index(emotion)]]
        with torch.no_grad():
            out, _ = self.generator(picture, speech[None, None], label)
        frames = (255 * (0.5 + out[0].cpu().numpy() / 2)).astype(np.uint8)[:-CUT]
        case.note(f"output {emotion} of six; {CUT} frames of silence appended, which it cuts")
        case.note(
            f"frames: {case.n_frames} wanted, {len(frames)} given; its crop of {SIZE} px is put back to its place"
        )
        frames = np.ascontiguousarray(frames.transpose(0, 2, 3, 1)[..., ::-1])
        return compat.warped(frames, place[:2], case.size, border=1)

    def _picture(self, case) -> tuple:  # type: ignore[no-untyped-def]
        """The aligned picture, (1, 3, 128, 128) float32 in [-1, 1], BGR, and the matrix from its px to the frame's."""
        first = self.setup.variant == "first-frame"
        frames, points = (
            (case.ground_truth_frames, case.ground_truth_landmarks)
            if first
            else (case.reference_frames, case.reference_landmarks)
        )
        image = np.ascontiguousarray(frames[0][..., ::-1])
        found = self._shape(image)
        places = compat.points_68(points[0]) if found is None else found[1]
        whose = "MediaPipe (dlib found no face)" if found is None else "dlib"
        case.note(
            f"picture: the first {'real' if first else 'reference'} frame, aligned to {SIZE} px by 68 points of {whose}"
        )
        aligner = self._aligner()
        aligner.get_tform(image, places, self.mean_shape)
        image, _ = aligner.apply_tform(image)
        return np.float32(image).transpose(2, 0, 1)[None] / 127.5 - 1, aligner.tform.params

    def _mean_shape(self) -> np.ndarray:
        """The 68 points of the repository's template face, (68, 2), between 20% and 80% of the picture."""
        import cv2

        image = cv2.imread(str(self.setup.checkout / "data_prep" / "template_face.jpg"))
        box, points = self._shape(image)
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        aligned, _ = self._aligner().align(image, grey, box, self.predict(grey, box), None)
        # Where dlib finds no face in the aligned template, the script too goes on with the points found before.
        points = (self._shape(aligned) or (box, points))[1].astype(np.float64)
        points = (points - points.min(0)) / np.ptp(points, 0)
        return SIZE * (0.6 * points + 0.2)

    def _aligner(self):  # type: ignore[no-untyped-def]
        from facealigner import FaceAligner

        return FaceAligner(self.predict, desiredLeftEye=(0.25, 0.25), desiredFaceWidth=SIZE)

    def _shape(self, image: np.ndarray) -> tuple | None:
        """dlib's box and 68 points, (68, 2), of the face in a BGR picture; None without a face."""
        import cv2
        from helper import shape_to_np

        boxes = self.detect(image, 1)
        if not boxes:
            return None
        return boxes[0], shape_to_np(self.predict(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), boxes[0]))
