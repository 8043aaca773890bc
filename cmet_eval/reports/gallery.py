"""Creates the gallery of the leaderboard: for a few pairs, a small video of every method, stored next to the page."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from cmet_eval.reports.method_videos import MethodVideos
from cmet_eval.reports.web_video import write_web_video
from cmet_leaderboards.results import Results, grouped
from cmet_leaderboards.views import GalleryCase, GalleryVideo
from talking_face.files import sha256_of, unchanged
from talking_face.names import file_name_of
from talking_face.reasons import ClipError, Reason
from talking_face.scratch import scratch_folder

# A video of 256 px and 2 s takes 15 to 40 KB.
_CRF = 28
_FIRST = ("ground-truth",)  # shown first, because its sound is the driving audio of all methods


class ScoredPair(NamedTuple):
    """The labels of a pair that has result rows."""

    pair_id: str
    speaker: str
    reference_emotion: str
    target_emotion: str


Scored = dict[tuple[str, str], set[str]]  # (pair id, method) -> SHA-256 of the videos that the rows score


def gallery(results: Results, videos: MethodVideos, per_setting: int = 4) -> dict[str, list[GalleryCase]]:
    """A few pairs of each setting of the result rows, with the videos of every method.

    Args:
        results: result rows. Only videos that they score are shown.
        videos: the folders of the videos.
        per_setting: largest number of pairs per setting; see `choose`.

    Returns:
        setting -> [{"pair", "speaker", "reference_emotion", "target_emotion", "videos": [{"method", "data"}]}]. `data`
        is the MP4 file. The same videos give the same bytes.
    """
    found: dict[str, list[GalleryCase]] = {}
    for setting, (pairs, scored) in sorted(scored_pairs(results).items()):
        methods = sorted({method for _, method in scored}, key=lambda m: (m not in _FIRST, m))
        files = {
            (pair, method): file
            for (pair, method), shas in scored.items()
            if (file := videos.find(method, setting, pair, shas)) is not None
        }
        shown = [_shown(pair, methods, files, scored) for pair in choose(pairs, methods, files, per_setting)]
        if shown := [item for item in shown if item["videos"]]:
            found[setting] = shown
    return found


def scored_pairs(results: Results) -> dict[str, tuple[list[ScoredPair], Scored]]:
    """setting -> its pairs, sorted, and the videos that have result rows."""
    names = ("setting", "pair_id", "speaker", "reference_emotion", "target_emotion", "method", "video_sha256")
    columns = [results.table[name] for name in names]
    table = results.table.select(names).filter(columns[-1].is_valid())
    found: dict[str, tuple[dict[ScoredPair, None], Scored]] = {}
    for key in grouped(table, names)[1]:
        setting, *labels, method, sha256 = cast(tuple[str, ...], key)
        pairs, scored = found.setdefault(setting, ({}, {}))
        pair = ScoredPair(*(label or "" for label in labels))
        pairs[pair] = None
        scored.setdefault((pair.pair_id, method), set()).add(sha256)
    return {setting: (list(pairs), scored) for setting, (pairs, scored) in found.items()}


def choose(
    pairs: Sequence[ScoredPair], methods: Sequence[str], files: Mapping[tuple[str, str], Path], most: int
) -> list[ScoredPair]:
    """Chooses at most `most` pairs.

    The next pair is always the pair with videos of the most methods. Among pairs with the same number of videos, the
    pair is chosen whose target emotion was chosen least often so far, and then the pair whose speaker was chosen least
    often.
    """
    chosen: list[ScoredPair] = []
    left = [p for p in pairs if any((p.pair_id, m) in files for m in methods)]
    while left and len(chosen) < most:

        def rank(p: ScoredPair) -> tuple[int, int, int, str]:
            have = sum((p.pair_id, m) in files for m in methods)
            emotions = sum(p.target_emotion == c.target_emotion for c in chosen)
            return -have, emotions, sum(p.speaker == c.speaker for c in chosen), p.pair_id

        best = min(left, key=rank)
        chosen.append(best)
        left.remove(best)
    return chosen


def _shown(
    pair: ScoredPair, methods: Sequence[str], files: Mapping[tuple[str, str], Path], scored: Scored
) -> GalleryCase:
    videos: list[GalleryVideo] = []
    for method in methods:
        if (source := files.get((pair.pair_id, method))) is None:
            continue
        try:
            data = _small_video(source, scored[pair.pair_id, method])
        except (ClipError, OSError) as error:
            # The video is left out. Its result rows state why it has no scores, but not a change after scoring.
            print(f"cmet-eval: {pair.pair_id} of {method} is not on the page: {error}", file=sys.stderr)
            continue
        videos.append({"method": file_name_of(method), "data": data})
    return {
        "pair": pair.pair_id,
        "speaker": pair.speaker,
        "reference_emotion": pair.reference_emotion,
        "target_emotion": pair.target_emotion,
        "videos": videos,
    }


def _small_video(source: Path, sha256s: Collection[str]) -> bytes:
    """A small copy of a video. Raises ClipError if the file is not one of those that were scored, or is unreadable."""
    sha256 = sha256_of(source)
    if sha256 not in sha256s:
        raise ClipError(Reason.CHANGED, f"{source.name} is another video than was scored")
    with scratch_folder() as folder, unchanged(source, sha256):
        write_web_video(source, folder / "small.mp4", crf=_CRF)
        return (folder / "small.mp4").read_bytes()
