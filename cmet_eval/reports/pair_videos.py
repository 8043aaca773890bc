"""Finds the videos of every pair next to a board, so that the board's pop-ups can play them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from cmet_eval.reports.gallery import scored_pairs
from cmet_eval.reports.method_videos import MethodVideos
from cmet_leaderboards.results import Results
from talking_face.files import sha256_of
from talking_face.names import file_name_of


def pair_videos(results: Results, videos: MethodVideos, out: Path) -> dict[tuple[str, str, str], str]:
    """The address, relative to a page in `out`, of each scored video that is in a folder next to `out`.

    A board contains no name of a folder of this machine. Therefore videos in other places have no address, and their
    pop-ups show only values. A file that is not the scored one has no address either.

    Args:
        results: result rows. Only videos that they score have an address.
        videos: the folders of the videos.
        out: the folder of the board.

    Returns:
        (setting, folder name of the method, pair id) -> address, such as `../videos/cmet/cross-emotion/PAIR.mp4`.
    """
    root = videos.root.resolve()
    if root.parent != out.resolve().parent:
        return {}
    found = {}
    for setting, (_, scored) in scored_pairs(results).items():
        for (pair, method), sha256s in scored.items():
            path = None if method in videos.own else videos.find(method, setting, pair)
            if path is not None and sha256_of(path) in sha256s:
                address = path.resolve().relative_to(root).as_posix()
                found[setting, file_name_of(method), pair] = f"../{quote(root.name)}/{quote(address)}"
    return found
