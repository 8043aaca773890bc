"""C-MET's inference: changes the emotion of a face in a video, in blocks of five frames. The lips follow the audio.

Source: inference.py of ChanHyeok-Choi/C-MET. The released code has some peculiarities. Each of these peculiarities is a
setting of `Inference`, and `RELEASED` turns all of them on.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from cmet_reference.cmet.speech import SpeechEncoder
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


RELEASED = Inference(source="neutral", strength=1.0, whole_blocks=True, drop_last=20, extend="mirror")


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
            settings: how the output codes are computed.
            renderer: draws the pictures of `video`.
            device: a torch device.
            files: the folders that are searched for checkpoints.

        Raises:
            MissingWeights: a checkpoint is absent.
            UserError: a checkpoint cannot be used.
        """
        self.settings = settings or Inference()
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
            if self.settings.strength is None:
                self.settings = replace(self.settings, strength=record["strength"])
            self.pool_encoder = self.net.pool_encoder(record["heard"])
        self.net.eval().to(torch.device(device))
        self.encoder: SpeechEncoder = speech.make_encoder(record["speech_setting"], folder, files=files)
        if self.encoder.name != record["speech"]:
            raise UserError(f"{path} was trained with {record['speech']}, not with {self.encoder.name}; train again")
        revisions = [checkpoints.revision(path)]
        self.codec: FaceCodec
        if record["codec"] == BlendshapeCodec.name:
            mouth = _checkpoint(folder, audio2mouth.KIND, files)
            revisions.append(checkpoints.revision(mouth))
            self.codec = BlendshapeCodec(self.net.blendshape_model(), audio2mouth.load(mouth), renderer)
        else:
            self.codec = codec_named(record["codec_setting"], files)
        self.revision = "-".join([*(r[:8] for r in revisions), self.codec.name])

    def direction(self, emotion_audio: Sequence[np.ndarray], neutral_audio: Sequence[np.ndarray] = ()) -> np.ndarray:
        """(D,): the direction of speech from the neutral utterances to the emotional utterances.

        Args:
            emotion_audio: one or more utterances, (N,) int16 at 16 kHz each.
            neutral_audio: neutral utterances, preferably of the same speakers. If there are none, neutral utterances of
                the training split are used.
        """
        if not len(emotion_audio):
            raise ClipError(Reason.NO_AUDIO, "C-MET needs an utterance in the target emotion")
        rest = self._rest(neutral_audio)
        return self.pool_encoder.direction(rest, self._encoded(emotion_audio), rest)

    def source_direction(
        self, source: Face, source_audio: np.ndarray | None, neutral_audio: Sequence[np.ndarray] = ()
    ) -> np.ndarray:
        """(D,): the direction of speech from neutral to the estimated emotion of the source.

        Zeros if `settings.source` is "neutral", or if the source's audio or blendshapes are unknown.
        """
        if self.settings.source == "neutral" or source_audio is None or source.blendshapes is None:
            return np.zeros(self.pool_encoder.size, np.float32)
        return self.source_probabilities(source, source_audio, neutral_audio) @ self._buffer("label_speech")

    def source_probabilities(
        self, source: Face, source_audio: np.ndarray, neutral_audio: Sequence[np.ndarray] = ()
    ) -> np.ndarray:
        """(8,): the probability of each of EMOTIONS in the source. For `neutral_audio`, see `direction`."""
        seen = source.need("blendshapes", "the estimate of the source's emotion").mean(axis=0)
        scores = self.pool_encoder.scores(self._encoded([source_audio]), self._rest(neutral_audio))
        return speech.softmax(scores + np.append(seen, 1) @ self._buffer("seen"))

    def codes(
        self,
        frames: int,
        source: Face,
        emotion_audio: Sequence[np.ndarray],
        neutral_audio: Sequence[np.ndarray] = (),
        source_audio: np.ndarray | None = None,
    ) -> np.ndarray:
        """(frames, C): the source's expression codes, changed to the emotion of `emotion_audio`."""
        start = self.source_direction(source, source_audio, neutral_audio)
        direction = self.direction(emotion_audio, neutral_audio) - start
        return expression_track(self.net.connector, direction, self.codec.encode(source), frames, self.settings)

    def landmarks(
        self,
        audio: np.ndarray,
        source: Face,
        emotion_audio: Sequence[np.ndarray] = (),
        neutral_audio: Sequence[np.ndarray] = (),
        source_audio: np.ndarray | None = None,
        frames: int | None = None,
    ) -> np.ndarray:
        """The landmarks of a face that speaks `audio` in another emotion.

        Args:
            audio: (N,) int16, 16 kHz. The lips follow this audio.
            source: landmarks and blendshapes of the source video, which give identity, pose, blinks and expression.
            emotion_audio: utterances in the target emotion, of any speaker; default: `audio`.
            neutral_audio: neutral utterances of the same speakers and of the person in the source video.
            source_audio: the source video's own audio; see `Inference.source`.
            frames: number of output frames T; default: the length of the audio.

        Returns:
            (T, 478, 3) float32 px of the source's picture.

        Raises:
            UserError: the codec is not the blendshape codec. Other codecs give no landmarks.
        """
        if not isinstance(self.codec, BlendshapeCodec):
            raise UserError(f"the {self.codec.name} codec makes no landmarks; ask for video")
        n = frames or len(audio) // SAMPLES_A_FRAME
        codes = self.codes(n, source, emotion_audio or [audio], neutral_audio, source_audio)
        return self.codec.points(source, self.codec.lips(audio, source, n), source, codes)

    def video(
        self,
        audio: np.ndarray,
        source: Face,
        emotion_audio: Sequence[np.ndarray] = (),
        neutral_audio: Sequence[np.ndarray] = (),
        source_audio: np.ndarray | None = None,
        frames: int | None = None,
    ) -> np.ndarray:
        """The face that `landmarks` describes, as pictures, (T, H, W, 3) uint8 RGB.

        The arguments are the same as for `landmarks`, except that `source` also needs frames. This method works with
        every codec.
        """
        n = frames or len(audio) // SAMPLES_A_FRAME
        codes = self.codes(n, source, emotion_audio or [audio], neutral_audio, source_audio)
        return self.codec.decode(source, self.codec.lips(audio, source, n), source, codes)

    def _encoded(self, utterances: Sequence[np.ndarray]) -> np.ndarray:
        """The vectors of the utterances, (N, R)."""
        return np.stack([self.encoder.encode(u) for u in utterances])

    def _rest(self, neutral_audio: Sequence[np.ndarray]) -> np.ndarray:
        """The vectors of the neutral utterances, (M, R). Without utterances: vectors of the training split."""
        return self._encoded(neutral_audio) if len(neutral_audio) else self._buffer("neutral_speech")

    def _buffer(self, name: str) -> np.ndarray:
        return np.asarray(getattr(self.net, name).cpu().numpy())


def _checkpoint(folder: Path | None, name: str, files: ModelFiles) -> Path:
    here = folder / f"{name}.safetensors" if folder else None
    return here if here and here.is_file() else checkpoints.find(name, files)
