"""Every forged bundle is refused by the name of its fault, by the real command."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmet_eval.bundles.form import Fault
from tests.cmet_eval.bundles.forged_forms import FORMS
from tests.cmet_eval.bundles.forged_rows import ROWS
from tests.cmet_eval.bundles.forging import Edit, Run

FORGED = [*FORMS, *ROWS]


@pytest.mark.parametrize("name, fault, edit", FORGED, ids=[name for name, *_ in FORGED])
def test_a_forged_bundle_is_refused_by_name(
    name: str, fault: Fault, edit: Edit, bundle: Path, done: Path, shards: Path, run: Run
) -> None:
    (bundle.parent / "run").symlink_to(done)
    edit(bundle)
    status, out, err = run("verify", bundle, "--data", shards, "--workers", "0", "--quiet")
    assert (status, err.count("\n")) == (1, 1), (out, err)
    assert f"is refused, {fault.value}: " in err


def test_every_fault_has_a_forged_bundle_and_a_line_in_the_docs() -> None:
    elsewhere = {Fault.DUPLICATE_METHOD, Fault.COPIED_VIDEOS}
    assert {fault for _, fault, _ in FORGED} | elsewhere == set(Fault)
    page = (Path(__file__).parents[3] / "docs/how_to/submit.md").read_text()
    assert not [fault.value for fault in Fault if f"| `{fault.value}` |" not in page]
