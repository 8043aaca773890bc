"""Forged result rows, pair lists and records are refused by name by the real commands, and nothing is written."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import pytest

from cmet_eval import cli
from tests.hostile import forged
from tests.hostile.tally import Ended, Tally


def test_forged_files_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The commands run in this process, and each form of rows with one of four commands: the program tries them all."""

    def go(command: Sequence[str], folder: Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["cmet-eval", *command])
        capfd.readouterr()
        try:
            cli.main()
            status = 0
        except SystemExit as error:
            status = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
            status = 1
        captured = capfd.readouterr()
        return Ended(status, captured.out + captured.err, 0.0)

    tally = Tally("forged")
    for i, one in enumerate(forged.tries(tmp_path / "deep" / "world")):
        if not one[0].startswith("rows") or i // 4 % 4 == i % 4:
            forged.attempt(tally, tmp_path / "deep" / "world", one, go)
    assert tally.tried > 40 and tally.clean, "\n".join(tally.examples)
