"""Stores a few small videos of a board of the standing leaderboard, where its data may be shown.

`videos.csv` names the pair, the method and the file of each video. The name of a file is the start of its SHA-256. Only
videos of drawn data are stored, because the licences of recorded data sets do not allow it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cmet_leaderboards.section_views import video_path
from cmet_leaderboards.views import GalleryCase, GalleryVideo
from talking_face.files import write_bytes, write_text
from talking_face.names import file_name_of
from talking_face.reasons import UserError
from talking_face.sealed import Damaged
from talking_face.user_files import read_csv

TABLE = "videos.csv"
_COLUMNS = ("pair", "speaker", "reference_emotion", "target_emotion", "method", "file")
_REMEDY = "restore the committed file, or add the run again"


def check_drawn(name: str, origin: str) -> None:
    """Raises UserError if the data of the board with this name are not drawn."""
    if origin != "drawn":
        raise UserError(f"the data of {name} are {origin}, so its videos are not stored; leave out --gallery")


def add_videos(cases: Iterable[GalleryCase], folder: Path, origin: str) -> int:
    """Store videos of a board. A method that has a video of a pair already keeps it.

    Args:
        cases: the pairs with their videos.
        folder: the folder of the board.
        origin: the origin of the board's data.

    Returns:
        the number of videos that were added.

    Raises:
        UserError: the data are not drawn.
    """
    check_drawn(folder.name, origin)
    lines = {(line["pair"], line["method"]): line for line in _lines(folder)}
    before = len(lines)
    for case in cases:
        for video in case["videos"]:
            if (case["pair"], video["method"]) not in lines:
                path = video_path(video["data"])
                labels = {name: str(case[name]) for name in _COLUMNS[:4]}  # type: ignore[literal-required]
                lines[case["pair"], video["method"]] = {**labels, "method": video["method"], "file": path}
                write_bytes(folder / path, video["data"])
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines[place] for place in sorted(lines))
    write_text(folder / TABLE, buffer.getvalue())
    return len(lines) - before


def read_videos(folder: Path, methods: Sequence[str]) -> list[GalleryCase]:
    """The stored videos of a board's methods, sorted by pair; the methods are in the order of `methods`.

    Raises:
        Damaged: a video is not what was written.
        UserError: videos.csv has another form.
    """
    order = {file_name_of(method): place for place, method in enumerate(methods)}
    cases: dict[str, GalleryCase] = {}
    for line in sorted(_lines(folder), key=lambda line: (line["pair"], order.get(line["method"], 0))):
        if line["method"] not in order:
            continue
        case = GalleryCase(
            pair=line["pair"],
            speaker=line["speaker"],
            reference_emotion=line["reference_emotion"],
            target_emotion=line["target_emotion"],
            videos=[],
        )
        video = GalleryVideo(method=line["method"], data=_video(folder, line["file"]))
        cases.setdefault(line["pair"], case)["videos"].append(video)
    return list(cases.values())


def _lines(folder: Path) -> list[Mapping[str, str]]:
    if not (folder / TABLE).is_file():
        return []
    return [row.cells for row in read_csv(folder / TABLE, "list of videos", _COLUMNS)]


def _video(folder: Path, name: str) -> bytes:
    path = folder / "videos" / Path(name).name
    try:
        data = path.read_bytes()
    except OSError:
        raise Damaged(path, "it is missing", _REMEDY) from None
    if video_path(data) != name:
        raise Damaged(path, "it is not what was written", _REMEDY)
    return data
