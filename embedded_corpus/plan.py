"""Plans an embedded corpus: the list of clips, the picture size and the length of the clips."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from talking_face.emotions import EMOTIONS
from talking_face.reasons import UserError

if TYPE_CHECKING:
    from embedded_corpus.clip import ClipSpec
    from embedded_corpus.layouts import Layout

SIZES = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080)}
GENERATOR = 5  # version of the generator: increase it when the same settings give other bytes
_LEVEL_TAKES = {1: 1, 2: 1, 3: 2}  # number of clips per level of an emotion; neutral has only level 1, with four clips


@dataclass(frozen=True)
class CorpusPlan:
    """The settings of a corpus. Two runs with the same plan write the same bytes."""

    layout: str  # one of embedded_corpus.layouts.LAYOUTS
    speakers: int = 8  # 1 to 198
    takes: int = 1  # a speaker has 32 * takes clips
    size: str | None = None  # "1080p" or WIDTHxHEIGHT; None: the default size of the layout
    seconds: float = 2.0  # length of each clip, 0.4 to 60
    seed: int = 0  # a different seed changes the speech and the motion, but not the faces
    defects: bool = False  # also write the dataset's known bad clips and damaged files
    # all: 32 * takes clips of a speaker; one-sentence: 8, each emotion once, at its highest level, with one sentence,
    # which is cut off where the clip ends. Spoken faster, a sentence has 20 phones/s in a clip of 1.2 s, nearly one per
    # frame, and all emotions have the same tempo.
    clips: Literal["all", "one-sentence"] = "all"
    # Pixels per 100 mm at which skin and hair are drawn, before they are scaled down; None: 360. At 360 the textures of
    # a speaker take 1.6 s; at 180 they take 0.5 s, and hairs and wrinkles are coarser.
    detail: float | None = None
    only: tuple[str, ...] | None = None  # write only clips whose key contains one of these texts, such as "/happy/"

    def settings(self, size: str) -> dict[str, object]:
        """The settings that are stored in the corpus folder as JSON, because a folder holds only one corpus."""
        return {
            "generator": GENERATOR, "layout": self.layout, "speakers": self.speakers, "takes": self.takes, "size": size,
            "seconds": self.seconds, "seed": self.seed, "only": None if self.only is None else sorted(self.only),
            "defects": self.defects, **({} if self.clips == "all" else {"clips": self.clips, "speech": "cut"}),
            **({} if self.detail is None else {"detail": self.detail}),
        }  # fmt: skip

    def specs(self, tree: Layout, size: str) -> list[ClipSpec]:
        """The clips to write. Raises UserError if a number is out of range, or if `only` matches no clip."""
        if not 1 <= self.speakers <= 198 or self.takes < 1 or not 0.4 <= self.seconds <= 60:
            raise UserError("speakers: 1 to 198; takes: 1 or more; seconds: 0.4 to 60")
        if self.clips == "all":
            every = clip_specs(self.speakers, self.takes, size, self.seconds, self.seed)
        else:
            every = one_sentence_specs(self.speakers, size, self.seconds, self.seed)
        if self.detail is not None:
            every = [replace(spec, detail=self.detail) for spec in every]
        specs = tree.select(every)
        if self.only is None:
            return specs
        chosen = [spec for spec in specs if any(part in spec.key for part in self.only)]
        if not chosen:
            example = clip_specs(1)[0].key
            raise UserError(f"no clip's key contains any of {', '.join(self.only)}; a key is like {example}")
        return chosen


def clip_specs(
    speakers: int = 8, takes: int = 1, size: str = "640x360", seconds: float = 2.0, seed: int = 0
) -> list[ClipSpec]:
    """All clips of a corpus, sorted by key. There are 32 * takes clips per speaker.

    A speaker speaks four sentences per take. Each sentence is spoken once neutrally and once in every emotion. The four
    sentences of an emotion are distributed over the three levels. So every emotional clip has a neutral clip of the
    same sentence and speaker. The number of a clip defines the first sentence of the clip: clip number n begins with
    sentence 1 + (n - 1) mod 16 (cmet_pipelines/numbering.toml).
    """

    def clips(n: int) -> Iterator[tuple[str, int, int]]:
        for e, emotion in enumerate(EMOTIONS):
            for level, per in ({1: 4} if emotion == "neutral" else _LEVEL_TAKES).items():
                for k in range(per * takes):
                    block, within = divmod(k, per)
                    turn = within if emotion == "neutral" else (e + level - 1 + within) % 4
                    yield emotion, level, 4 * (n % 4 + block) + turn

    return _specs(clips, speakers, size, seconds, seed)


def one_sentence_specs(speakers: int, size: str, seconds: float, seed: int) -> list[ClipSpec]:
    """Eight clips per speaker, sorted by key: each emotion once, at its highest level, with the speaker's sentence.

    The n-th speaker begins with sentence 1 + n mod 16. So every emotional clip has a neutral clip of the same sentence
    and speaker, and 16 speakers say all sentences. A sentence that is longer than the clip is cut off.
    """

    def clips(n: int) -> Iterator[tuple[str, int, int]]:
        for emotion in EMOTIONS:
            yield emotion, 1 if emotion == "neutral" else max(_LEVEL_TAKES), n % 16

    return [replace(spec, cut=True) for spec in _specs(clips, speakers, size, seconds, seed)]


def _specs(
    clips: Callable[[int], Iterable[tuple[str, int, int]]], speakers: int, size: str, seconds: float, seed: int
) -> list[ClipSpec]:
    """The clips of all speakers, sorted by key.

    Args:
        clips: the clips of the n-th speaker: emotion, level, and index of the first sentence.
        speakers, size, seconds, seed: see `CorpusPlan`.
    """
    from embedded_corpus.clip import ClipSpec
    from embedded_corpus.identity import speaker_names
    from embedded_corpus.speech import sentences

    width, height = parse_size(size)
    ids = sorted(sentences())
    specs = []
    for n, speaker in enumerate(speaker_names(speakers)):
        for emotion, level, at in clips(n):
            order = tuple(ids[(at + step) % len(ids)] for step in range(len(ids)))
            specs.append(ClipSpec(speaker, emotion, level, at + 1, order, seconds, width, height, seed))
    return sorted(specs, key=lambda s: s.key)


def parse_size(size: str) -> tuple[int, int]:
    """(width, height) of a size such as "1080p" or "640x360". Raises UserError for any other text."""
    if size in SIZES:
        return SIZES[size]
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", size)
    if not match:
        raise UserError(f"--size {size}: give WIDTHxHEIGHT, such as 640x360, or one of {', '.join(SIZES)}")
    width, height = int(match[1]), int(match[2])
    if width % 2 or height % 2 or not 120 <= height <= 2160 or not 0.9 * height <= width <= 7680:
        raise UserError(f"--size {size}: even numbers, 120 to 2160 high, and at least 0.9 times as wide as high")
    return width, height
