"""Creates the gallery of the leaderboard: for a few pairs, a small video of every method, stored inside the page."""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cmet_eval.protocol.pair_files import read_pairs
from cmet_eval.protocol.pairs import pair_file_name
from cmet_eval.reports.web_video import write_web_video
from cmet_eval.runs.records import read_generation
from cmet_leaderboards.html import GalleryCase, GalleryVideo
from talking_face.clip import Pair
from talking_face.files import sha256_of, unchanged
from talking_face.reasons import ClipError
from talking_face.scratch import scratch_folder
from talking_face.sealed import Damaged

# A video of 256 px and 2 s takes 15 to 40 KB. Eight methods with four pairs in two settings add about 2 MB to the page.
_CRF = 28
_FIRST = ("ground-truth",)  # shown first, because its sound is the driving audio of all methods


def gallery(out: Path, per_setting: int = 4) -> dict[str, list[GalleryCase]]:
    """A few pairs of each setting of a run, with the videos of every method.

    Args:
        out: folder of `cmet-eval run`: pairs/SETTING.parquet and videos/METHOD/SETTING/PAIR.mp4.
        per_setting: largest number of pairs per setting; see `choose`.

    Returns:
        setting -> [{"pair", "speaker", "reference_emotion", "target_emotion", "videos": [{"method", "data"}]}]. `data`
        is the MP4 file in base64. The same videos give the same bytes.
    """
    methods = [folder.name for folder in (out / "videos").iterdir()] if (out / "videos").is_dir() else []
    ordered = sorted(methods, key=lambda m: (m not in _FIRST, m))
    found: dict[str, list[GalleryCase]] = {}
    for path in sorted((out / "pairs").glob("*.parquet")):
        pair_list = read_pairs(path)
        setting, pairs = pair_list.setting, pair_list.pairs
        files = {
            (pair.pair_id, method): file
            for pair in pairs
            for method in ordered
            if (file := out / "videos" / method / path.stem / f"{pair_file_name(pair.pair_id)}.mp4").is_file()
        }
        chosen = choose(pairs, ordered, files, per_setting)
        shown = [_shown(pair, ordered, files, out / "records") for pair in chosen]
        if shown := [item for item in shown if item["videos"]]:
            found[setting] = shown
    return found


def choose(
    pairs: Sequence[Pair], methods: Sequence[str], files: Mapping[tuple[str, str], Path], most: int
) -> list[Pair]:
    """Chooses at most `most` pairs.

    The next pair is always the pair with videos of the most methods. Among pairs with the same number of videos, the
    pair is chosen whose target emotion was chosen least often so far, and then the pair whose speaker was chosen least
    often.
    """
    chosen: list[Pair] = []
    left = [p for p in pairs if any((p.pair_id, m) in files for m in methods)]
    while left and len(chosen) < most:

        def rank(p: Pair) -> tuple[int, int, int, str]:
            have = sum((p.pair_id, m) in files for m in methods)
            emotions = sum(p.target_emotion == c.target_emotion for c in chosen)
            return -have, emotions, sum(p.speaker == c.speaker for c in chosen), p.pair_id

        best = min(left, key=rank)
        chosen.append(best)
        left.remove(best)
    return chosen


def _shown(pair: Pair, methods: Sequence[str], files: Mapping[tuple[str, str], Path], records: Path) -> GalleryCase:
    videos: list[GalleryVideo] = []
    for method in methods:
        if (source := files.get((pair.pair_id, method))) is None:
            continue
        with scratch_folder() as folder:
            target = folder / "small.mp4"
            try:
                made = read_generation(records / method / source.parent.name / f"{source.stem}.json")
                with unchanged(source, made.video_sha256 if made else sha256_of(source)):
                    write_web_video(source, target, crf=_CRF)
            except (ClipError, OSError, Damaged) as error:
                # The video is left out. Its result rows state why it has no scores, but not a change after scoring.
                print(f"cmet-eval: {pair.pair_id} of {method} is not on the page: {error}", file=sys.stderr)
                continue
            videos.append({"method": method, "data": base64.b64encode(target.read_bytes()).decode("ascii")})
    return {
        "pair": pair.pair_id,
        "speaker": pair.speaker,
        "reference_emotion": pair.reference_emotion,
        "target_emotion": pair.target_emotion,
        "videos": videos,
    }
