"""Functions that runners call before they import a checkout, so that old code runs on present packages without an edit.

Only the standard library is imported at the top; every other package is imported by the function that needs it. The
interpreter of the method's environment runs this file (Python 3.7 or later).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import types
import wave
from pathlib import Path


def cpu() -> None:
    """Let torch code with hard calls of CUDA run on a CPU: `.cuda()` is the identity, and files load onto the CPU."""
    import torch

    for kind in (torch.Tensor, torch.nn.Module):
        kind.cuda = lambda self, *args, **kwargs: self
    torch.cuda.set_device = lambda device: None
    load = torch.load

    def load_on_cpu(*args, **kwargs):  # type: ignore[no-untyped-def]
        kwargs["map_location"] = "cpu"
        return load(*args, **kwargs)

    torch.load = load_on_cpu


def numpy_names() -> None:
    """Give numpy the names that it removed: `np.float` and relatives (1.24), `np.VisibleDeprecationWarning` (2.0)."""
    import numpy

    kinds = {"float": float, "int": int, "bool": bool, "object": object, "complex": complex, "str": str}
    for name, kind in {**kinds, "VisibleDeprecationWarning": UserWarning}.items():
        if name not in vars(numpy):
            setattr(numpy, name, kind)


def mel() -> None:
    """Let `librosa.filters.mel` take rate and number of points by position (keywords only from 0.10)."""
    import librosa.filters

    new = librosa.filters.mel

    def by_position(sr, n_fft, *args, **kwargs):  # type: ignore[no-untyped-def]
        named = dict(zip(("n_mels", "fmin", "fmax", "htk", "norm", "dtype"), args))
        return new(sr=sr, n_fft=n_fft, **named, **kwargs)

    librosa.filters.mel = by_position


def stub(name: str, **members: object) -> types.ModuleType:
    """Put a module without content in place of a package that the used code does not need. Parents are made, too."""
    parent, _, last = name.rpartition(".")
    module = types.ModuleType(name)
    module.__path__ = []  # so that `import name.part` looks for stubs
    vars(module).update(members)
    if parent:
        setattr(sys.modules.get(parent) or stub(parent), last, module)
    sys.modules[name] = module
    return module


def torch_home(work: Path, files: dict[str, Path]) -> None:
    """Let `torch.hub` find these weight files, {file name: path}, so that it downloads nothing."""
    folder = work / "torch_home" / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        link(folder / name, path)
    os.environ["TORCH_HOME"] = str(work / "torch_home")


def link(place: Path, target: Path) -> Path:
    """Make a link at `place`, and the folders above it. An old link is replaced."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        place.unlink()
    place.symlink_to(target)
    return place


@contextlib.contextmanager
def inside(folder: Path):  # type: ignore[no-untyped-def]
    """Work in a folder for the length of a block, for code with relative paths. The folder is made if it is absent."""
    before = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


@contextlib.contextmanager
def arguments(*words: str):  # type: ignore[no-untyped-def]
    """Set `sys.argv` for the length of a block, for code that parses its arguments at import."""
    before, sys.argv = sys.argv, list(words)
    try:
        yield
    finally:
        sys.argv = before


def seed(value: int) -> None:
    """Seed `random`, numpy and torch."""
    import numpy
    import torch

    random.seed(value)
    numpy.random.seed(value % 2**32)
    torch.manual_seed(value)


def with_silence(samples, count: int):  # type: ignore[no-untyped-def]
    """The sound with `count` samples of silence behind it, (N,) int16 to (N + count,)."""
    import numpy

    return numpy.concatenate([samples, numpy.zeros(count, samples.dtype)])


def write_wav(path: Path, samples, rate: int = 16000) -> Path:  # type: ignore[no-untyped-def]
    """Write (N,) int16 samples as a mono WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def write_frames(folder: Path, frames, pattern: str = "{:06d}.png") -> list:  # type: ignore[no-untyped-def]
    """Write (T, H, W, 3) RGB frames as pictures into a folder that is emptied first. Returns their paths."""
    import cv2

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = [folder / pattern.format(i) for i in range(len(frames))]
    for path, frame in zip(paths, frames):
        if not cv2.imwrite(str(path), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)):
            raise OSError(f"cannot write {path.name}")
    return paths


def write_video(path: Path, frames, fps: int = 25) -> Path:  # type: ignore[no-untyped-def]
    """Write (T, H, W, 3) RGB frames as an H.264 file without colour subsampling, for code that reads a video file."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "0", "preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def read_video(path: Path):  # type: ignore[no-untyped-def]
    """The frames of a video file, (T, H, W, 3) uint8 RGB, in its own frame rate."""
    import av
    import numpy

    with av.open(str(path)) as container:
        return numpy.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def only(folder: Path, pattern: str) -> Path:
    """The one file in a folder that fits the pattern. Raises RuntimeError if there is none or more than one."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "no file"
        raise RuntimeError(f"one output {pattern} is wanted, and the repository wrote {names}")
    return found[0]


class FrameTaker:
    """Takes the place of `cv2.VideoWriter` and keeps the frames, so that no lossy file is written and read again.

    Attributes:
        frames: the BGR frames that were written since `frames` was last emptied.
    """

    frames: list = []

    def __init__(self, *arguments: object) -> None:
        FrameTaker.frames = []

    def write(self, frame) -> None:  # type: ignore[no-untyped-def]
        """Keep a copy of the frame."""
        FrameTaker.frames.append(frame.copy())

    def release(self) -> None:
        """Do nothing; the frames stay."""

    def isOpened(self) -> bool:
        """Whether frames are taken: always."""
        return True


def qr() -> None:
    """Let `torch.qr`, which raises an error in current versions, give the matrices of `torch.linalg.qr`."""
    import torch

    torch.qr = lambda matrix: torch.linalg.qr(matrix)


def torchvision_operators() -> None:
    """Import torchvision where its compiled operators do not fit the build of torch; they then do not exist.

    This is the case for the CUDA build of torchvision next to the CPU build of torch.
    """
    import torch

    register = getattr(torch.library, "register_fake", None)

    def tolerant(name, *args, **kwargs):  # type: ignore[no-untyped-def]
        decorate = register(name, *args, **kwargs)

        def decorated(function):  # type: ignore[no-untyped-def]
            try:
                return decorate(function)
            except RuntimeError:
                return function

        return decorated

    if register is not None:
        torch.library.register_fake = tolerant
    import torchvision  # noqa: F401

    if register is not None:
        torch.library.register_fake = register


def options_in_weights() -> None:
    """Let `torch.load` read files in which trainers stored their options, an `argparse.Namespace`, besides tensors.

    From version 2.6, it refuses every class that is not named; this one holds values and runs no code.
    """
    import argparse

    import torch

    add = getattr(torch.serialization, "add_safe_globals", None)
    if add is not None:
        add([argparse.Namespace])


def keep(module: types.ModuleType, *names: str) -> None:
    """Let each named class of a module make only one object, so that a script keeps its networks from call to call."""
    for name in names:
        setattr(module, name, _one(getattr(module, name)))


def _one(kind):  # type: ignore[no-untyped-def]
    made: list = []

    def one(*args, **kwargs):  # type: ignore[no-untyped-def]
        if not made:
            made.append(kind(*args, **kwargs))
        return made[0]

    return one


def keep_loaded() -> None:
    """Let `torch.load` read each file once."""
    import torch

    load, loaded = torch.load, {}

    def once(file, *args, **kwargs):  # type: ignore[no-untyped-def]
        if str(file) not in loaded:
            loaded[str(file)] = load(file, *args, **kwargs)
        return loaded[str(file)]

    torch.load = once


class MemoryVideos(dict):
    """Videos in memory, {file name: (T, H, W, 3) uint8 RGB}, which torchvision.io reads and writes as if on disk.

    They have 25 frames/s and no sound. Nothing is encoded, so no frame has the loss of a codec.
    """

    def __init__(self) -> None:
        super().__init__()
        import torchvision.io

        torchvision.io.read_video, torchvision.io.write_video = self._read, self._write

    def _read(self, filename, *args, **kwargs):  # type: ignore[no-untyped-def]
        import torch

        return torch.from_numpy(self[str(filename)].copy()), torch.zeros(1, 0), {"video_fps": 25.0}

    def _write(self, filename, video_array, *args, **kwargs):  # type: ignore[no-untyped-def]
        import numpy

        self[str(filename)] = numpy.array(video_array)
        Path(filename).touch()  # scripts delete the file when they have added the sound


def warped(frames, matrix, size, border: int = 0):  # type: ignore[no-untyped-def]
    """Warp every frame by one affine matrix, (T, h, w, 3) uint8 to (T, H, W, 3).

    Args:
        frames: the frames.
        matrix: (2, 3), from points of a frame to points of the result, px.
        size: (H, W).
        border: 0 for black outside the frame, 1 for its outermost pixels.
    """
    import cv2
    import numpy

    matrix = numpy.asarray(matrix, numpy.float64)
    scale = float(numpy.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 1:  # blur first: warping reads single pixels
        frames = [cv2.GaussianBlur(frame, (0, 0), 0.4 / scale) for frame in frames]
    mode = cv2.BORDER_REPLICATE if border else cv2.BORDER_CONSTANT
    return numpy.stack([cv2.warpAffine(frame, matrix, (size[1], size[0]), borderMode=mode) for frame in frames])


def repeated(frames, count: int):  # type: ignore[no-untyped-def]
    """The frames again and again until there are `count`; only test-only limits call it."""
    import numpy

    return numpy.stack([frames[i % len(frames)] for i in range(count)])


# talking_face.faces.points68.MEDIAPIPE_OF_IBUG68; a test compares the two.
IBUG68 = (127, 234, 93, 132, 172, 136, 149, 176, 152, 400, 378, 365, 397, 361, 323, 454, 356, 70, 63, 105, 66, 107)
IBUG68 += (336, 296, 334, 293, 300, 168, 6, 195, 4, 240, 97, 2, 326, 460, 33, 160, 158, 133, 153, 144, 362, 385, 387)
IBUG68 += (263, 373, 380, 61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91, 78, 82, 13, 312, 308, 317, 14, 87)


def points_68(landmarks):  # type: ignore[no-untyped-def]
    """The 68 points of iBUG 300-W, (..., 68, 2), of MediaPipe's points, (..., 478, 2 or 3), in the same unit."""
    return landmarks[..., list(IBUG68), :2]


def template_place(picture, template, detector, predictor):  # type: ignore[no-untyped-def]
    """The similarity from px of a template face to px of an RGB picture, (3, 3), as EAMM and EAT align pictures.

    Args:
        picture: (H, W, 3) uint8 RGB.
        template: (68, 2), the points of the template; the first 47 are used.
        detector, predictor: dlib's face detector and its predictor of 68 points.

    Raises ValueError if the picture does not show exactly one face.
    """
    import cv2
    import numpy
    from skimage.transform import SimilarityTransform

    grey = cv2.cvtColor(numpy.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    boxes = detector(grey, 1)
    if len(boxes) != 1:
        raise ValueError(f"dlib finds {len(boxes)} faces in a first frame, and one is needed")
    shape = predictor(grey, boxes[0])
    points = [(shape.part(i).x, shape.part(i).y) for i in range(47)]
    found = SimilarityTransform()
    found.estimate(numpy.float32(template[:47]), numpy.float32(points))
    return found.params


def aligned(frames, matrix, side: int):  # type: ignore[no-untyped-def]
    """Frames in the place of a template, (T, side, side, 3) float64 in [0, 1]; `matrix` is that of `template_place`."""
    import numpy
    from skimage.transform import warp

    return numpy.stack([warp(frame, matrix, output_shape=(side, side)) for frame in frames])
