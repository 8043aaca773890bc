"""Trains CEM-Net's flow renderer: it learns to draw a frame of a clip from landmarks and other frames of the clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cmet_pipelines.shards import ShardSet
from cmet_reference.clips import ClipArrays
from cmet_reference.render import losses
from cmet_reference.render.crops import FaceCrops, crop, in_crop, network_inputs, square
from cmet_reference.render.flow_nets import RendererNet, RendererSettings
from cmet_reference.training.config import settings_of
from cmet_reference.training.stage import Optimizer
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import weight_path
from talking_face.reasons import UserError

KIND = "renderer"


@dataclass
class RendererStage:
    """Trains the flow renderer on windows of training clips. Implements `Stage`.

    The frame in the middle of a window is drawn from the sketches of the window and from random frames of the same
    clip.
    """

    settings: RendererSettings
    train: Sequence[ClipArrays]
    test: Sequence[ClipArrays]
    seed: int = 0
    files: ModelFiles = field(kw_only=True)
    name: str = KIND
    crops: dict[tuple[str, str], FaceCrops] = field(default_factory=dict, repr=False)  # by (shard set, clip)

    def __post_init__(self) -> None:
        """Raises an error if something is absent.

        Raises:
            UserError: no clip has enough frames for a window and its references.
            MissingWeights: the settings compare pictures with VGG19, and the file of its weights is absent.
        """
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

    def optimizers(self) -> Mapping[str, Optimizer]:
        s, net = self.settings, self.net
        drawing = [*net.flow.parameters(), *net.generator.parameters()]
        return {
            "critic": Optimizer(list(net.critic.parameters()), s.rate, betas=(0.5, 0.999)),
            "generator": Optimizer(drawing, s.rate),
        }

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        """The batch of a step: float32 arrays in [0, 1].

        Returns:
            masked (B, 3, H, W): the crops without the part to draw. real (B, 3, H, W): the whole crops. wanted
            (B, 3 T, H, W): the sketches of the T frames of the window. pictures, sketches (B, N, 3, H, W): the
            references and their sketches. whole, a scalar: 1 if the warm-up is over, else 0.
        """
        rng = np.random.default_rng((self.seed, step))
        chosen = [self.train[i] for i in rng.integers(len(self.train), size=self.settings.batch)]
        out = _stacked([self._sample(clip, rng) for clip in chosen])
        return out | {"whole": np.array(step >= self.settings.warm_up, np.float32)}

    def loss(self, batch: Mapping[str, Tensor], optimizer: str) -> tuple[Tensor, Mapping[str, Tensor]]:
        net, s, real, whole = self.net, self.settings, batch["real"], batch["whole"]
        inputs = (batch["masked"], batch["wanted"], batch["pictures"], batch["sketches"])
        if optimizer == "critic":
            with torch.no_grad():
                made, _ = net(*inputs)
            loss = (losses.least_squares(net.critic(made), False) + losses.least_squares(net.critic(real), True)) / 2
            return loss * whole, {"critic": loss}
        made, warped = net(*inputs)
        scores = net.critic(made)
        with torch.no_grad():
            wanted = net.critic(real)
        parts = {
            "warp": self._distance(warped, real, 0.0),
            "per": self._distance(made, real, losses.STYLE),
            "gan": losses.least_squares(scores, True),
            "fm": losses.feature_matching(scores, wanted),
        }
        drawn = s.w_per * parts["per"] + s.w_gan * parts["gan"] + s.w_fm * parts["fm"]
        return s.w_warp * parts["warp"] + whole * drawn, parts

    def held_out(self) -> Mapping[str, float]:
        """PSNR on held-out speakers, in the part that is drawn.

        PSNR is measured for the drawn picture (`psnr`), for the mean of the warped references, and for the first
        reference.
        """
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

    def record(self) -> Mapping[str, object]:
        return {"settings": asdict(self.settings), "perceptual": "pixels" if self.vgg is None else "vgg19"}

    def _distance(self, made: Tensor, real: Tensor, style: float) -> Tensor:
        if self.vgg is None:
            return F.l1_loss(made, real)
        return losses.perceptual(self.vgg.to(made.device), made, real, style)

    def _sample(self, clip: ClipArrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        s, crops = self.settings, self._crops_of(clip)
        start = int(rng.integers(0, len(crops.points) - s.window + 1))
        at = start + s.window // 2
        known = rng.choice(np.delete(np.arange(len(crops.points)), at), s.references, replace=False)
        return network_inputs(crops, crops, at, np.arange(start, start + s.window), known, s)

    def _crops_of(self, clip: ClipArrays) -> FaceCrops:
        key = (str(clip.folder), clip.clip_id)
        if key not in self.crops:
            box, size = square(clip.landmarks), self.settings.size
            frames = ShardSet(clip.folder).frames(clip.clip_id)[: len(clip)]
            while len(self.crops) >= self.settings.kept:
                del self.crops[next(iter(self.crops))]
            self.crops[key] = FaceCrops(crop(frames, box, size), in_crop(clip.landmarks, box, size))
        return self.crops[key]


def _stacked(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def vgg19(files: ModelFiles) -> losses.Vgg19:
    """VGG19 with torchvision's weights. Raises MissingWeights if the file of the weights is absent."""
    path = weight_path("vgg19", files)
    return losses.Vgg19().fill(torch.load(path, map_location="cpu", weights_only=True)).eval()


def make_stage(
    settings: Mapping[str, object],
    train: Sequence[ClipArrays],
    test: Sequence[ClipArrays],
    seed: int = 0,
    *,
    files: ModelFiles,
) -> RendererStage:
    """Makes the stage from the table `renderer` of the settings. Raises the errors of `read_settings`."""
    return RendererStage(read_settings(settings), train, test, seed, files=files)


def read_settings(table: Mapping[str, object]) -> RendererSettings:
    """The settings in the table `renderer`. Raises UserError for an unknown field and a value that is not allowed."""
    return settings_of(RendererSettings, table, "[renderer]")
