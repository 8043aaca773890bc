"""Finds the weight files of a method, writes seeded ones, and records the SHA-256 of each at its first use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from cmet_baselines.adapters.command import run_logged
from cmet_baselines.adapters.environment import method_environment
from cmet_baselines.adapters.recipe import COMPAT, SEEDED, RecipeRun
from cmet_baselines.entry import Entry, WeightFile
from cmet_baselines.setup.state import KnownFile, file_bytes, file_hash, needed_weights
from talking_face.lines import one_line
from talking_face.names import printable
from talking_face.pretrained import store
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, UserError
from talking_face.scratch import scratch_folder

_HOST = Path(__file__).parents[1] / "adapters" / "seeded_host.py"
_SEEDED_S = 1800.0  # s; the largest network has 800 MB


def find(weight: WeightFile, folder: Path | None, files: ModelFiles) -> Path | None:
    """The path of a weight file, or of a folder of such files; None if it is absent.

    It is searched for in `folder` and in the folders of CMET_EVAL_WEIGHTS. If this suite uses the file too, it is also
    searched for where the suite finds it: in the cache, or in an installed package.
    """
    # The file may be a link to another folder. `Entry` has checked that its name stays inside.
    places = [place / weight.file for place in (*((folder,) if folder else ()), *files.weights)]
    if weight.registered is not None and store.is_here(weight.registered, files):
        places.append(store.weight_path(weight.registered, files))
    return next((path.resolve() for path in places if path.exists()), None)


def known(weight: WeightFile, path: Path, before: Mapping[str, KnownFile]) -> KnownFile:
    """The file with its SHA-256. Raises UserError if it is not the registered file, or not the one of the first use."""
    sha256 = file_hash(path)
    first = before.get(weight.file)
    if weight.sha256 is not None and sha256 != weight.sha256:
        raise UserError(_other(path, sha256, weight.sha256, "the registered"))
    if first is not None and sha256 != first.sha256:
        raise UserError(_other(path, sha256, first.sha256, "the one of the first use"))
    return KnownFile(path=path, sha256=sha256, bytes=file_bytes(path))


def _other(path: Path, found: str, wanted: str, which: str) -> str:
    return (
        f"{printable(str(path))} is not {which}: sha256 {found[:16]}..., expected {wanted[:16]}...; restore it, or "
        "begin again with --fresh"
    )


def missing(entry: Entry, folder: Path | None, files: ModelFiles) -> Iterator[str]:
    """One line for each weight file that the form of the method needs and that is absent."""
    for weight in needed_weights(entry):
        if find(weight, folder, files) is None:
            yield f"missing: {described(weight)}"


def described(weight: WeightFile) -> str:
    """Name, licence, size and source of a weight file, as one line."""
    size = f"{weight.bytes} bytes" if weight.bytes else "size not known"
    parts = (weight.file, f"licence: {weight.licence or 'not stated'}", size, weight.source)
    return one_line("; ".join(part for part in parts if part))


def write_seeded(recipe: RecipeRun, checkout: Path, python: Path, folder: Path, seed: int = 0) -> None:
    """Write random weights of the real shapes into `folder`, with the network classes of the checkout.

    Raises UserError, with the end of what was printed, if this fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = (recipe.folder / SEEDED, COMPAT, checkout, folder)
    command = [str(python), str(_HOST), *map(str, places), str(seed)]
    with scratch_folder() as scratch:
        log = scratch / "printed.txt"
        try:
            status = run_logged(command, scratch, method_environment(os.environ, {}), _SEEDED_S, log, log)
        except ClipError as error:
            raise UserError(f"seeded weights: {error.detail}") from None
        if status:
            tail = one_line(log.read_text("utf-8", "replace"))[-300:] or "it printed nothing"
            raise UserError(f"seeded weights: {SEEDED} ended with {status}: {tail}")
