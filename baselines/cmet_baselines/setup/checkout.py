"""Gets the checkout of a method: a clone at the pinned commit, or a folder of the user that is compared with it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal, NamedTuple

from cmet_baselines.adapters.command import run_logged
from cmet_baselines.entry import Code
from talking_face.lines import one_line
from talking_face.names import printable
from talking_face.reasons import ClipError, UserError
from talking_face.scratch import scratch_folder

_ASK_S, _CLONE_S = 60.0, 3600.0  # s; the largest repository, EAT, has 600 MB
# No hooks, no other protocol, and no question for a password.
_GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never")
_QUIET = {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_CONFIG_NOSYSTEM": "1"}


class Checkout(NamedTuple):
    """A folder with the code of a method.

    Attributes:
        path: the folder.
        commit: the pinned commit.
        known_from: `git`, or `hashes` if the folder has no .git, so that only the called files were compared.
    """

    path: Path
    commit: str
    known_from: Literal["git", "hashes"]


def given(folder: Path, code: Code) -> Checkout:
    """The user's checkout. Raises UserError if it is absent, or git states another commit than the pinned one."""
    if not folder.is_dir():
        raise UserError(f"the checkout {printable(str(folder))} does not exist")
    commit = str(code.commit)
    if not (folder / ".git").exists():
        return Checkout(folder.resolve(), commit, "hashes")
    found = _git(folder, _ASK_S, "rev-parse", "--verify", "HEAD").strip()
    if found != commit:
        raise UserError(
            f"{printable(str(folder))} is at commit {printable(found[:40])}, and the recipe was made for {commit}; "
            f"run `git checkout {commit}` there, or leave --checkout out"
        )
    return Checkout(folder.resolve(), commit, "git")


def clone(folder: Path, code: Code) -> Checkout:
    """The clone in `folder`, which is made if it is absent. Raises UserError if that fails, for example offline."""
    commit = str(code.commit)
    if folder.is_dir():
        return given(folder, code)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _git(part, _ASK_S, "init", "--quiet")
        _git(part, _CLONE_S, "fetch", "--quiet", "--depth", "1", address(code), commit)
        _git(part, _CLONE_S, "checkout", "--quiet", "--detach", commit)
    except UserError as error:
        raise UserError(f"cannot clone {address(code)}: {error}; give a checkout with --checkout DIR") from None
    part.rename(folder)
    return given(folder, code)


def address(code: Code) -> str:
    """The address of the repository; `owner/name` is on GitHub."""
    assert code.repository is not None
    return code.repository if "://" in code.repository else f"https://github.com/{code.repository}"


def _git(folder: Path, deadline_s: float, *words: str) -> str:
    """What git prints. Raises UserError with its last line if it fails or is not installed."""
    with scratch_folder() as scratch:
        log = scratch / "git.txt"
        command = [*_GIT, "-c", f"safe.directory={folder.resolve()}", *words]
        try:
            status = run_logged(command, folder, {**os.environ, **_QUIET}, deadline_s, log, log)
        except ClipError as error:
            raise UserError(error.detail) from None
        text = log.read_text("utf-8", "replace")
    if status:
        raise UserError(f"git {words[0]} ended with {status}: {one_line(text)[-300:] or 'it printed nothing'}")
    return text
