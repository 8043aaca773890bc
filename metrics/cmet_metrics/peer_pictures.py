"""Computes PSNR and SSIM as the evaluation code of EAT, of the ViCo challenge and of ATVGnet computes them.

Each of the three codes has its own pictures, its own pairs of frames and its own definition of PSNR or SSIM. Their
values differ by several dB for the same two videos.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import cv2
import numpy as np

from cmet_metrics.base import Metric, Sample, Score, Settings, Variant, check_same_size
from cmet_metrics.eat_align import STORED, resized_crops, stored_crops
from cmet_metrics.frames import FrameRule, pair_frames
from cmet_metrics.psnr import psnr
from cmet_metrics.ssim import WINDOW, ssim, ssim_box
from talking_face.pretrained.store import weight_hash
from talking_face.reasons import ClipError, Reason, UserError

Peer = Literal["eat", "eat-stored", "vico", "atvgnet"]
Pair = tuple[np.ndarray, np.ndarray]  # two frames, (H, W, 3) uint8 RGB, of equal size

MIN_VALID = 0.5  # EAT: a clip gets a reason if fewer than this share of its pairs of frames has two crops
_FRAMES: dict[Peer, FrameRule] = {"eat": "linspace", "eat-stored": "linspace", "vico": "exact", "atvgnet": "min"}
_SIDE = 256  # px: ATVGnet resizes to this size; ViCo shrinks frames whose shorter side is at least 1.5 times as long
_EPS = 1e-8  # ViCo adds this number to the mean squared error of values from 0 to 1, so that the highest PSNR is 80 dB
_EQUAL_DB = 100.0  # dB: ATVGnet's value for equal frames
_SOURCES: dict[Peer, str] = {
    "eat": "github.com/yuangan/evaluation_eat at e39b004, code/test_psnr_ssim.py and code/utils_crop_psnr.py",
    "eat-stored": "github.com/yuangan/evaluation_eat at e39b004, test_psnr_ssim_sync_emoacc.sh, code/preprocess.py, "
    "code/utils_crop.py and code/test_psnr_ssim.py",
    "vico": "github.com/dc3ea9f/vico_challenge_baseline at 16424c0, evaluations/compute_base_metrics.py, with piq",
    "atvgnet": "github.com/lelechen63/ATVGnet at 02d8f8f, evaluation_matrix.py (compare_ssim, psnr_f)",
}
_MS: dict[Peer, tuple[float, float]] = {  # PSNR, SSIM
    "eat": (80.0, 80.0),
    "eat-stored": (80.0, 80.0),
    "vico": (0.1, 3.0),
    "atvgnet": (0.3, 7.0),
}
_EAT_BIBTEX = """@inproceedings{gan2023eat,
  author = {Gan, Yuan and Yang, Zongxin and Yue, Xihang and Sun, Lingyun and Yang, Yi},
  title = {Efficient emotional adaptation for audio-driven talking-head generation},
  booktitle = {ICCV}, year = {2023}}"""
_BIBTEX: dict[Peer, str] = {
    "eat": _EAT_BIBTEX,
    "eat-stored": _EAT_BIBTEX,
    "vico": """@inproceedings{zhou2022vico,
  author = {Zhou, Mohan and Bai, Yalong and Zhang, Wei and Yao, Ting and Zhao, Tiejun and Mei, Tao},
  title = {Responsive listening head generation: A benchmark dataset and baseline},
  booktitle = {ECCV}, year = {2022}}""",
    "atvgnet": """@inproceedings{chen2019atvgnet,
  author = {Chen, Lele and Maddox, Ross K. and Duan, Zhiyao and Xu, Chenliang},
  title = {Hierarchical cross-modal talking face generation with dynamic pixel-wise loss},
  booktitle = {CVPR}, year = {2019}}""",
}


def pooled_side(frame: np.ndarray) -> np.ndarray:
    """The frame as piq's SSIM shrinks it: means over squares of f px, where f is the shorter side / 256, rounded.

    Args:
        frame: (H, W, C).

    Returns:
        (H // f, W // f, C) float64, or the frame itself if f is 1.
    """
    f = max(1, round(min(frame.shape[:2]) / _SIDE))
    if f == 1:
        return frame
    height, width = frame.shape[0] // f, frame.shape[1] // f
    squares = frame[: height * f, : width * f].reshape(height, f, width, f, -1)
    return np.asarray(squares.mean(axis=(1, 3), dtype=np.float64))


def wrapped_psnr(a: np.ndarray, b: np.ndarray) -> float:
    """ATVGnet's PSNR of two grey uint8 pictures, dB; 100 for equal pictures.

    The differences and their squares are uint8 in the source. They are therefore taken modulo 256, and the value is
    not a PSNR. It equals the values of the source.
    """
    difference = a - b
    error = float(np.mean(difference * difference))
    return 20.0 * math.log10(255.0 / math.sqrt(error)) if error else _EQUAL_DB


@dataclass(frozen=True, kw_only=True)
class PeerPictures(Metric):
    """The base class: pairs of pictures, one value per pair, and the mean over all pairs of all clips.

    - `eat`: the frames are paired by `linspace`, and cropped as in `eat_align.resized_crop`. A pair in which a crop is
      missing is left out. Reasons: `no-face`, `few-faces`.
    - `eat-stored`: the crops of `eat_align.stored_crops`, which were stored as MPEG-4, paired by `linspace`. Frames
      without a face are removed before the frames are paired. A clip with one crop has a value, as in the source.
    - `vico`: whole frames of equal number and size.
    - `atvgnet`: whole frames, resized to 256x256 px by averaging. Frame k is compared with frame k.

    Stats: values (sum over pairs, named like the metric), frames (number of scored pairs), pairs (number of all pairs).
    """

    peer: Peer = "eat"
    least: Literal["half", "one-pair"] = "half"  # of EAT: pairs that need two crops, or a reason

    pitfalls = (
        "These are the numbers of other repositories, for comparison with their tables only. Crop and range differ: "
        "eat is lower by several dB than the whole frame, and atvgnet's PSNR takes differences modulo 256."
    )
    higher_is_better = True
    pooled = True
    worsened_by = frozenset({"reencode", "blur", "jpeg", "identity-swap", "frames-held"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least != "half" and not self.weights:
            raise UserError(f"{self.name}: least={self.least} has the peers eat and eat-stored only")

    @property
    def weights(self) -> tuple[str, ...]:
        return ("dlib_68",) if self.peer in ("eat", "eat-stored") else ()

    @property
    def source(self) -> str:
        return _SOURCES[self.peer]

    @property
    def bibtex(self) -> str:
        return _BIBTEX[self.peer]

    def settings(self) -> Settings:
        pictures: dict[Peer, Settings] = {
            "eat": {"crop": "eat-resized-163-128"},
            "eat-stored": {"crop": "eat-128", "codec": STORED},
            "vico": {"crop": "none"},
            "atvgnet": {"crop": "none", "resize": f"opencv-area-{_SIDE}"},
        }
        points: dict[str, str | int | float] = {}
        if self.weights:
            points["points"] = f"dlib68@{weight_hash('dlib_68', self.files)[:8]}"
            points["min-valid"] = MIN_VALID if self.least == "half" else "1-pair"
        return {**pictures[self.peer], **points, **self.definition(), "frames": _FRAMES[self.peer], "agg": "frame-mean"}

    @abstractmethod
    def definition(self) -> Settings:
        """The fields of the signature that describe `value`."""

    @abstractmethod
    def value(self, pred: np.ndarray, target: np.ndarray) -> float:
        """The value of two pictures of equal size; infinite if there is no finite value."""

    def compute(self, pred: Sample, target: Sample) -> Score:
        pairs = list(self._pairs(pred, target))
        expected = len(pair_frames(len(pred.pictures), len(target.pictures), _FRAMES[self.peer])[0])
        detail = "" if len(pairs) == expected else f"{len(pairs)} of {expected} pairs scored, the others have no crop"
        if len(pairs) < max(1, MIN_VALID * expected if self.least == "half" else 0):
            raise ClipError(Reason.FEW_FACES if pairs else Reason.NO_FACE, detail)
        values = [value for value in (self.value(*pair) for pair in pairs) if math.isfinite(value)]
        stats = {self.name: math.fsum(values), "frames": float(len(values)), "pairs": float(expected)}
        if not values:
            return Score.missing(Reason.INFINITE, "every frame is identical to its target", stats)
        if len(values) < len(pairs):
            detail = "; ".join(filter(None, (detail, f"{len(pairs) - len(values)} identical frames left out")))
        return Score(stats[self.name] / len(values), len(values), None, detail, stats)

    def mean_of(self, sums: Mapping[str, float]) -> float | None:
        return sums[self.name] / sums["frames"] if sums.get("frames") else None

    def _pairs(self, pred: Sample, target: Sample) -> Iterator[Pair]:
        if self.peer == "eat-stored":
            mine, theirs = stored_crops(pred, self.files), stored_crops(target, self.files)
            i, j = pair_frames(len(mine), len(theirs), "linspace")
            yield from zip(mine[i], theirs[j], strict=True)
            return
        i, j = pair_frames(len(pred.pictures), len(target.pictures), _FRAMES[self.peer])
        if self.peer == "eat":
            resized = [resized_crops(sample, self.files) for sample in (pred, target)]
            for a, b in zip((resized[0][k] for k in i), (resized[1][k] for k in j), strict=True):
                if a is not None and b is not None:
                    yield a, b
            return
        if self.peer == "vico":
            check_same_size(pred, target, WINDOW)
        for a, b in zip(pred.pictures[i], target.pictures[j], strict=True):
            yield (_shrunk(a), _shrunk(b)) if self.peer == "atvgnet" else (a, b)


def _shrunk(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True, kw_only=True)
class PeerPsnr(PeerPictures):
    """PSNR as another code computes it; the class `PeerPictures` states the pictures.

    - `eat` and `eat-stored`: scikit-image's, on RGB. The source has an infinite mean if two frames are identical; such
      frames are left out here.
    - `vico`: piq's, on RGB: the mean squared error of values from 0 to 1 plus 1e-8. Identical frames have 80 dB.
    - `atvgnet`: of the grey pictures, with differences modulo 256; see `wrapped_psnr`. Identical frames have 100 dB.
    """

    name = "psnr"
    title = "PSNR"
    unit = "dB"
    order = 11
    limits = (0.0, math.inf)

    @property
    def ms_per_frame(self) -> float:
        return _MS[self.peer][0]

    variants: ClassVar[Mapping[str, Variant]] = {
        "psnr:eat": Variant("PSNR in EAT's crop of 128 px, mean over all frames of all clips", {"peer": "eat"}),
        "psnr:eat-stored": Variant(
            "PSNR in EAT's aligned crop of 128 px stored as MPEG-4, mean over all frames of all clips",
            {"peer": "eat-stored", "least": "one-pair"},
        ),
        "psnr:vico": Variant(
            "PSNR of whole frames by piq, at most 80 dB, mean over all frames of all clips", {"peer": "vico"}
        ),
        "psnr:atvgnet": Variant(
            "ATVGnet's number for PSNR, from grey 8-bit differences modulo 256, at 256 px", {"peer": "atvgnet"}
        ),
    }

    def definition(self) -> Settings:
        definitions: dict[Peer, Settings] = {
            "eat": {"colour": "rgb", "range": 255, "identical": "left-out"},
            "eat-stored": {"colour": "rgb", "range": 255, "identical": "left-out"},
            "vico": {"colour": "rgb", "range": 1, "eps": _EPS},
            "atvgnet": {"colour": "grey", "range": 255, "difference": "modulo-256", "identical": "100-dB"},
        }
        return definitions[self.peer]

    def value(self, pred: np.ndarray, target: np.ndarray) -> float:
        if self.peer == "atvgnet":
            return wrapped_psnr(*(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (pred, target)))
        db = float(psnr(pred[None], target[None])[0])
        return -10.0 * math.log10(10.0 ** (-db / 10.0) + _EPS) if self.peer == "vico" else db


@dataclass(frozen=True, kw_only=True)
class PeerSsim(PeerPictures):
    """SSIM as another code computes it; the class `PeerPictures` states the pictures.

    - `eat`, `eat-stored` and `atvgnet`: scikit-image's default, as in `ssim:skimage`.
    - `vico`: piq's: as in `ssim:wang2004`, but frames whose shorter side is at least 384 px are shrunk first.
    """

    name = "ssim"
    title = "SSIM"
    order = 21
    limits = (-1.0, 1.0)

    @property
    def ms_per_frame(self) -> float:
        return _MS[self.peer][1]

    variants: ClassVar[Mapping[str, Variant]] = {
        "ssim:eat": Variant(
            "structural similarity in EAT's crop of 128 px, by scikit-image's default", {"peer": "eat"}
        ),
        "ssim:eat-stored": Variant(
            "structural similarity in EAT's aligned crop of 128 px stored as MPEG-4, by scikit-image's default",
            {"peer": "eat-stored", "least": "one-pair"},
        ),
        "ssim:vico": Variant(
            "structural similarity of whole frames by piq, shrunk if the shorter side has 384 px or more",
            {"peer": "vico"},
        ),
        "ssim:atvgnet": Variant(
            "structural similarity of frames resized to 256x256 px, by scikit-image's default", {"peer": "atvgnet"}
        ),
    }

    def definition(self) -> Settings:
        if self.peer == "vico":
            return {"colour": "rgb", "window": "gaussian-11", "sigma": 1.5, "shrink": "mean-to-256"}
        return {"colour": "rgb", "range": 255, "window": "uniform-7", "covariance": "sample"}

    def value(self, pred: np.ndarray, target: np.ndarray) -> float:
        if self.peer == "vico":
            return float(ssim(pooled_side(pred)[None], pooled_side(target)[None], 255.0)[0])
        return float(ssim_box(pred[None], target[None])[0])


METRICS = (PeerPsnr, PeerSsim)
