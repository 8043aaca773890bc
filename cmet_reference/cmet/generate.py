"""C-MET's inference: changes the emotion of a face in a video, in blocks of five frames. The lips follow the audio.

Source: inference.py and src/util.py of ChanHyeok-Choi/C-MET, commit bd384ac. The released code has some peculiarities.
Each of these peculiarities is a setting of `Inference`, and `RELEASED` turns all of them on. The checkpoint records the
name of the settings, `ours` or `released`, which the key `inference` of the training's TOML file gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from cmet_reference.cem_net import audio2mouth
from cmet_reference.clips import SAMPLES_A_FRAME
from cmet_reference.cmet import figures, speech
from cmet_reference.cmet.blendshape import BlendshapeCodec
from cmet_reference.cmet.codec import Face, FaceCodec, held
from cmet_reference.cmet.connector import Connector, ConnectorSettings
from cmet_reference.cmet.speech import SpeechEncoder, Utterances
from cmet_reference.cmet.train import KIND, CMetNet, codec_named
from cmet_reference.render.base import Renderer
from cmet_reference.training import checkpoints
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason, UserError


@dataclass(frozen=True)
class Inference:
    """How the output codes are computed. The defaults are ours; `RELEASED` has the values of inference.py."""

    reference: Literal["previous", "zero"] = "previous"  # reference tokens of a block; see `figures.predict`
    # The emotion from which the direction starts. "neutral": the direction starts from neutral, even if the source
    # shows another emotion; then the target emotion is added to the source's emotion. "seen": the direction starts from
    # the source's emotion, which is estimated from the source's blendshapes and audio. "seen" agrees with the training,
    # where directions lead from any emotion to any other emotion.
    source: Literal["seen", "neutral"] = "seen"
    strength: float | None = None  # factor of the direction; None: the factor in the checkpoint, or 1 if it has none
    whole_blocks: bool = False  # discard the frames after the last full block
    drop_last: int = 0  # number of frames to discard at the end of the track (released: 20)
    extend: Literal["hold", "mirror"] = "hold"  # lengthen a short track: repeat its last frame, or play back and forth
    stretched: bool = False  # stretch the values of each video to 0 to 255; see `codec.as_bytes`


RELEASED = Inference(source="neutral", strength=1.0, whole_blocks=True, drop_last=20, extend="mirror", stretched=True)
NAMED: Mapping[str, Inference] = {"ours": Inference(), "released": RELEASED}


def expression_track(
    connector: Connector, direction: np.ndarray, codes: np.ndarray, frames: int, settings: Inference
) -> np.ndarray:
    """The source's codes with the emotion added.

    Args:
        direction: (D,) direction of speech, the difference of two results of `PoolEncoder`.
        codes: (T, C) expression codes of the source video.
        frames: the number of output frames.

    Returns:
        (frames, C) float32.

    Raises:
        ClipError: no frame of the source remains. The released code does not terminate in this case.
    """
    if settings.whole_blocks:
        codes = codes[: len(codes) - len(codes) % connector.settings.window]
    if len(codes) <= settings.drop_last:
        raise ClipError(
            Reason.TOO_SHORT, f"the source has {len(codes)} frames in whole blocks, {settings.drop_last} are dropped"
        )
    added = figures.predict(connector, direction[None], codes[None], settings.reference)[0]
    strength = 1.0 if settings.strength is None else settings.strength
    track = (codes + strength * added)[: len(codes) - settings.drop_last]
    if settings.extend == "mirror":
        while len(track) < frames:
            track = np.concatenate([track, track[::-1]])
    return held(track, frames).astype(np.float32)


class CMetFace:
    """A trained C-MET with its codec and encoders."""

    def __init__(
        self,
        folder: Path | None = None,
        settings: Inference | None = None,
        renderer: Renderer | None = None,
        device: str = "cpu",
        *,
        files: ModelFiles,
    ) -> None:
        """Load the networks.

        Args:
            folder: the folder of cmet.safetensors and audio2mouth.safetensors. A file that is not in this folder is
                searched for in `files`.
            settings: how the output codes are computed; None: as the checkpoint records.
            renderer: draws the pictures of `video`.
            device: a torch device.
            files: the folders that are searched for checkpoints.

        Raises:
            MissingWeights: a checkpoint is absent.
            UserError: a checkpoint cannot be used.
        """
        path = _checkpoint(folder, KIND, files)
        state, record = checkpoints.load(path, KIND)
        with checkpoints.as_saved(path, KIND):
            self.net = CMetNet(
                ConnectorSettings(**record["connector"]),
                record["codec"],
                record["learnt_noise"],
                record["encoded"],
                record["neutral"],
            )
            self.net.load_state_dict(state)
            self.settings = settings or NAMED[record["inference"]]
            if self.settings.strength is None:
                self.settings = replace(self.settings, strength=record["strength"])
            self.knows_source = bool(record.get("knows_source", True))
            self.pool_encoder = self.net.pool_encoder(record["heard"])
        self.net.eval().to(torch.device(device))
        self.encoder: SpeechEncoder = speech.make_encoder(record["speech_setting"], folder, files=files, device=device)
        if self.encoder.name != record["speech"]:
            raise UserError(f"{path} was trained with {record['speech']}, not with {self.encoder.name}; train again")
        revisions = [checkpoints.revision(path)]
        self.codec: FaceCodec
        if record["codec"] == BlendshapeCodec.name:
            mouth = _checkpoint(folder, audio2mouth.KIND, files)
            revisions.append(checkpoints.revision(mouth))
            self.codec = BlendshapeCodec(self.net.blendshape_model(), audio2mouth.load(mouth), renderer)
        else:
            self.codec = codec_named(record["codec_setting"], files, device, self.settings.stretched)
            if self.codec.revision != record["codec_revision"]:
                raise UserError(
                    f"{path} was trained with {record['codec']} {record['codec_revision']}, found is "
                    f"{self.codec.revision}: the checkout has other code or weights; restore them, or train again"
                )
        self.revision = "-".join([*(r[:8] for r in revisions), self.codec.name])

    def direction(self, emotion: Utterances, neutral: Utterances | None = None) -> np.ndarray:
        """(D,): the direction of speech from the neutral utterances to the emotional utterances.

        Args:
            emotion: one or more utterances.
            neutral: neutral utterances, preferably of the same speakers. If there are none, neutral utterances of the
                training split are used.
        """
        if not emotion:
            raise ClipError(Reason.NO_AUDIO, "C-MET needs an utterance in the target emotion")
        rest = self._rest(neutral)
        return self.pool_encoder.direction(rest, emotion.vectors(self.encoder), rest)

    def source_direction(
        self, source: Face, spoken: Utterances | None = None, neutral: Utterances | None = None
    ) -> np.ndarray:
        """(D,): the direction of speech from neutral to the estimated emotion of the source.

        Zeros if `settings.source` is "neutral", or if the source's audio or blendshapes are unknown.

        Args:
            source: the source video; its blendshapes are used.
            spoken: the source video's own audio, as one utterance.
            neutral: see `direction`.

        Raises:
            UserError: the checkpoint was imported, and cannot estimate the source's emotion.
        """
        if self.settings.source == "neutral" or not spoken or source.blendshapes is None:
            return np.zeros(self.pool_encoder.size, np.float32)
        if not self.knows_source:
            raise UserError(
                "an imported checkpoint of C-MET has no estimate of the source's emotion; use inference = 'released'"
            )
        return self.source_probabilities(source, spoken, neutral) @ self._buffer("label_speech")

    def source_probabilities(self, source: Face, spoken: Utterances, neutral: Utterances | None = None) -> np.ndarray:
        """(8,): the probability of each of EMOTIONS in the source. The arguments are those of `source_direction`."""
        seen = source.need("blendshapes", "the estimate of the source's emotion").mean(axis=0)
        scores = self.pool_encoder.scores(spoken.vectors(self.encoder), self._rest(neutral))
        return speech.softmax(scores + np.append(seen, 1) @ self._buffer("seen"))

    def codes(
        self,
        frames: int,
        source: Face,
        emotion: Utterances,
        neutral: Utterances | None = None,
        spoken: Utterances | None = None,
    ) -> np.ndarray:
        """(frames, C): the source's expression codes, changed to the emotion of the utterances."""
        direction = self.direction(emotion, neutral) - self.source_direction(source, spoken, neutral)
        return expression_track(self.net.connector, direction, self.codec.encode(source), frames, self.settings)

    def landmarks(
        self,
        audio: np.ndarray,
        source: Face,
        emotion: Utterances | None = None,
        neutral: Utterances | None = None,
        spoken: Utterances | None = None,
        frames: int | None = None,
    ) -> np.ndarray:
        """The landmarks of a face that speaks `audio` in another emotion.

        Args:
            audio: (N,) int16, 16 kHz. The lips follow this audio.
            source: landmarks and blendshapes of the source video, which give identity, pose, blinks and expression.
            emotion: utterances in the target emotion, of any speaker; default: `audio`.
            neutral: neutral utterances of the same speakers and of the person in the source video.
            spoken: the source video's own audio; see `Inference.source`.
            frames: number of output frames T; default: the length of the audio.

        Returns:
            (T, 478, 3) float32 px of the source's picture.

        Raises:
            UserError: the codec is not the blendshape codec. Other codecs draw pictures without landmarks.
        """
        if not isinstance(self.codec, BlendshapeCodec):
            raise UserError(f"the {self.codec.name} codec makes no landmarks; ask for video")
        n = frames or len(audio) // SAMPLES_A_FRAME
        codes = self.codes(n, source, emotion or Utterances([audio]), neutral, spoken)
        return self.codec.points(source, self.codec.lips(audio, source, n), source, codes)

    def video(
        self,
        audio: np.ndarray,
        source: Face,
        emotion: Utterances | None = None,
        neutral: Utterances | None = None,
        spoken: Utterances | None = None,
        frames: int | None = None,
        identity: Face | None = None,
    ) -> np.ndarray:
        """The face as pictures, (T, H, W, 3) uint8 RGB. This method works with every codec.

        Args:
            audio, emotion, neutral, spoken, frames: see `landmarks`.
            source: frames of the source video, which gives pose and expression, and what else the codec needs.
            identity: frames of the person; default: `source`. EDTalk and PD-FGC use the first frame.
        """
        n, who = frames or len(audio) // SAMPLES_A_FRAME, identity or source
        codes = self.codes(n, source, emotion or Utterances([audio]), neutral, spoken)
        return self.codec.decode(who, self.codec.lips(audio, who, n), source, codes)

    def _rest(self, neutral: Utterances | None) -> np.ndarray:
        """The vectors of the neutral utterances, (M, R). Without utterances: vectors of the training split."""
        if neutral:
            return neutral.vectors(self.encoder)
        known = self._buffer("neutral_speech")
        if not len(known):
            raise ClipError(Reason.NO_AUDIO, "an imported checkpoint of C-MET needs neutral utterances")
        return known

    def _buffer(self, name: str) -> np.ndarray:
        return np.asarray(getattr(self.net, name).cpu().numpy())


def _checkpoint(folder: Path | None, name: str, files: ModelFiles) -> Path:
    here = folder / f"{name}.safetensors" if folder else None
    return here if here and here.is_file() else checkpoints.find(name, files)
