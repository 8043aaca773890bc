"""Runs IP-LAP's script on landmarks of the case: the frames are taken where it would encode its video."""

from __future__ import annotations

import runpy
from types import SimpleNamespace

import compat
import numpy as np

_BEHIND = 4  # frames of silence: the script ends with the mel window of 5 frames that touches the end of the sound
# MediaPipe's points for points 0 to 26 of iBUG 300-W: jaw and brows, both from left to right.
_OUTLINE = (127, 234, 93, 132, 172, 136, 149, 176, 152, 400, 378, 365, 397, 361, 323, 454, 356)
_OUTLINE += (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)


class Runner:
    """inference_single.py of Weizhi-Zhong/IP_LAP, run once a case; its two networks stay in memory."""

    def __init__(self, setup) -> None:  # type: ignore[no-untyped-def]
        """The variant `upper-half` edits the real upper half, with the landmarks of the ground truth."""
        compat.torchvision_operators()
        import torch
        import torchvision

        if setup.device == "cpu":
            compat.cpu()
            torch.cuda.is_available = lambda: False
        compat.numpy_names()
        compat.mel()
        compat.stub("lws")  # imported, and not used
        self._faces = _Faces()
        compat.stub("face_alignment", FaceAlignment=lambda *args, **kwargs: self._faces, LandmarksType=_Faces)
        vgg19 = torchvision.models.vgg19
        torchvision.models.vgg19 = lambda pretrained: vgg19(weights=None)  # its weights are in the renderer's file
        mediapipe = compat.stub("mediapipe")
        compat.stub("mediapipe.framework.formats", landmark_pb2=None)
        import cv2
        import draw_landmark
        import models

        drawing = SimpleNamespace(DrawingSpec=draw_landmark.DrawingSpec)
        mediapipe.solutions = SimpleNamespace(face_mesh=SimpleNamespace(FaceMesh=self._mesh), drawing_utils=drawing)
        cv2.VideoWriter = compat.FrameTaker
        # The script computes two losses for each frame and does not use them.
        models.video_renderer.PerceptualLoss.forward = lambda network, made, *args, **kwargs: made.new_zeros(1)
        if limit := setup.options.get("references"):
            network = models.video_renderer.DenseFlowNetwork
            network.forward = _with_fewer(network.forward, limit)
        compat.keep_loaded()
        compat.keep(models, "Renderer", "Landmark_generator")
        self._setup = setup

    def generate(self, case) -> np.ndarray:  # type: ignore[no-untyped-def]
        """(T, H, W, 3) uint8 RGB, 25 frames/s: the source video with another inside of the face."""
        compat.seed(case.seed)
        weights, options = self._setup.weights, self._setup.options
        count = min(case.n_frames, options.get("frames", case.n_frames))
        video, points = self._edited(case)
        self._faces.begin(points[:, :, :2], video.shape[1:3])
        with compat.inside(self._setup.work / "pair") as folder:
            sound = compat.with_silence(case.driving_audio[: count * 640], _BEHIND * 640)
            words = ["--audio", compat.write_wav(folder / "sound.wav", sound).name]
            # A name without a folder: the script takes the text between the first two dots for the suffix.
            words += ["--input", compat.write_video(folder / "face.mp4", video).name, "--output_dir", "made"]
            words += ["--landmark_gen_checkpoint_path", str(weights["landmarkgenerator_checkpoint.pth"])]
            words += ["--renderer_checkpoint_path", str(weights["renderer_checkpoint.pth"])]
            with compat.arguments("inference_single.py", *words):
                runpy.run_path(str(self._setup.checkout / "inference_single.py"))
        made = np.stack(compat.FrameTaker.frames)[:count, :, video.shape[2] :, ::-1]  # the left half is a sketch
        case.note(f"{_BEHIND} frames of silence behind the sound; {len(compat.FrameTaker.frames)} frames made")
        case.note("478 points of the case in place of Face Mesh's, and their jaw and brows in place of FAN's")
        case.note("frames taken before the script encodes them; the first two are the third")
        if limit := options.get("references"):
            case.note(f"test-only limit: {limit} of 25 reference pictures")
        if count < case.n_frames:
            case.note(f"test-only limit: {count} frames drawn, repeated in turn")
            return compat.repeated(made, case.n_frames)
        return made

    def _edited(self, case) -> tuple:  # type: ignore[no-untyped-def]
        """The video that is edited, and its landmarks."""
        if not self._setup.variant:
            case.note(f"edits the source video ({len(case.source_frames)} frames), which goes back where it is shorter")
            return case.source_frames, case.source_landmarks
        case.note("edits the real upper half over the lower half of the first reference frame, by the real landmarks")
        frames = case.upper_half_frames.copy()
        middle = frames.shape[1] // 2
        frames[:, middle:] = case.reference_frames[0][middle:]
        return frames, case.ground_truth_landmarks

    def _mesh(self, **settings: object) -> _Faces:
        return self._faces


def _with_fewer(draw, count: int):  # type: ignore[no-untyped-def]
    """The flow network with its first reference pictures only; it warps every picture by itself."""
    return lambda network, pictures, sketches, drawn: draw(network, pictures[:, :count], sketches[:, :count], drawn)


class _Faces:
    """Takes the places of MediaPipe's Face Mesh and of FAN, and answers with the landmarks of the case."""

    _2D = None  # the one name of `LandmarksType` that is read

    def begin(self, points: np.ndarray, size: tuple) -> None:
        """A new case: (T, 478, 2) points, px, of frames of `size` (H, W)."""
        self._points, self._size, self._seen, self._drawn = points, size, 0, 2

    def __enter__(self) -> _Faces:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def process(self, picture: np.ndarray) -> SimpleNamespace:
        """The face of the next frame, as Face Mesh gives it; the script reads all frames twice in their order."""
        height, width = self._size
        points = self._points[self._seen % len(self._points)] / (width, height)
        self._seen += 1
        face = SimpleNamespace(landmark=[SimpleNamespace(x=float(x), y=float(y)) for x, y in points])
        return SimpleNamespace(multi_face_landmarks=[face])

    def get_landmarks(self, crop: np.ndarray) -> list:
        """(27, 2) points of jaw and brows in a crop of the next drawn frame; the script begins with the third frame."""
        index = self._drawn % (2 * len(self._points))
        self._drawn += 1
        frame = min(index, 2 * len(self._points) - 1 - index)  # forwards, then backwards
        whole = crop.base  # the crop is a view of the frame, so its address gives its place in the frame
        place = crop.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        row, column = divmod(place, whole.strides[0])
        return [self._points[frame][list(_OUTLINE)] - (column // whole.strides[1], row)]
