"""Runs FLOAT: the frames are taken where the script would encode its video, and put back into the crop of the case."""

from __future__ import annotations

import os
import tempfile

import compat
import numpy as np

_AROUND = 1.6  # side of the script's square over the longer side of the face box
_FOLDERS = {
    "wav2vec2-base-960h": ("config.json", "preprocessor_config.json", "pytorch_model.bin"),
    "wav2vec-english-speech-emotion-recognition": ("config.json", "pytorch_model.bin"),
}


class Runner:
    """`InferenceAgent(opt).run_inference` of generate.py of deepbrainai-research/float."""

    def __init__(self, setup) -> None:  # type: ignore[no-untyped-def]
        """The variant `label` gives the target emotion; in the default form, FLOAT finds the emotion in the sound."""
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # albumentations asks a server for its newest version
        tempfile.tempdir = str(setup.work)  # the script leaves its temporary videos
        if setup.device == "cpu":
            compat.cpu()
        compat.torchvision_operators()
        self._faces = _Faces()
        compat.stub("face_alignment", FaceAlignment=lambda *args, **kwargs: self._faces, LandmarksType=_Faces)
        self._setup, self._videos = setup, compat.MemoryVideos()
        words = ["generate.py", "--ckpt_path", str(setup.weights["float.pth"])]
        for folder, option in zip(_FOLDERS, ("--wav2vec_model_path", "--audio2emotion_path"), strict=True):
            for name in _FOLDERS[folder]:
                compat.link(setup.work / folder / name, setup.weights[f"{folder}.{name}"])
            words += [option, str(setup.work / folder)]
        with compat.arguments(*words):
            import generate

            options = generate.InferenceOptions().parse()
        options.rank = generate.torch.device(setup.device)
        self._agent = generate.InferenceAgent(options)

    def generate(self, case) -> np.ndarray:  # type: ignore[no-untyped-def]
        """(T, H, W, 3) uint8 RGB, 25 frames/s."""
        compat.seed(case.seed)  # FLOAT draws its noise with torch; `--seed` alone has no effect
        work, picture = self._setup.work, case.reference_frames[0]
        count = min(case.n_frames, self._setup.options.get("frames", case.n_frames))
        points = case.reference_landmarks[0][:, :2]
        self._faces.box, self._faces.height = np.concatenate([points.min(0), points.max(0)]), len(picture)
        (path,) = compat.write_frames(work / "picture", picture[None])
        sound = compat.write_wav(work / "sound.wav", case.driving_audio[: count * 640])
        emotion = "S2E"
        if self._setup.variant:
            emotion = self._setup.emotions[case.target_emotion]
        case.note(f"emotion: {emotion if self._setup.variant else 'found by FLOAT in the sound'}")
        self._agent.run_inference(str(work / "out.mp4"), str(path), str(sound), emo=emotion)
        ((_, made),) = self._videos.items()
        self._videos.clear()
        case.note("first reference frame; box of its 478 points in place of S3FD's, 1.6 times as large, 512 px")
        case.note(f"{len(made)} frames made, {case.n_frames} wanted; taken before the script encodes them")
        case.note("the square is put back to its place in the reference frame, with its outermost pixels around it")
        frames = compat.warped(made, self._faces.back(made.shape[1]), picture.shape[:2], border=1)
        if count < case.n_frames:
            case.note(f"test-only limit: {count} frames drawn, repeated in turn")
            return compat.repeated(frames, case.n_frames)
        return frames


class _Faces:
    """Takes the place of face-alignment's detector, which downloads S3FD, and gives the box of the known landmarks.

    Attributes:
        box: left, top, right and bottom of the face in the reference frame, px.
        height: height of the reference frame, px. The script asks for the faces of a resized frame.
    """

    TWO_D = None  # the one name of `LandmarksType` that is read
    box = np.zeros(4)
    height = 1

    @property
    def face_detector(self) -> _Faces:
        """This object."""
        return self

    def detect_from_image(self, picture: np.ndarray) -> list:
        """One box with its score, in pixels of the given picture."""
        return [[*(self.box * len(picture) / self.height), 1.0]]

    def back(self, side: int) -> np.ndarray:
        """(2, 3): from the script's square to the reference frame, by the whole numbers of its `process_img`."""
        left, top, right, bottom = self.box.astype(int)
        half = int(max((bottom - top) // 2, (right - left) // 2) * _AROUND)
        scale = 2 * half / side
        middle = np.array([(left + right) // 2, (top + bottom) // 2])
        # 0.5: the borders of the pictures fall together, not the middles of their first pixels
        return np.column_stack([np.eye(2) * scale, middle - half + 0.5 * scale - 0.5])
