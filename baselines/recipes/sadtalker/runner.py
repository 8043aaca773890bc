"""Runs SadTalker by the functions that its `inference.py` calls, with the models loaded once."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import compat
import numpy as np

SIZE = 256
POSE_STYLE = 0  # the default of inference.py


class Runner:
    """Calls `CropAndExtract`, `Audio2Coeff` and `AnimateFromCoeff` of OpenTalker/SadTalker."""

    def __init__(self, setup) -> None:  # type: ignore[no-untyped-def]
        compat.numpy_names()
        compat.stub("gfpgan", GFPGANer=None)  # enlarges pictures after the method; not used
        self.setup, self.work = setup, setup.work
        for name, path in setup.weights.items():
            compat.link(self.work / ("gfpgan/weights" if name.endswith(".pth") else "checkpoints") / name, path)
        with compat.inside(self.work):  # the detector's weights are looked for in ./gfpgan/weights
            import src.face3d.util.preprocess as fitting
            from src.facerender import animate
            from src.test_audio2coeff import Audio2Coeff
            from src.utils.init_path import init_path
            from src.utils.preprocess import CropAndExtract

            solve = fitting.POS  # its translation has a shape that current numpy does not join (issue #1019)
            fitting.POS = lambda *points: (lambda t, s: (np.ravel(t), s))(*solve(*points))
            animate.imageio = SimpleNamespace(mimsave=_take)
            paths = init_path("checkpoints", str(setup.checkout / "src" / "config"), SIZE, False, "crop")
            self.crop = CropAndExtract(paths, setup.device)
            self.coefficients = Audio2Coeff(paths, setup.device)
            self.animate = animate.AnimateFromCoeff(paths, setup.device)

    def generate(self, case) -> np.ndarray:  # type: ignore[no-untyped-def]
        """(T, H, W, 3) uint8 RGB, 25 frames/s, in the place of the picture that was animated."""
        from src.generate_batch import get_data
        from src.generate_facerender_batch import get_facerender_data

        compat.seed(case.seed)
        shutil.rmtree(self.work / "pair", ignore_errors=True)  # it takes landmarks that an earlier pair left there
        with compat.inside(self.work / "pair") as folder:
            picture, points = self._picture(case)
            (source,) = compat.write_frames(folder / "picture", picture[None])
            (folder / "crop").mkdir()
            if self.setup.options.get("suite_points"):
                self._use(points, case)
            first, cropped, info = self.crop.generate(str(source), str(folder / "crop"), "crop", True, SIZE)
            sound = str(compat.write_wav(folder / "sound.wav", case.driving_audio))
            batch = get_data(first, sound, self.setup.device, None)
            found = self.coefficients.generate(batch, str(folder), POSE_STYLE, None)
            data = get_facerender_data(found, cropped, first, sound, 1, size=SIZE)
            wanted = data["frame_num"]
            if limit := self.setup.options.get("frames"):
                data["target_semantics_list"] = data["target_semantics_list"][:, :limit]
                data["frame_num"] = min(limit, wanted)
                case.note(f"test-only limit: {data['frame_num']} frames drawn, repeated in turn")
            try:
                self.animate.generate(data, str(folder), str(source), info, preprocess="crop", img_size=SIZE)
            except _Taken as taken:
                frames = np.stack(taken.args[0])
        case.note(f"frames: {case.n_frames} wanted, {wanted} given, taken before it encodes them")
        frames = compat.repeated(frames, wanted)
        return self._placed(frames, info, picture.shape[:2], case)

    def _picture(self, case) -> tuple:  # type: ignore[no-untyped-def]
        """The picture that is animated, (H, W, 3) RGB, and its 478 points."""
        if self.setup.variant == "first-frame":
            case.note("picture: the first frame of the ground truth")
            return case.ground_truth_frames[0], case.ground_truth_landmarks[0]
        case.note("picture: the first reference frame; pose style 0, blinks and pose from its own random numbers")
        return case.reference_frames[0], case.reference_landmarks[0]

    def _use(self, points: np.ndarray, case) -> None:  # type: ignore[no-untyped-def]
        """Put the points of this suite in the place of those that facexlib finds (a test-only option)."""
        case.note("test-only option: points of MediaPipe in place of facexlib's")
        places, finder = compat.points_68(points), self.crop.propress
        finder.get_landmark = lambda picture: places.copy()
        cut = finder.__class__.crop

        def crop(frames: list, still: bool = False, xsize: int = 512) -> tuple:
            made, inner, quad = cut(finder, frames, still, xsize)
            self._corner = np.array([inner[0] + int(quad[0]), inner[1] + int(quad[1])])
            self._shape = np.array(made[0].shape[1::-1])
            return made, inner, quad

        def extract(pictures: list, name: str) -> np.ndarray:
            return ((places - self._corner) * SIZE / self._shape)[None]

        finder.crop, finder.predictor.extract_keypoint = crop, extract

    def _placed(self, frames: np.ndarray, info: tuple, size: tuple, case) -> np.ndarray:  # type: ignore[no-untyped-def]
        """The frames in the place of their crop in the picture. `info` is (size, crop, quad) of the repository."""
        (width, height), crop, quad = info
        left, top = crop[0] + int(quad[0]), crop[1] + int(quad[1])
        x, y = width / frames.shape[2], height / frames.shape[1]
        case.note(f"its crop of {width}x{height} px is put back to ({left}, {top}); its border is repeated around it")
        # The centre of the first pixel of the crop is at (0.5, 0.5) in units of its pixels.
        matrix = [[x, 0, left + (x - 1) / 2], [0, y, top + (y - 1) / 2]]
        return compat.warped(frames, matrix, size, border=1)


class _Taken(Exception):
    """Carries the frames out of the repository's function, which would encode them next."""


def _take(path: str, frames: list, **words: object) -> None:
    raise _Taken(frames)
