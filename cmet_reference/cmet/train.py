"""Trains C-MET's connector network, and writes one checkpoint with the network and the fitted arrays for inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cmet_pipelines.shards import ShardSet
from cmet_reference.clips import ClipArrays, read_clips, read_held_out
from cmet_reference.cmet import blendshape, figures, losses, speech
from cmet_reference.cmet.blendshape import BlendshapeCodec, BlendshapeModel
from cmet_reference.cmet.codec import Face, FaceCodec
from cmet_reference.cmet.connector import Connector, ConnectorSettings
from cmet_reference.cmet.data import CodedClips, Sampler, Sampling
from cmet_reference.cmet.losses import LossSettings
from cmet_reference.cmet.speech import PoolEncoder, SpeechEncoder, StoredVectors, existing
from cmet_reference.kept import kept_arrays
from cmet_reference.training.config import settings_of
from cmet_reference.training.options import TrainOptions
from cmet_reference.training.rounding import rounded
from cmet_reference.training.runtime import resolved
from cmet_reference.training.stage import Optimizer
from cmet_reference.voice import PoolRule
from talking_face.emotions import EMOTIONS
from talking_face.pretrained.model_files import ModelFiles, folder_name
from talking_face.reasons import UserError

KIND = "cmet"
STAGES = (KIND,)  # in training order
# Weight of the face's scores relative to the audio's scores, in the estimate of the source's emotion. Without this
# weight, the face's scores would be as confident as the audio's scores, although they are far less accurate.
_VISUAL = 0.05


@dataclass(frozen=True)
class CMetSettings:
    """The settings of a training; `read_settings` reads them from TOML. The defaults are the released values."""

    steps: int = 200_000
    rate: float = 1e-4  # learning rate
    weight_decay: float = 1e-5
    annealed: bool = False  # let the learning rate rise and fall; see training.stage.Optimizer
    codec: str = "blendshape"  # or edtalk:CHECKOUT, pd-fgc:CHECKOUT
    code: int = 10  # size of the blendshape codec's codes; the other codecs have a fixed size
    speech: str = "prosody"  # or aee, emotion2vec:FOLDER, stored:FOLDER
    # At inference the predicted direction is multiplied by this factor. A factor above 1 compensates an effect of the
    # squared error, which makes uncertain directions too short.
    strength: float = 1.0
    # How videos are generated with the checkpoint: `ours` or `released`, the names in generate.NAMED.
    inference: Literal["ours", "released"] = "ours"
    connector: ConnectorSettings = field(default_factory=ConnectorSettings)  # its `code` and `speech` are overwritten
    sampling: Sampling = field(default_factory=Sampling)
    losses: LossSettings = field(default_factory=LossSettings)


def read_settings(config: Mapping[str, Any]) -> CMetSettings:
    """The settings in a parsed TOML file: top-level fields, and the tables connector, sampling and losses.

    Raises UserError for an unknown field, a value that is not allowed, and a strength of the released inference.
    """
    parts: dict[str, type] = {"connector": ConnectorSettings, "sampling": Sampling, "losses": LossSettings}
    own = {name: value for name, value in config.items() if name not in parts}
    tables: list[Any] = [settings_of(kind, config.get(name, {}), f"[{name}]") for name, kind in parts.items()]
    found = replace(settings_of(CMetSettings, own, "the settings of cmet"), **dict(zip(parts, tables, strict=True)))
    if found.inference == "released" and found.strength != 1:
        raise UserError(f"the settings of cmet: inference = 'released' has strength 1.0, not {found.strength}")
    return found


class CMetNet(nn.Module):
    """The connector, with the fitted codec, the fitted pool encoder and means per emotion as buffers.

    The names of the buffers are stored in checkpoints. D is the size of the connector's speech input, R the size of an
    utterance vector, C the size of an expression code.
    """

    speech_mean: Tensor  # (R,); for the four arrays speech_*, see speech.PoolEncoder
    speech_white: Tensor  # (R, R)
    speech_centres: Tensor  # (8, R)
    speech_known: Tensor  # (K, R)
    neutral_speech: Tensor  # (M, R) utterance vectors of neutral clips
    label_speech: Tensor  # (8, D) direction of speech from neutral to each emotion; zeros if no training clip shows it
    label_codes: Tensor  # (8, C) mean direction of codes from neutral to each emotion: the lookup table
    seen: Tensor  # (52 + 1, 8) linear discriminant: the source's emotion from its blendshapes; the last row is the bias

    def __init__(
        self, connector: ConnectorSettings, codec: str, learnt_noise: bool = False, encoded: int = 1, neutral: int = 1
    ) -> None:
        """Args:
        connector: sizes of the connector.
        codec: name of the face codec.
        learnt_noise: learn the standard deviation of the loss `bmse`.
        encoded: size of an utterance vector, R.
        neutral: number of neutral utterances, M.
        """
        super().__init__()
        self.connector = Connector(connector)
        self.sigma = nn.Parameter(torch.tensor(losses.NOISE_SIGMA)) if learnt_noise else None
        d, c, k = connector.speech, connector.code, blendshape.SPEECH_SIZE
        shapes = {
            "speech_mean": (encoded,),
            "speech_white": (encoded, encoded),
            "speech_centres": (len(EMOTIONS), encoded),
            "speech_known": (min(speech.KNOWN, neutral), encoded),
            "neutral_speech": (neutral, encoded),
            "label_speech": (len(EMOTIONS), d),
            "label_codes": (len(EMOTIONS), c),
            "seen": (52 + 1, len(EMOTIONS)),
        }
        if codec == BlendshapeCodec.name:
            model = ((478, 3), (52,), (52, c), (c, 478, 3), (3 * len(blendshape.POINTS), k), (k, 478, 3))
            names = BlendshapeModel.__dataclass_fields__
            shapes |= {f"codec_{name}": shape for name, shape in zip(names, model, strict=True)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def fill(self, name: str, values: np.ndarray) -> None:
        """Copy values into the buffer called `name`."""
        getattr(self, name).copy_(torch.from_numpy(np.asarray(values, np.float32)))

    def pool_encoder(self, rule: PoolRule) -> PoolEncoder:
        """The fitted pool encoder, from the buffers."""
        names = ("mean", "white", "centres", "known")
        return PoolEncoder(rule, *(getattr(self, f"speech_{name}").cpu().numpy() for name in names))

    def blendshape_model(self) -> BlendshapeModel:
        """The fitted blendshape codec, from the buffers."""
        names = BlendshapeModel.__dataclass_fields__
        return BlendshapeModel(**{name: getattr(self, f"codec_{name}").cpu().numpy() for name in names})


class CMetStage:
    """Trains the connector on samples of the training split. Implements `Stage`."""

    name = KIND

    def __init__(
        self,
        settings: CMetSettings,
        codec: FaceCodec,
        encoder: SpeechEncoder,
        train: Sequence[ClipArrays],
        test: Sequence[ClipArrays],
        seed: int,
        quiet: bool = True,
    ) -> None:
        """`codec`: a fitted or loaded codec; the arrays of a BlendshapeCodec are stored in the checkpoint.

        Raises UserError if no training clip has an emotion label, or if a stored vector of a clip is absent.
        """
        train = [c for c in train if c.emotion in EMOTIONS]
        if not train:
            raise UserError("C-MET learns from emotion labels, and no clip of the training split has one")
        self.steps, self.encoder_name = settings.steps, encoder.name
        self.codec_name, self.codec_revision = codec.name, codec.revision
        test = [c for c in test if c.emotion in EMOTIONS]
        check_vectors(encoder, [*train, *test])
        raw = vectors_of(train, encoder, quiet)
        speakers, emotions = [c.speaker for c in train], [str(c.emotion) for c in train]
        self.pool_encoder = speech.fit_pool_encoder(encoder.pool_rule, raw, speakers, emotions)
        connector = replace(
            settings.connector, code=codec.size, speech=self.pool_encoder.size, window=settings.sampling.window
        )
        self.settings = replace(settings, connector=connector)
        clips = coded(train, codec, raw, quiet)
        self.sampler = Sampler(clips, settings.sampling, seed, self.pool_encoder)
        self.held_out_clips = coded(test, codec, vectors_of(test, encoder, quiet), quiet) if test else None
        rest = figures.neutral_speech(clips)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = CMetNet(connector, codec.name, settings.losses.reconstruction == "bmse", *rest.T.shape)
        self.net.fill("speech_mean", self.pool_encoder.mean)
        self.net.fill("speech_white", self.pool_encoder.white)
        self.net.fill("speech_centres", self.pool_encoder.centres)
        self.net.fill("speech_known", self.pool_encoder.known)
        self.net.fill("neutral_speech", rest)
        self.net.fill("label_speech", figures.label_speech(clips, self.pool_encoder))
        self.net.fill("label_codes", figures.label_codes(clips))
        self.net.fill("seen", discriminant(train, emotions))
        if isinstance(codec, BlendshapeCodec):
            for name, values in codec.model.arrays().items():
                self.net.fill(f"codec_{name}", values)
        self._weights = torch.tensor([losses.EMOTION_WEIGHTS[name] for name in EMOTIONS])

    def optimizers(self) -> Mapping[str, Optimizer]:
        s = self.settings
        return {"net": Optimizer(list(self.net.parameters()), s.rate, s.weight_decay, annealed=s.annealed)}

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        return self.sampler.batch(step)

    def loss(self, batch: Mapping[str, Tensor], optimizer: str) -> tuple[Tensor, Mapping[str, Tensor]]:
        connector, spoken = self.net.connector, batch["speech"]
        reference, opposite = batch["reference"], -batch["reference"]
        if "has_before" in batch:
            reference, opposite = self._predicted_before(batch)
        forward, forward_tokens = connector(reference, spoken, batch["source"])
        backward, backward_tokens = connector(opposite, -spoken, batch["target"])
        return losses.total(
            (forward, backward),
            (forward_tokens, backward_tokens),
            batch["direction"],
            batch["label"],
            self.settings.losses,
            self._weights.to(spoken.device)[batch["label"]],
            self.net.sigma,
        )

    def _predicted_before(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The predictions for the block before the window, as at inference; zeros if the sample has no block before."""
        connector, spoken = self.net.connector, batch["speech"]
        training, zeros = connector.training, torch.zeros_like(batch["reference"])
        connector.eval()
        with torch.no_grad():
            forward, _ = connector(zeros, spoken, batch["before_source"])
            backward, _ = connector(zeros, -spoken, batch["before_target"])
        connector.train(training)
        has = batch["has_before"][:, None, None]
        return forward * has, backward * has

    def held_out(self) -> Mapping[str, float]:
        if self.held_out_clips is None:
            return {}
        lookup = self.net.label_codes.cpu().numpy()
        return figures.directions(self.net.connector, self.held_out_clips, lookup, self.pool_encoder)

    def record(self) -> Mapping[str, object]:
        return {
            "connector": asdict(self.settings.connector),
            "codec": self.codec_name,
            "codec_revision": self.codec_revision,
            "speech": self.encoder_name,
            "speech_setting": folder_name(self.settings.speech),
            "codec_setting": folder_name(self.settings.codec),
            "learnt_noise": self.net.sigma is not None,
            "strength": self.settings.strength,
            "inference": self.settings.inference,
            "heard": self.pool_encoder.rule,
            "encoded": self.net.neutral_speech.shape[1],
            "neutral": self.net.neutral_speech.shape[0],
        }


def check_vectors(encoder: SpeechEncoder, clips: Sequence[ClipArrays]) -> None:
    """Raises UserError if the encoder reads stored vectors, and the vector of a clip is absent."""
    if isinstance(encoder, StoredVectors) and (absent := encoder.absent([c.clip_id for c in clips])):
        raise UserError(
            f"{len(absent)} of {len(clips)} clips have no utterance vector, the first is {absent[0]}; write them with "
            "`python -m cmet_reference.cmet.store_vectors SHARDS MODEL FOLDER`"
        )


def vectors_of(clips: Sequence[ClipArrays], encoder: SpeechEncoder, quiet: bool = True) -> np.ndarray:
    """(N, R) float32, the rounded utterance vector of each clip. Vectors that take long are kept next to the shards."""

    def encode(clip: ClipArrays) -> np.ndarray:
        return rounded(encoder.encode(clip.audio, clip.clip_id))

    if encoder.keeps:
        return np.stack(kept_arrays(clips, encoder.name.replace("@", "-"), encode, quiet))
    return np.stack([encode(clip) for clip in clips])


def coded(clips: Sequence[ClipArrays], codec: FaceCodec, vectors: np.ndarray, quiet: bool = True) -> CodedClips:
    """Converts clips to the form that the sampler needs.

    Pictures are read only if the codec needs pictures. The codes of such a codec are kept next to the shards.

    Args:
        clips: the clips.
        codec: computes the codes.
        vectors: (N, R), the utterance vector of each clip.
        quiet: no progress lines.
    """
    if codec.revision:
        name = f"{codec.name}-{codec.revision}"
        codes = kept_arrays(clips, name, lambda c: codec.encode(face_of(c, pictures=True)), quiet)
    else:
        codes = [codec.encode(face_of(c, pictures=False)) for c in clips]
    return CodedClips(
        [c.clip_id for c in clips],
        [c.speaker for c in clips],
        [str(c.emotion) for c in clips],
        [level_of(c) for c in clips],
        codes,
        vectors.astype(np.float32),
    )


def level_of(clip: ClipArrays) -> int:
    """The intensity of a clip, 1 to 3. It is 1 for neutral clips and for clips without an intensity label."""
    return 1 if clip.emotion == "neutral" else (clip.intensity or 1)


def face_of(clip: ClipArrays, pictures: bool) -> Face:
    """Converts a clip to the form that codecs need. `pictures`: also read the frames."""
    frames = ShardSet(clip.folder).frames(clip.clip_id)[: len(clip)] if pictures else None
    return Face(frames, clip.landmarks, clip.blendshapes)


def discriminant(train: Sequence[ClipArrays], emotions: Sequence[str], shrink: float = 0.2) -> np.ndarray:
    """A linear discriminant, (53, 8), that predicts a clip's emotion from its 52 mean coefficients.

    The last row is the bias. The discriminant is multiplied by `_VISUAL`, because its scores are added to the audio's
    scores. The bias is -1e4 for an emotion that the training split does not show, so that it is never predicted.

    Args:
        shrink: share of the covariance that is replaced by its diagonal.
    """
    labels = np.array([EMOTIONS.index(e) for e in emotions])
    x = np.stack([c.blendshapes.mean(axis=0) for c in train]).astype(np.float64)
    centres = np.stack([x[labels == k].mean(axis=0) if (labels == k).any() else 0 * x[0] for k in range(8)])
    within = np.cov((x - centres[labels]).T)
    within = (1 - shrink) * within + (shrink + 1e-6) * np.diag(np.diag(within)) + 1e-9 * np.eye(len(within))
    weights = np.linalg.solve(within, centres.T)
    bias = -(centres.T * weights).sum(axis=0) / 2
    out = _VISUAL * np.concatenate([weights, bias[None]])
    out[-1, [k for k in range(len(EMOTIONS)) if not (labels == k).any()]] = -1e4
    return out


def codec_of(settings: CMetSettings, train: Sequence[ClipArrays], files: ModelFiles, device: str = "cpu") -> FaceCodec:
    """The codec that the settings name. This function fits the `blendshape` codec on the training split."""
    if settings.codec == BlendshapeCodec.name:
        return BlendshapeCodec(blendshape.fit_model(train, settings.code))
    return codec_named(settings.codec, files, device)


def codec_named(setting: str, files: ModelFiles, device: str = "cpu", stretched: bool = False) -> FaceCodec:
    """A codec with its authors' code and weights: `edtalk:CHECKOUT` or `pd-fgc:CHECKOUT`.

    Args:
        setting: the codec's name and the folder.
        files: the folders in which CHECKOUT is searched for.
        device: a torch device.
        stretched: how EDTalk's pictures are converted to bytes; see `codec.as_bytes`.
    """
    kind, where = _checkout(setting, files)
    if kind == "edtalk":
        from cmet_reference.cmet.edtalk import EDTalkCodec

        return EDTalkCodec(where, device, stretched)
    from cmet_reference.cmet.pd_fgc import PDFGCCodec

    return PDFGCCodec(where, device)


def codec_revision(setting: str, files: ModelFiles) -> str:
    """The revision of the codec that the setting names, from its files; "" for `blendshape`.

    Raises UserError if the checkout lacks a file.
    """
    if setting == BlendshapeCodec.name:
        return BlendshapeCodec.revision
    from cmet_reference.cmet import edtalk, pd_fgc

    kind, where = _checkout(setting, files)
    return edtalk.revision_of(where) if kind == "edtalk" else pd_fgc.revision_of(where)


def _checkout(setting: str, files: ModelFiles) -> tuple[str, Path]:
    """The codec's name and its checkout. Raises UserError if the setting is not of the form NAME:FOLDER."""
    kind, _, where = setting.partition(":")
    if kind not in ("edtalk", "pd-fgc"):
        raise UserError(f"codec = {setting!r}; known: blendshape, edtalk:CHECKOUT and pd-fgc:CHECKOUT")
    if not where:
        raise UserError(f"codec = {setting!r} names no checkout: {kind}:FOLDER")
    return kind, existing(where, f"codec = {setting!r}", files)


def stages(
    config: Mapping[str, Any],
    folders: Mapping[str, Path],
    out: Path,
    options: TrainOptions,
    files: ModelFiles,
) -> list[Callable[[], CMetStage]]:
    """The stage factories of `cmet-eval train cmet`: one stage, trained on the training splits of all `folders`."""
    settings = read_settings(config)

    def stage() -> CMetStage:
        device, quiet, most = resolved(options.device), options.quiet, options.most_clips
        # Other authors' networks are loaded before the clips are read, so that an absent file is an error at once.
        encoder = speech.make_encoder(settings.speech, out, files=files, device=device)
        ready = None if settings.codec == BlendshapeCodec.name else codec_named(settings.codec, files, device)
        train = read_clips(folders.values(), quiet=quiet, most=most)
        test = read_held_out(folders.values(), quiet=quiet, most=most)
        codec = ready or codec_of(settings, train, files)
        return CMetStage(settings, codec, encoder, train, test, options.seed, quiet)

    return [stage]
