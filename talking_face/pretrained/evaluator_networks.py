"""The networks and inputs of the two evaluators that the suite trains on a corpus: lip sync and emotion.

`cmet_reference.evaluators` trains the networks, `trained_evaluators` finds and loads the files of the trained networks,
and metrics use the trained networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from talking_face.faces.points68 import to_68
from talking_face.pretrained import torch_nets
from talking_face.pretrained.mfcc import mfcc

if TYPE_CHECKING:
    from torch import Tensor, nn

    class SyncNetModule(nn.Module):
        """The type of the torch module that `build_syncnet` returns."""

        def lips(self, x: Tensor) -> Tensor: ...
        def sound(self, x: Tensor) -> Tensor: ...

    class EmotionModule(nn.Module):
        """The type of the torch module that `build_emotion` returns."""

        moved: nn.Linear
        seen: nn.Linear


SIZE = 96  # side of the grey mouth crops, px
WINDOW = 5  # frames per lip embedding, at 25 frames/s: 0.2 s
ROWS, ROWS_A_FRAME = 20, 4  # rows of cepstra per sound embedding; rows from the start of one embedding to the next
EMBEDDING = 128
FACE = 128  # side of the grey face crops, px
EMOTION_FRAMES = 8  # face crops per clip
BLENDSHAPES, GRADIENTS = 52, 324  # features per clip for the emotion classifier
BATCH = 250  # lip windows per batch

# Side of a crop, and distance from the eyes' midpoint down to the crop's centre, in units of the distance between eyes.
MOUTH_SIDE, MOUTH_DOWN = 1.4, 1.2
FACE_SIDE, FACE_DOWN = 2.5, 0.35  # from the brows' upper edge to the chin
# Noise floor: natural log of a window's energy. The noise of the codec is above this value; digital silence has -36.
_FLOOR = -8.0


# -- inputs ------------------------------------------------------------------------------------------------------------


def mouth_crops(frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Crops the mouth from all frames of a clip. The crops are rotated so that the eyes are level.

    Let d be the clip's median distance between the eyes. A crop is a square with a side of 1.4 d, whose centre is 1.2 d
    below the midpoint between the eyes. If a frame has no face, the positions of the eyes are interpolated from the
    neighbouring frames.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        landmarks: (T, 478, 2 or 3) px, NaN without a face; at least one frame has a face.

    Returns:
        (T, 96, 96) uint8 grey.
    """
    return _upright_crops(frames, landmarks, SIZE, MOUTH_SIDE, MOUTH_DOWN)


def face_crops(frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Crops the face from the 8 frames that `face_frames` chooses. The crops are rotated so that the eyes are level.

    Let d be the median distance between the eyes in the 8 frames. A crop is a square with a side of 2.5 d, whose centre
    is 0.35 d below the midpoint between the eyes.

    Args:
        frames, landmarks: as for `mouth_crops`.

    Returns:
        (8, 128, 128) uint8 grey.
    """
    take = face_frames(landmarks)
    return _upright_crops(frames[take], landmarks[take], FACE, FACE_SIDE, FACE_DOWN)


def face_frames(landmarks: np.ndarray) -> np.ndarray:
    """Chooses 8 frames and returns their indices, (8,) int.

    The sequence of the frames with a face is divided into 8 equal parts, and the middle frame of each part is chosen.
    If a clip has fewer than 8 frames with a face, some frames are chosen several times.
    """
    valid = np.flatnonzero(np.isfinite(landmarks).all(axis=(1, 2)))
    return valid[((np.arange(EMOTION_FRAMES) + 0.5) * len(valid) / EMOTION_FRAMES).astype(int)]


def _upright_crops(frames: np.ndarray, landmarks: np.ndarray, size: int, side: float, down: float) -> np.ndarray:
    """Square crops, (T, size, size) uint8 grey, rotated so that the eyes are level.

    The side of the crop, `side`, and the distance from the eyes' midpoint down to the crop's centre, `down`, are in
    units of the median distance between the eyes.
    """
    points = to_68(landmarks).astype(np.float64)
    eyes = np.stack([points[:, 36:42].mean(axis=1), points[:, 42:48].mean(axis=1)], axis=1).reshape(-1, 4)
    valid = np.isfinite(eyes).all(axis=1)
    t = np.arange(len(eyes))
    eyes = np.stack([np.interp(t, t[valid], column[valid]) for column in eyes.T], axis=1)
    across, middle = eyes[:, 2:] - eyes[:, :2], (eyes[:, 2:] + eyes[:, :2]) / 2
    length = np.hypot(*across.T)
    scale = size / (side * float(np.median(length[valid])))
    out = np.empty((len(frames), size, size), np.uint8)
    for i, frame in enumerate(frames):
        cos, sin = across[i] / length[i]
        turn = scale * np.array([[cos, sin], [-sin, cos]])
        move = size * np.array([0.5, 0.5 - down / side]) - turn @ middle[i]
        # In the coordinates of landmarks, whole numbers are pixel edges. In warpAffine, whole numbers are pixel
        # centres.
        move += turn @ (0.5, 0.5) - 0.5
        matrix = np.column_stack([turn, move])
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        out[i] = cv2.warpAffine(grey, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return out


def emotion_features(crops: np.ndarray, blendshapes: np.ndarray) -> np.ndarray:
    """The emotion classifier's input for one clip: 52 features of blendshapes and 324 of pictures.

    Blendshapes are converted to log odds, log((b + 0.01) / (1.01 - b)), and averaged over the frames with a face. On a
    drawn face the blendshapes of brows and nose vary between 0.001 and 0.1; log odds separate such small values. Crops
    are resized to 64 px and converted to histograms of oriented gradients, which are averaged over the crops. The
    histograms are computed by OpenCV with 9 directions, cells of 16 px, and blocks of 2 x 2 cells, which are normalised
    by L2-Hys.

    Args:
        crops: (8, 128, 128) uint8 grey, from `face_crops`.
        blendshapes: (T, 52), 0 to 1, NaN in frames without a face; at least one frame has a face.

    Returns:
        (376,) float32.
    """
    valid = blendshapes[np.isfinite(blendshapes).all(axis=1)].astype(np.float64)
    odds = np.log((valid + 0.01) / (1.01 - valid)).mean(axis=0)
    small = [cv2.resize(crop, (64, 64), interpolation=cv2.INTER_AREA) for crop in crops]
    hog = cv2.HOGDescriptor((64, 64), (32, 32), (16, 16), (16, 16), 9)
    gradients = np.mean([np.ravel(hog.compute(crop)) for crop in small], axis=0, dtype=np.float64)
    return np.concatenate([odds, gradients]).astype(np.float32)


def cepstra(samples: np.ndarray) -> np.ndarray:
    """Computes the sound input of the lip-sync network: (R, 13) float32, one row per 10 ms.

    Rows whose energy is below the noise floor are replaced by one fixed row, because the spectrum of silence is only
    noise. `samples`: (N,) int16 at 16 kHz.
    """
    rows = mfcc(samples).astype(np.float32)
    quiet = rows[:, 0] < _FLOOR
    rows[quiet] = 0.0
    rows[quiet, 0] = _FLOOR
    return rows


# -- networks ----------------------------------------------------------------------------------------------------------
# The names of submodules must not change, because the keys of stored state dicts contain these names.


def _standardized(crops: Tensor) -> Tensor:
    """Converts pictures, (N, 96, 96) with values 0-255, to (N, 1, 96, 96).

    Each picture gets mean 0 and a standard deviation near 1, so that light and camera have less influence.
    """
    x = crops.float()
    mean, std = x.mean(dim=(1, 2), keepdim=True), x.std(dim=(1, 2), keepdim=True)
    return ((x - mean) / (std + 4.0)).unsqueeze(1)


def _conv(n_in: int, n_out: int, size: int, stride: int) -> list[nn.Module]:
    from torch import nn

    return [
        nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    ]


def build_syncnet() -> SyncNetModule:
    """The untrained lip-sync network, 0.4 M parameters.

    The methods of the network return embeddings with a norm of 1. The method `lips` maps (B, T, 96, 96) to (B, T - 4,
    128), and the method `sound` maps (B, R, 13) to (B, (R - 20) // 4 + 1, 128). Each frame is encoded once, and two
    convolutions over time combine five frames. The convolutions over sound have no padding. In sequence, these
    convolutions have a receptive field of 20 rows and a stride of 4 rows.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class SyncNet(nn.Module):
        mean: Tensor
        std: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.frame = nn.Sequential(
                *_conv(1, 24, 7, 4), *_conv(24, 48, 3, 2), *_conv(48, 96, 3, 2), *_conv(96, 96, 3, 2)
            )
            self.flat = nn.Sequential(nn.Flatten(), nn.Linear(96 * 9, 128))
            self.time = nn.Sequential(
                nn.Conv1d(128, 128, 3), nn.BatchNorm1d(128), nn.ReLU(inplace=True), nn.Conv1d(128, EMBEDDING, 3)
            )
            self.heard = nn.Sequential(
                nn.Conv1d(13, 96, 4, 2),
                nn.BatchNorm1d(96),
                nn.ReLU(inplace=True),
                nn.Conv1d(96, 128, 3, 2),
                nn.BatchNorm1d(128),
                nn.ReLU(inplace=True),
                nn.Conv1d(128, 192, 4),
                nn.BatchNorm1d(192),
                nn.ReLU(inplace=True),
                nn.Conv1d(192, EMBEDDING, 1),
            )
            self.register_buffer("mean", torch.zeros(13))
            self.register_buffer("std", torch.ones(13))

        def lips(self, x: Tensor) -> Tensor:
            clips, frames = x.shape[:2]
            seen = self.flat(self.frame(_standardized(x.flatten(0, 1)))).view(clips, frames, -1)
            return functional.normalize(self.time(seen.transpose(1, 2)).transpose(1, 2), dim=-1)

        def sound(self, x: Tensor) -> Tensor:
            x = ((x - self.mean) / self.std).clamp(-4, 4)
            return functional.normalize(self.heard(x.transpose(1, 2)).transpose(1, 2), dim=-1)

    return cast("SyncNetModule", SyncNet())


def build_emotion(n_classes: int) -> EmotionModule:
    """The untrained emotion classifier. It maps the features of `emotion_features`, (B, 376), to (B, classes) logits.

    The logits are the sum of the log probabilities of two linear classifiers. The first classifier uses the
    blendshapes, and the second classifier uses the gradients. With 8 classes, the network has 3,024 parameters.
    """
    from torch import nn

    class Emotion(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.moved, self.seen = nn.Linear(BLENDSHAPES, n_classes), nn.Linear(GRADIENTS, n_classes)

        def forward(self, x: Tensor) -> Tensor:
            shapes, gradients = x.split([BLENDSHAPES, GRADIENTS], dim=1)
            summed: Tensor = self.moved(shapes).log_softmax(dim=1) + self.seen(gradients).log_softmax(dim=1)
            return summed

    return cast("EmotionModule", Emotion())


class LipSyncEvaluator:
    """The trained lip-sync network. It implements the interface `cmet_metrics.lse.LipSyncNet`."""

    def __init__(self, net: SyncNetModule, tag: str, device: str = "cpu") -> None:
        self.net, self.tag, self.device = net.eval().to(device), tag, device

    def lip(self, crops: np.ndarray) -> np.ndarray:
        """Embeddings, (T - 4, 129) float32, of mouth crops, (T, 96, 96) uint8. Row i belongs to frames i to i + 4."""
        import torch

        with torch_nets.inference():
            # Successive batches share four frames, because a window has five frames.
            parts = [
                self.net.lips(torch.from_numpy(crops[i : i + BATCH + WINDOW - 1]).to(self.device)[None])[0]
                for i in range(0, len(crops) - WINDOW + 1, BATCH)
            ]
            return _with_constant(torch.cat(parts).cpu().numpy())

    def sound(self, samples: np.ndarray, windows: int) -> np.ndarray:
        """Embeddings, (windows, 129) float32, of sound, (N,) int16 at 16 kHz.

        N >= 640 (windows + 5) samples are enough. Raises ValueError if there are too few samples.
        """
        import torch

        rows = cepstra(samples)[: ROWS_A_FRAME * (windows - 1) + ROWS]
        if windows < 1 or len(rows) < ROWS_A_FRAME * (windows - 1) + ROWS:
            raise ValueError(f"{len(samples)} samples are too few for {windows} windows")
        with torch_nets.inference():
            return _with_constant(self.net.sound(torch.from_numpy(rows).to(self.device)[None])[0].cpu().numpy())


def _with_constant(embeddings: np.ndarray) -> np.ndarray:
    """Add one coordinate with the value 1 to each embedding. Distances between embeddings stay the same.

    The reason is that metrics pad the ends of a clip with zero vectors. With the added coordinate, the distance of an
    embedding to a zero vector is the square root of 2, which is also the distance to the embedding of unrelated sound.
    Without the added coordinate, the distance to a zero vector is 1. On clips of 2 s, a zero vector could then be
    nearer than a poor match.
    """
    return np.pad(embeddings, ((0, 0), (0, 1)), constant_values=1.0)


class EmotionEvaluator:
    """The trained emotion classifier."""

    def __init__(self, net: EmotionModule, tag: str, labels: tuple[str, ...], device: str = "cpu") -> None:
        self.net, self.tag, self.labels, self.device = net.eval().to(device), tag, labels, device

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Emotion probabilities of a clip, (C,) float64 with sum 1, in the order of `labels`.

        `features`: the (376,) result of `emotion_features`.
        """
        import torch

        with torch_nets.inference():
            logits: Tensor = self.net(torch.from_numpy(features).to(self.device)[None])
            return logits.double().softmax(dim=1)[0].cpu().numpy()
