"""A small connector, clips, codes and a stage of C-MET, for several test files."""

from pathlib import Path

import numpy as np

from cmet_reference.clips import ClipArrays
from cmet_reference.cmet import blendshape, losses, speech
from cmet_reference.cmet.blendshape import BlendshapeCodec
from cmet_reference.cmet.connector import ConnectorSettings
from cmet_reference.cmet.data import CodedClips, Sampler, Sampling
from cmet_reference.cmet.train import CMetSettings, CMetStage
from talking_face.emotions import EMOTIONS

SMALL = ConnectorSettings(speech=6, width=16, layers=1, heads=2, feed_forward=16, dropout=0.0)


def coded(speakers: int = 2, takes: int = 2, frames: int = 20) -> CodedClips:
    draw = np.random.default_rng(0)
    rows = [(f"S{s}", e, k) for s in range(speakers) for e in EMOTIONS for k in range(takes)]
    offsets = draw.normal(size=(len(EMOTIONS), 10))
    codes = [
        (offsets[EMOTIONS.index(e)] + 0.1 * draw.normal(size=(frames + k, 10))).astype(np.float32) for _, e, k in rows
    ]
    speech_vectors = np.stack([np.eye(8)[EMOTIONS.index(e)][:6] + 0.01 * draw.normal(size=6) for _, e, _ in rows])
    return CodedClips(
        [f"mead/{s}/front/{e}/1/{k + 1:03d}" for s, e, k in rows],
        [s for s, _, _ in rows],
        [e for _, e, _ in rows],
        [1] * len(rows),
        codes,
        speech_vectors.astype(np.float32),
    )


def sampler_of(clips: CodedClips, sampling: Sampling, seed: int = 0) -> Sampler:
    """With the pool rule of the released code."""
    return Sampler(clips, sampling, seed, speech.fit_pool_encoder("mean", clips.speech, clips.speakers, clips.emotions))


def part_of(clips: CodedClips, index: list[int]) -> CodedClips:
    return CodedClips(
        *(
            [values[i] for i in index]
            for values in (clips.clip_ids, clips.speakers, clips.emotions, clips.levels, clips.codes)
        ),
        clips.speech[index],
    )


def clips_of(speakers: tuple[str, ...], frames: int = 20) -> list[ClipArrays]:
    """Faces of random points, whose mouths and coefficients follow the emotion; sounds whose pitch does."""
    draw = np.random.default_rng(len(speakers))
    face = np.random.default_rng(1).normal(size=(478, 3)) * 40 + 128
    out = []
    for s, speaker in enumerate(speakers):
        for k, emotion in enumerate(EMOTIONS):
            for take in (1, 2):
                shapes = 0.3 + 0.2 * np.sin(np.arange(52) * (k + 1)) + 0.02 * draw.normal(size=(frames, 52))
                points = face + 2 * np.sin(np.arange(478) * (k + 1))[:, None] + 0.2 * draw.normal(size=(frames, 478, 3))
                t = np.arange(640 * frames) / 16000
                wave = 8000 * np.sin(2 * np.pi * (100 + 15 * k + 30 * s) * t) + 100 * draw.normal(size=len(t))
                arrays = points.astype(np.float32), shapes.clip(0, 1).astype(np.float32), wave.astype(np.int16)
                clip_id = f"mead/{speaker}/front/{emotion}/1/{take:03d}"
                out.append(ClipArrays(Path(), clip_id, "mead", speaker, emotion, 1, None, *arrays))
    return out


def stage_of(seed: int = 0, reference: str = "released", reconstruction: str = "focal_mse") -> CMetStage:
    settings = CMetSettings(
        steps=10,
        rate=3e-3,
        connector=SMALL,
        sampling=Sampling(batch=8, reference=reference),  # type: ignore[arg-type]
        losses=losses.LossSettings(reconstruction=reconstruction),  # type: ignore[arg-type]
    )
    train = clips_of(("M1", "W1"))
    return CMetStage(
        settings, BlendshapeCodec(blendshape.fit_model(train)), speech.Prosody(), train, clips_of(("M2",)), seed
    )
