"""C-MET at work: a video's face in another emotion, in blocks of five frames, the lips following the sound.

Source: inference.py of ChanHyeok-Choi/C-MET. Its quirks are settings; `RELEASED` has them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from cmet_reference.cem_net import audio2mouth
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

SAMPLES_A_FRAME = 640  # 16 kHz at 25 frames/s


@dataclass(frozen=True)
class Inference:
    """How a track of codes is made. The defaults are ours; `RELEASED` is what inference.py does."""

    reference: Literal["previous", "zero"] = "previous"
    # What the direction starts from. "neutral": the source is taken for neutral, whatever it shows, so that in another
    # emotion the target's is added on top. "seen": the source's emotion is guessed from its coefficients and its own
    # sound, and the utterance direction starts there, as in training, where any emotion leads to any other.
    source: Literal["seen", "neutral"] = "seen"
    strength: float | None = None  # of the direction; None: the checkpoint's (1 where there is no checkpoint)
    whole_blocks: bool = False  # frames beyond the last full block are left out
    drop_last: int = 0  # frames cut off the end of the track (released: 20)
    extend: Literal["hold", "mirror"] = "hold"  # a track that is shorter than the sound: last frame, or back and forth


RELEASED = Inference(source="neutral", strength=1.0, whole_blocks=True, drop_last=20, extend="mirror")


def expression_track(
    connector: Connector, direction: np.ndarray, codes: np.ndarray, frames: int, settings: Inference
) -> np.ndarray:
    """Codes of the source with the emotion added.

    Args:
        direction: (D,) utterance direction in the network's units.
        codes: (T, C) of the source video.
        frames: how many are wanted.

    Returns:
        (frames, C) float32.

    Raises:
        ClipError: nothing is left of the source (the released code then never ends).
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
        files: ModelFiles | None = None,
    ) -> None:
        """`folder`: where cmet.safetensors and audio2mouth.safetensors lie; without it they are looked for.

        Raises MissingWeights where one is not there, UserError where one cannot be used.
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
            self.hearing = self.net.hearing(record["heard"])
        self.net.eval().to(torch.device(device))
        self.encoder: SpeechEncoder = speech.build(record["speech_setting"], folder, files)
        if self.encoder.name != record["speech"]:
            raise UserError(f"{path} was trained with {record['speech']}, and here is {self.encoder.name}; train again")
        revisions = [checkpoints.revision(path)]
        self.codec: FaceCodec
        if record["codec"] == BlendshapeCodec.name:
            mouth = _checkpoint(folder, audio2mouth.KIND, files)
            revisions.append(checkpoints.revision(mouth))
            self.codec = BlendshapeCodec(self.net.blendshape_model(), audio2mouth.load(mouth), renderer)
        else:
            self.codec = codec_named(record["codec_setting"])
        self.revision = "-".join([*(r[:8] for r in revisions), self.codec.name])

    def direction(self, emotion_audio: Sequence[np.ndarray], neutral_audio: Sequence[np.ndarray] = ()) -> np.ndarray:
        """(D,) from what is heard of the neutral utterances to what is heard of the emotional ones.

        Args:
            emotion_audio: (N,) int16 at 16 kHz each, one or more.
            neutral_audio: the same, best of the same people; without any, the training split's stand for them.
        """
        if not len(emotion_audio):
            raise ClipError(Reason.NO_AUDIO, "C-MET needs an utterance in the target emotion")
        rest = self._rest(neutral_audio)
        return self.hearing.between(rest, self._encoded(emotion_audio), rest)

    def source_direction(
        self, source: Face, source_audio: np.ndarray | None, neutral_audio: Sequence[np.ndarray] = ()
    ) -> np.ndarray:
        """(D,) from neutral to what the source is thought to show; zeros where `settings.source` is neutral or the
        source's sound is not known."""
        if self.settings.source == "neutral" or source_audio is None or source.blendshapes is None:
            return np.zeros(self.hearing.size, np.float32)
        return self.source_shares(source, source_audio, neutral_audio) @ self._buffer("label_speech")

    def source_shares(
        self, source: Face, source_audio: np.ndarray, neutral_audio: Sequence[np.ndarray] = ()
    ) -> np.ndarray:
        """(8,) how likely the source shows each of EMOTIONS; `neutral_audio` as in `direction`."""
        seen = source.need("blendshapes", "the guess of the source's emotion").mean(axis=0)
        heard = self.hearing.scores(self._encoded([source_audio]), self._rest(neutral_audio))
        return speech.shares(heard + np.append(seen, 1) @ self._buffer("seen"))

    def codes(
        self,
        frames: int,
        source: Face,
        emotion_audio: Sequence[np.ndarray],
        neutral_audio: Sequence[np.ndarray] = (),
        source_audio: np.ndarray | None = None,
    ) -> np.ndarray:
        """(frames, C) expression codes of the source in the emotion of `emotion_audio`."""
        start = self.source_direction(source, source_audio, neutral_audio)
        heard = self.direction(emotion_audio, neutral_audio) - start
        return expression_track(self.net.connector, heard, self.codec.encode(source), frames, self.settings)

    def landmarks(
        self,
        audio: np.ndarray,
        source: Face,
        emotion_audio: Sequence[np.ndarray] = (),
        neutral_audio: Sequence[np.ndarray] = (),
        source_audio: np.ndarray | None = None,
        frames: int | None = None,
    ) -> np.ndarray:
        """The face that says `audio` in another emotion.

        Args:
            audio: (N,) int16, 16 kHz: what the lips follow.
            source: landmarks and blendshapes of the video that gives identity, pose, blinks and expression.
            emotion_audio: utterances in the target emotion, of anyone; without any, `audio` itself is one.
            neutral_audio: neutral utterances, of the same people and of who is in the source video.
            source_audio: the source video's own sound; see `Inference.source`.
            frames: default: as many as the sound has.

        Returns:
            (T, 478, 3) float32 px of the source's picture. Only with the blendshape codec; the others draw at once.
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
        """The same as pictures, (T, H, W, 3) uint8 RGB, with any codec; `source` needs frames too."""
        n = frames or len(audio) // SAMPLES_A_FRAME
        codes = self.codes(n, source, emotion_audio or [audio], neutral_audio, source_audio)
        return self.codec.decode(source, self.codec.lips(audio, source, n), source, codes)

    def _encoded(self, utterances: Sequence[np.ndarray]) -> np.ndarray:
        """(N, R)."""
        return np.stack([self.encoder.encode(u) for u in utterances])

    def _rest(self, neutral_audio: Sequence[np.ndarray]) -> np.ndarray:
        """(M, R) of neutral utterances."""
        return self._encoded(neutral_audio) if len(neutral_audio) else self._buffer("neutral_speech")

    def _buffer(self, name: str) -> np.ndarray:
        return np.asarray(getattr(self.net, name).cpu().numpy())


def _checkpoint(folder: Path | None, name: str, files: ModelFiles | None) -> Path:
    here = folder / f"{name}.safetensors" if folder else None
    return here if here and here.is_file() else checkpoints.find(name, files)
