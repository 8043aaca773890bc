"""CEM-Net's Renderer: references are warped to the landmarks by a learnt flow, weighted, and a generator draws a face.

The paper gives one sentence and points to IP-LAP (Weizhi-Zhong/IP_LAP, models/video_renderer.py), so the networks are
IP-LAP's, written anew, with three differences. The sound is not an input, as the paper names none. A flow of zero is
the identity: IP-LAP samples a grid of corner-aligned coordinates as if they were not. And a face is cropped by one
square for the clip, not by a box for each frame, so that it does not tremble.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmet_pipelines.shards import ShardSet
from cmet_reference.clips import ClipArrays
from cmet_reference.render import losses
from cmet_reference.render.mesh import OVAL
from cmet_reference.training import checkpoints
from cmet_reference.training.stage import Optimizer
from talking_face.pretrained.face_landmarker import tasks
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights, weight_path
from talking_face.reasons import UserError

KIND = "renderer"
_MARGIN = 0.06  # of the face's size, around it in its crop
_FEATHER = 0.03  # of the crop's size: how softly the drawn part goes over into the picture
_AT_ONCE = 8  # frames drawn together


@dataclass(frozen=True)
class RendererSettings:
    """The defaults are the paper's, and IP-LAP's where it states none."""

    size: int = 128  # px of the crop
    region: Literal["lower", "whole"] = "lower"  # what is drawn: the lower half of the crop, or the face to its outline
    references: int = 3  # in training; in use all that are given
    window: int = 5  # sketches around the frame that is drawn
    narrow: int = 32  # channels at full size, before the flow
    wide: int = 256  # channels at half size; a quarter of them at full size again
    hidden: int = 256  # of what turns a picture into a normalisation
    critic: int = 64  # channels of the critic's first layer
    steps: int = 100_000
    batch: int = 96
    rate: float = 1e-4
    warm_up: int = 12_000  # steps on the warped references alone (IP-LAP: 25 epochs)
    perceptual: Literal["vgg19", "pixels"] = "vgg19"  # pixels: mean absolute difference in its place, no download
    w_warp: float = 2.5  # of the warped references (IP-LAP; the paper names no such loss)
    w_per: float = 4.0
    w_gan: float = 0.25
    w_fm: float = 1.0
    kept: int = 256  # clips whose crops stay in memory: 2.5 MB each at 128 px and 2 s


# Pictures in ----------------------------------------------------------------------------------------------------------


@cache
def _lines() -> tuple[tuple[np.ndarray, tuple[int, int, int]], ...]:
    """Edges between landmarks, (n, 2) each, and the colour they are drawn in."""
    known = tasks()[0].FaceLandmarksConnections
    colours = {
        "FACE_OVAL": (255, 255, 255),
        "NOSE": (128, 128, 255),
        "LEFT_EYEBROW": (255, 255, 0),
        "RIGHT_EYEBROW": (255, 160, 0),
        "LEFT_EYE": (0, 255, 255),
        "RIGHT_EYE": (0, 160, 255),
        "LIPS": (255, 0, 80),
    }
    return tuple(
        (np.array([(e.start, e.end) for e in getattr(known, f"FACE_LANDMARKS_{name}")]), colour)
        for name, colour in colours.items()
    )


def sketch(points: np.ndarray, size: int) -> np.ndarray:
    """(478, 2 or 3) px to a picture (size, size, 3) uint8: outline, brows, eyes, nose and lips, a colour each."""
    out = np.zeros((size, size, 3), np.uint8)
    whole = np.round((points[:, :2] - 0.5) * 16).astype(np.int32)
    for edges, colour in _lines():
        cv2.polylines(out, list(whole[edges]), False, colour, 1, cv2.LINE_AA, 4)
    return out


def square(landmarks: np.ndarray, *more: np.ndarray) -> np.ndarray:
    """(3,): left, top and side, px, of the square around all points of (T, 478, 3) tracks, with a margin."""
    points = np.concatenate([track[..., :2].reshape(-1, 2) for track in (landmarks, *more)])
    low, high = points.min(axis=0), points.max(axis=0)
    side = (high - low).max() * (1 + 2 * _MARGIN)
    return np.array([*((low + high - side) / 2), side], np.float32)


def _matrix(box: np.ndarray, size: int) -> np.ndarray:
    """(2, 3): picture to crop, between pixel centres."""
    scale = size / box[2]
    return np.array([[scale, 0, (0.5 - box[0]) * scale - 0.5], [0, scale, (0.5 - box[1]) * scale - 0.5]], np.float64)


def crop(frames: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """(T, H, W, 3) to (T, size, size, 3) uint8; what lies outside of the picture repeats its edge."""
    matrix = _matrix(box, size)
    if box[2] > size:  # as INTER_AREA would: blurred before it is made smaller
        frames = np.stack([cv2.GaussianBlur(f, (0, 0), 0.4 * float(box[2]) / size) for f in frames])
    return np.stack(
        [
            cv2.warpAffine(f, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for f in frames
        ]
    )


def in_crop(landmarks: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """(T, 478, 3) px of the picture to (T, 478, 2) px of the crop."""
    return ((landmarks[..., :2] - box[:2]) * (size / box[2])).astype(np.float32)


def drawn_part(points: np.ndarray, settings: RendererSettings, *more: np.ndarray) -> np.ndarray:
    """(size, size) bool: what the renderer draws, for points (478, 2) of the crop, and of the base where given."""
    mask = np.zeros((settings.size, settings.size), np.uint8)
    if settings.region == "lower":
        mask[settings.size // 2 :] = 1
    else:
        for outline in (points, *more):
            cv2.fillPoly(mask, [np.round(outline[list(OVAL)]).astype(np.int32)], 1)
    return mask > 0


# The networks ---------------------------------------------------------------------------------------------------------


class Spade(nn.Module):
    """Two convolutions of which each input is normalised and then scaled and shifted, pixel by pixel, by a picture."""

    def __init__(self, channels: int, picture: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.read = nn.ModuleList(nn.Conv2d(picture, hidden, 3, padding=1) for _ in range(2))
        self.turn = nn.ModuleList(nn.Conv2d(hidden, 2 * channels, 3, padding=1) for _ in range(2))
        # No biases: the next norm would take them away again.
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        """(B, C, h, w) and (B, P, H, W), brought to h x w, to (B, C, h, w)."""
        picture = F.interpolate(picture, x.shape[-2:])
        for read, turn, convolution in zip(self.read, self.turn, self.convolutions, strict=True):
            scale, shift = turn(read(picture)).chunk(2, dim=1)  # linear, as in IP-LAP
            x = convolution(F.leaky_relu(self.norm(x) * (1 + scale) + shift, 0.2))
        return x


def _down(channels: int, s: RendererSettings) -> nn.ModuleList:
    full = nn.Sequential(nn.Conv2d(channels, s.narrow, 7, padding=3, bias=False), nn.BatchNorm2d(s.narrow), nn.ReLU())
    half = nn.Sequential(nn.Conv2d(s.narrow, s.wide, 3, 2, 1, bias=False), nn.BatchNorm2d(s.wide), nn.ReLU())
    return nn.ModuleList([full, half])


class FlowEstimator(nn.Module):
    """For every reference: where in it each pixel of the wanted picture lies, and how much it is to count there."""

    def __init__(self, s: RendererSettings) -> None:
        super().__init__()
        sketches = 3 * s.window
        self.down = _down(6, s)
        self.coarse = nn.ModuleList(Spade(s.wide, sketches, s.hidden) for _ in range(2))
        self.fine = Spade(s.wide // 4, sketches, s.hidden)
        self.flow = nn.Conv2d(s.wide // 4, 2, 7, padding=3)
        self.weight = nn.Sequential(
            nn.Conv2d(s.wide // 4, s.narrow, 7, padding=3), nn.ReLU(), nn.Conv2d(s.narrow, 1, 7, padding=3)
        )
        with torch.no_grad():  # begin near the references as they are
            self.flow.weight *= 0.1

    def forward(self, pictures: Tensor, sketches: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """References warped to the wanted sketches, and their weighted mean.

        Args:
            pictures, sketches: (B, N, 3, H, W) in [0, 1], of the references.
            wanted: (B, 3 T, H, W), T sketches around the wanted frame.

        Returns:
            (B, narrow, H, W) and (B, wide, H/2, W/2) features, (B, 3, H, W) pictures.
        """
        b, n = pictures.shape[:2]
        flat = pictures.flatten(0, 1)
        full = self.down[0](torch.cat([flat, sketches.flatten(0, 1)], dim=1))
        half = self.down[1](full)
        driving = wanted.repeat_interleave(n, dim=0)
        x = half
        for block in self.coarse:
            x = block(x, driving)
        x = self.fine(F.pixel_shuffle(x, 2), driving)
        grid = _grid(self.flow(x))
        share = torch.sigmoid(self.weight(x)).unflatten(0, (b, n))
        share = share / (share.sum(dim=1, keepdim=True) + 1e-5)
        small = _grid_at(grid, half.shape[-2:])
        half_share = F.interpolate(share.flatten(0, 1), half.shape[-2:]).unflatten(0, (b, n))

        def mean(x: Tensor, at: Tensor, weights: Tensor) -> Tensor:
            warped = F.grid_sample(x, at, padding_mode="border", align_corners=False)
            return (warped.unflatten(0, (b, n)) * weights).sum(dim=1)

        return mean(full, grid, share), mean(half, small, half_share), mean(flat, grid, share)


def _grid(flow: Tensor) -> Tensor:
    """(B, 2, H, W) px, x first, to where `grid_sample` without aligned corners should look: (B, H, W, 2)."""
    h, w = flow.shape[-2:]
    y = (torch.arange(h, device=flow.device, dtype=flow.dtype) + 0.5)[:, None].expand(h, w)
    x = (torch.arange(w, device=flow.device, dtype=flow.dtype) + 0.5)[None].expand(h, w)
    at = torch.stack([(x + flow[:, 0]) * (2 / w) - 1, (y + flow[:, 1]) * (2 / h) - 1], dim=-1)
    return at


def _grid_at(grid: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(grid.permute(0, 3, 1, 2), tuple(size), mode="bilinear").permute(0, 2, 3, 1)


class Generator(nn.Module):
    """The face from the sketches, the rest of the picture, and the warped references."""

    def __init__(self, s: RendererSettings) -> None:
        super().__init__()
        self.down = _down(3 + 3 * s.window, s)
        self.coarse = Spade(s.wide, s.wide, s.hidden)
        self.fine = nn.ModuleList([Spade(s.wide // 4, s.narrow, s.hidden), Spade(s.wide // 4, 3, s.hidden)])
        self.last = nn.Conv2d(s.wide // 4, 3, 7, padding=3)

    def forward(self, masked: Tensor, wanted: Tensor, full: Tensor, half: Tensor, picture: Tensor) -> Tensor:
        """(B, 3, H, W) masked, the wanted sketches and what `FlowEstimator` gives, to (B, 3, H, W) in [0, 1]."""
        x = self.down[1](self.down[0](torch.cat([masked, wanted], dim=1)))
        x = F.pixel_shuffle(self.coarse(x, half), 2)
        for block, seen in zip(self.fine, (full, picture), strict=True):
            x = block(x, seen)
        return torch.sigmoid(self.last(F.leaky_relu(x)))


class RendererNet(nn.Module):
    """Flow estimator and generator, and the critic that they are trained against."""

    def __init__(self, settings: RendererSettings) -> None:
        super().__init__()
        self.flow, self.generator = FlowEstimator(settings), Generator(settings)
        self.critic = losses.PatchCritic(settings.critic)

    def forward(self, masked: Tensor, wanted: Tensor, pictures: Tensor, sketches: Tensor) -> tuple[Tensor, Tensor]:
        """The face (B, 3, H, W) and the warped references' mean, in [0, 1]; arguments as in the two networks."""
        full, half, picture = self.flow(pictures, sketches, wanted)
        return self.generator(masked, wanted, full, half, picture), picture


# Training -------------------------------------------------------------------------------------------------------------


@dataclass
class _Crops:
    """One clip: crops (T, size, size, 3) uint8 and points (T, 478, 2) px in them."""

    pictures: np.ndarray
    points: np.ndarray


@dataclass
class RendererStage:
    """The renderer on windows of the training split: every frame from others of its clip."""

    settings: RendererSettings
    train: Sequence[ClipArrays]
    test: Sequence[ClipArrays]
    seed: int = 0
    files: ModelFiles | None = None
    name: str = KIND
    _kept: dict[tuple[str, str], _Crops] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Raises UserError where no clip is longer than a window and its references."""
        self.steps = self.settings.steps
        enough = self.settings.window + self.settings.references
        self.train = [c for c in self.train if len(c) >= enough]
        self.test = [c for c in self.test if len(c) >= enough]
        if not self.train:
            raise UserError(f"the renderer needs clips of {enough} frames, and the training split has none")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.net = RendererNet(self.settings)
        self.vgg = vgg19(self.files) if self.settings.perceptual == "vgg19" else None
        if self.vgg is None and self.settings.perceptual == "vgg19":
            print("the renderer's perceptual loss is off: VGG19 is not here (`cmet-eval weights fetch vgg19`); pixels "
                  "are compared in its place", file=sys.stderr)  # fmt: skip

    def optimizers(self) -> Mapping[str, Optimizer]:
        s, net = self.settings, self.net
        drawing = [*net.flow.parameters(), *net.generator.parameters()]
        return {
            "critic": Optimizer(list(net.critic.parameters()), s.rate, betas=(0.5, 0.999)),
            "generator": Optimizer(drawing, s.rate),
        }

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        """masked, real (B, 3, H, W), wanted (B, 3 T, H, W), pictures, sketches (B, N, 3, H, W), all float32 in [0, 1];
        whole (): whether the warm-up is over."""
        rng = np.random.default_rng((self.seed, step))
        chosen = [self.train[i] for i in rng.integers(len(self.train), size=self.settings.batch)]
        out = _stacked([self._sample(clip, rng) for clip in chosen])
        return out | {"whole": np.array(step >= self.settings.warm_up, np.float32)}

    def loss(self, batch: Mapping[str, Any], optimizer: str) -> tuple[Tensor, Mapping[str, Tensor]]:
        net, s, real, whole = self.net, self.settings, batch["real"], batch["whole"]
        inputs = (batch["masked"], batch["wanted"], batch["pictures"], batch["sketches"])
        if optimizer == "critic":
            with torch.no_grad():
                made, _ = net(*inputs)
            loss = (losses.verdict(net.critic(made), False) + losses.verdict(net.critic(real), True)) / 2
            return loss * whole, {"critic": loss}
        made, warped = net(*inputs)
        judged = net.critic(made)
        with torch.no_grad():
            wanted = net.critic(real)
        parts = {
            "warp": self._distance(warped, real, 0.0),
            "per": self._distance(made, real, losses.STYLE),
            "gan": losses.verdict(judged, True),
            "fm": losses.feature_matching(judged, wanted),
        }
        drawn = s.w_per * parts["per"] + s.w_gan * parts["gan"] + s.w_fm * parts["fm"]
        return s.w_warp * parts["warp"] + whole * drawn, parts

    def held_out(self) -> Mapping[str, float]:
        """PSNR of the crop's drawn part on other people's clips: drawn, warped, and the first reference as it is."""
        if not self.test:
            return {}
        rng = np.random.default_rng(self.seed)
        picks = np.linspace(0, len(self.test) - 1, min(16, len(self.test))).round().astype(int)
        arrays = _stacked([self._sample(self.test[i], rng) for i in picks])
        device = next(self.net.parameters()).device
        batch = {name: torch.from_numpy(value).to(device) for name, value in arrays.items()}
        made, warped = self.net(batch["masked"], batch["wanted"], batch["pictures"], batch["sketches"])
        hidden = (batch["masked"] != batch["real"]).any(dim=1, keepdim=True)

        def psnr(x: Tensor) -> float:
            return float(-10 * torch.log10(((x - batch["real"]).square() * hidden).sum() / (3 * hidden.sum())))

        return {"psnr": psnr(made), "psnr_warped": psnr(warped), "psnr_reference": psnr(batch["pictures"][:, 0])}

    def record(self) -> Mapping[str, Any]:
        return {"settings": asdict(self.settings), "perceptual": "pixels" if self.vgg is None else "vgg19"}

    def _distance(self, made: Tensor, real: Tensor, style: float) -> Tensor:
        if self.vgg is None:
            return F.l1_loss(made, real)
        return losses.perceptual(self.vgg.to(made.device), made, real, style)

    def _sample(self, clip: ClipArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        s, crops = self.settings, self._crops(clip)
        start = int(rng.integers(0, len(crops.points) - s.window + 1))
        at = start + s.window // 2
        known = rng.choice(np.delete(np.arange(len(crops.points)), at), s.references, replace=False)
        return _inputs(crops, crops, at, np.arange(start, start + s.window), known, s)

    def _crops(self, clip: ClipArrays) -> _Crops:
        key = (str(clip.folder), clip.clip_id)
        if key not in self._kept:
            box, size = square(clip.landmarks), self.settings.size
            frames = ShardSet(clip.folder).frames(clip.clip_id)[: len(clip)]
            while len(self._kept) >= self.settings.kept:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = _Crops(crop(frames, box, size), in_crop(clip.landmarks, box, size))
        return self._kept[key]


def _inputs(
    base: _Crops, known: _Crops, at: int, window: np.ndarray, references: np.ndarray, s: RendererSettings
) -> dict[str, np.ndarray]:
    """What the network is fed for one frame; `real` is the base's own picture."""
    real = base.pictures[at]
    masked = np.where(drawn_part(base.points[at], s)[..., None], 0, real)
    wanted = np.concatenate([sketch(base.points[i], s.size) for i in window], axis=-1)
    sketches = np.stack([sketch(known.points[i], s.size) for i in references])
    return {
        "real": _chw(real),
        "masked": _chw(masked),
        "wanted": _chw(wanted),
        "pictures": _chw(known.pictures[references]),
        "sketches": _chw(sketches),
    }


def _chw(pictures: np.ndarray) -> np.ndarray:
    """(..., H, W, C) uint8 to (..., C, H, W) float32 in [0, 1]."""
    return np.ascontiguousarray(np.moveaxis(pictures, -1, -3), np.float32) / np.float32(255)


def _stacked(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def vgg19(files: ModelFiles | None = None) -> losses.Vgg19 | None:
    """VGG19 as torchvision trained it, where its file is on this machine."""
    try:
        path = weight_path("vgg19", files)
    except MissingWeights:
        return None
    return losses.Vgg19().fill(torch.load(path, map_location="cpu", weights_only=True)).eval()


# In use ---------------------------------------------------------------------------------------------------------------


class FlowRenderer:
    """A trained renderer. Implements `cmet_reference.render.base.Renderer`."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Raises what `checkpoints.load` does."""
        state, record = checkpoints.load(path, KIND)
        with checkpoints.as_saved(path, KIND):
            self.settings = RendererSettings(**record["settings"])
            self.net = RendererNet(self.settings)
            self.net.load_state_dict(state)
        self.net.eval().to(device)
        self.revision = f"flow-1-{checkpoints.revision(path)}"

    @torch.inference_mode()
    def frames(
        self,
        landmarks: np.ndarray,
        reference_frames: np.ndarray,
        reference_landmarks: np.ndarray,
        base_frames: np.ndarray | None = None,
        base_landmarks: np.ndarray | None = None,
    ) -> np.ndarray:
        """See `Renderer.frames`. Only the setting's region is drawn; the rest is the base's."""
        s, n = self.settings, len(landmarks)
        if (base_frames is None) != (base_landmarks is None):
            raise ValueError("base frames and base landmarks come together")
        if base_frames is None or base_landmarks is None:
            base_frames = np.broadcast_to(reference_frames[:1], (n, *reference_frames.shape[1:]))
            base_landmarks = np.broadcast_to(reference_landmarks[:1], (n, *reference_landmarks.shape[1:]))
        box = square(landmarks, base_landmarks)
        pictures, points = crop(base_frames, box, s.size), in_crop(landmarks, box, s.size)
        old = in_crop(base_landmarks, box, s.size)
        device = next(self.net.parameters()).device
        boxes = [square(track[None]) for track in reference_landmarks]
        known = _Crops(
            np.concatenate([crop(f[None], b, s.size) for f, b in zip(reference_frames, boxes, strict=True)]),
            np.concatenate([in_crop(t[None], b, s.size) for t, b in zip(reference_landmarks, boxes, strict=True)]),
        )
        parts = [drawn_part(new, s, before) for new, before in zip(points, old, strict=True)]
        shown = np.stack([np.where(part[..., None], 0, p) for part, p in zip(parts, pictures, strict=True)])
        sketches = np.stack([sketch(p, s.size) for p in points])
        around = np.clip(np.arange(n)[:, None] + np.arange(s.window) - s.window // 2, 0, n - 1)
        given, drawn_given = (torch.from_numpy(_chw(x)).to(device) for x in (known.pictures, self._sketches(known)))
        made = []
        for index in np.array_split(np.arange(n), max(1, -(-n // _AT_ONCE))):
            wanted = np.concatenate([_chw(sketches[around[index, k]]) for k in range(s.window)], axis=1)
            many = len(index)
            face, _ = self.net(
                torch.from_numpy(_chw(shown[index])).to(device),
                torch.from_numpy(wanted).to(device),
                given.expand(many, -1, -1, -1, -1),
                drawn_given.expand(many, -1, -1, -1, -1),
            )
            made.append((face.permute(0, 2, 3, 1).cpu().numpy() * 255).round().astype(np.uint8))
        faces = np.concatenate(made)
        return np.stack([_pasted(b, f, p, box) for b, f, p in zip(base_frames, faces, parts, strict=True)])

    def _sketches(self, known: _Crops) -> np.ndarray:
        return np.stack([sketch(points, self.settings.size) for points in known.points])


def _pasted(picture: np.ndarray, face: np.ndarray, part: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The drawn part of a crop (size, size, 3) put into the picture (H, W, 3), softly at its edge."""
    size = len(face)
    height, width = picture.shape[:2]
    mask = part.astype(np.float32)
    # The crop's own sides are an edge too.
    mask[:, [0, -1]], mask[[0, -1]] = 0, 0
    mask = np.clip(2 * cv2.GaussianBlur(mask, (0, 0), _FEATHER * size) - 1, 0, 1)
    back = cv2.invertAffineTransform(_matrix(box, size))
    placed, share = (cv2.warpAffine(x, back, (width, height), flags=cv2.INTER_LINEAR) for x in (face, mask))
    share = share[..., None]
    return np.clip(np.round(picture * (1 - share) + placed * share), 0, 255).astype(np.uint8)


def stage(
    settings: Mapping[str, Any],
    train: Sequence[ClipArrays],
    test: Sequence[ClipArrays],
    seed: int = 0,
    files: ModelFiles | None = None,
) -> RendererStage:
    """The stage of a table of settings. Raises UserError for a name that is none."""
    try:
        return RendererStage(RendererSettings(**settings), train, test, seed, files)
    except TypeError as error:
        raise UserError(f"[renderer] has a field that is none ({error})") from None
