"""Checks a bundle: forms and hashes, the rows of a board, and, with the data, its pairs and values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cmet_eval.bundles.board_checks import check_board, merge
from cmet_eval.bundles.data_checks import check_data, check_model_files, score_drawn, score_sample
from cmet_eval.bundles.form import Fault, Refused
from cmet_eval.bundles.reading import read_bundle
from cmet_eval.runs.verification import DrawnVideos, Verified
from cmet_pipelines.shards import ShardSet
from talking_face.execution.options import RunOptions
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.trained_evaluators import with_hashes


@dataclass(frozen=True)
class Against:
    """What a bundle is compared with. Each part can be absent."""

    data: Path | None = None  # the shard set
    board: Path | None = None  # a folder of result rows
    more: DrawnVideos | None = None  # all videos of the submitter, of which some are scored in addition; needs `data`
    merge: bool = False  # add the rows to `board`; needs `data` and `board`


def verify_bundle(path: Path, against: Against, options: RunOptions) -> Iterator[str]:
    """Checks a bundle and yields lines about what was checked.

    Args:
        path: the folder or the zip file of the bundle.
        against: the data and the rows with which it is compared.
        options: worker processes, and whether progress is printed.

    Raises:
        Refused: the bundle has a fault.
        UserError: a metric of the bundle cannot be computed on this machine.
    """
    data, files = against.data, with_hashes(ModelFiles.from_environment(against.data))
    with read_bundle(path, files) as bundle:
        yield str(bundle)
        if against.board is not None:
            check_board(bundle, against.board)
            yield f"the board {against.board} has no rows of this method and revision"
        yield from bundle.unchecked
        if data is None:
            yield "no --data: no video was scored again, and the pairs were not drawn again"
            return
        check_model_files(bundle, files)
        check_data(bundle, ShardSet(data), files)
        yield _agreeing(score_sample(bundle, data, options, files), "chosen by the digest of the pair list")
        if against.more is not None:
            found = score_drawn(bundle, data, against.more, options)
            yield _agreeing(found, f"drawn with seed {against.more.sampling.seed}")
        if against.merge and against.board is not None:
            yield from (f"merged: {written}" for written in merge(bundle, against.board, data))


def _agreeing(found: Verified, how: str) -> str:
    """A line about the values that were scored again. Raises Refused if one differs."""
    if found.faults:
        more = f", and {len(found.faults) - 1} more differences" if found.faults[1:] else ""
        raise Refused(Fault.EDITED_VALUE, f"{found.faults[0]}{more}")
    return (
        f"{found.drawn} of {found.videos} videos, {how}: {found.values} values scored again, {found.exact} of them "
        "the same to the bit"
    )
