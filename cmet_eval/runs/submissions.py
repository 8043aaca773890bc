"""A submission: the videos of one method in one setting, and where its files are.

Used for the videos that `run` generated and for videos from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cmet_eval.protocol.pairs import PairList, pair_file_name
from cmet_eval.protocol.setting import Setting
from talking_face.clip import Pair
from talking_face.reasons import ClipError


@dataclass(frozen=True)
class Submission:
    """The videos of one method in one setting, ready to be scored."""

    method: Mapping[str, object]  # the method's record: name, revision, title, role, sees, ...
    setting: Setting
    pairs: PairList
    videos: Path  # folder
    pattern: str = "{pair}.mp4"  # file name of a pair; see `video_name`
    records: Path | None = None  # folder of the generation records, where this suite generated the videos
    failures: Mapping[str, ClipError] = field(default_factory=dict)  # pair_id -> why there is no video
    command: str = ""  # that makes these numbers again

    @property
    def name(self) -> str:
        """The method's name."""
        return str(self.method["name"])

    def video(self, pair: Pair) -> Path:
        """Path of a pair's video."""
        return self.videos / video_name(self.pattern, pair.pair_id)

    def record(self, pair: Pair) -> Path | None:
        """Path of a pair's generation record; None for videos from elsewhere."""
        return None if self.records is None else self.records / f"{pair_file_name(pair.pair_id)}.json"

    def key(self, pair: Pair) -> str:
        """A unique name for the video of a pair among all submissions."""
        return f"{self.name} {pair.pair_id}"


def video_name(pattern: str, pair_id: str) -> str:
    """File name of a pair's video. In `pattern`, `{pair}` is the result of `pair_file_name`, `{pair_id}` the id."""
    return pattern.format(pair=pair_file_name(pair_id), pair_id=pair_id)
