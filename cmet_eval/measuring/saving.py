"""Keeps a measurement in a run's folder: result rows, as `run` writes them, and the board made from these rows."""

from __future__ import annotations

from pathlib import Path

from cmet_eval.measuring.result import Measured
from talking_face.files import check_writable
from talking_face.names import printable
from talking_face.packages import need_extras
from talking_face.reasons import UserError

_CARD = "dataset.json"  # the file that makes a folder a shard set


def check(out: Path, *videos: Path | None) -> None:
    """Checks the folder before anything is measured or written.

    Args:
        out: the folder; it may be absent.
        videos: files and folders that are measured.

    Raises:
        UserError: a package for rows and boards is absent; or the folder is a shard set, or is inside a folder of
            videos.
        OSError: the folder cannot be written.
    """
    need_extras("--run", "boards")
    check_writable(out)
    if (out / _CARD).exists():
        raise UserError(f"{printable(str(out))} is a shard set; name another folder with --run")
    if any(place is not None and _is_within(out, place) for place in videos):
        raise UserError(f"--run {out} is inside a folder of videos, which is searched in depth; choose another folder")


def _is_within(out: Path, folder: Path) -> bool:
    return folder.is_dir() and out.resolve().is_relative_to(folder.resolve())


def save(result: Measured, out: Path) -> Path:
    """Writes the rows to `out`/results and the board of all rows there to `out`/leaderboard.

    Returns:
        the path of the board's page.
    """
    # These modules import PyArrow, which the core installation does not have.
    from cmet_leaderboards.board import build
    from cmet_leaderboards.results import write_results

    write_results(result.rows, out / "results", _record(result))
    return build(out / "results", out / "leaderboard")


def _record(result: Measured) -> dict[str, object]:
    against = f"the real videos of {result.target}" if result.target else "no ground truth"
    protocol = result.protocol
    words = ["PRED", *(["TARGET"] if result.target else []), *(["--protocol", protocol.name] if protocol else [])]
    return {
        "method": {
            "title": result.method,
            "summary": "Videos made elsewhere, measured.",
            "role": "method",
        },
        "setting": {
            "title": f"Measured by the protocol {protocol.name}" if protocol else "Measured files",
            "summary": f"Videos against {against}, as they were measured.",
            "protocol": f"{protocol.title}: {protocol.source}" if protocol else "",
        },
        "pairs": {"drawn": 0, "missing": [], "notes": list(result.notes)},
        "command": f"cmet-eval measure {' '.join(words)} --name {result.method} --out RUN",
    }
