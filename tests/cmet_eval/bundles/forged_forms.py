"""Forged bundles: the manifest, the texts, the method, the environment, and the names and kinds of files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cmet_eval.bundles.form import Fault
from tests.cmet_eval.bundles.forging import Edit, cells, field, sampled, sealed, set_method, set_table, write


def make_link(folder: Path) -> None:
    path = folder / "tables/01/values.csv"
    path.rename(folder.parent / "values.csv")
    path.symlink_to(folder.parent / "values.csv")


def make_fifo(folder: Path) -> None:
    path = folder / "tables/01/values.csv"
    path.unlink()
    os.mkfifo(path)


def large_file(folder: Path) -> None:
    with sampled(folder)[1].open("r+b") as file:
        file.truncate(300 << 20)


def many_files(folder: Path) -> None:
    for number in range(20_001):
        (folder / "tables/01/sample" / f"{number}.mp4").touch()


def two_titles(folder: Path) -> None:
    """A reviewer reads the first title, and a program the second one."""
    path = folder / "bundle.json"
    path.write_text(path.read_text().replace('"title": "Mine"', '"title": "Reviewed",\n  "title": "Mine"'))


def deep(value: dict[str, Any]) -> None:
    for _ in range(400):
        value["method"] = {"name": value["method"]}


FORMS: list[tuple[str, Fault, Edit]] = [
    ("a text that was edited by hand", Fault.CHANGED_FILE, write("tables/01/values.csv", b"pair\n")),
    ("a manifest that was edited by hand", Fault.CHANGED_FILE, write("bundle.json", b'{"format": "x", "sha256": "0"}')),
    ("a manifest that is not JSON", Fault.CHANGED_FILE, write("bundle.json", b"[" * 100_000)),
    ("an environment that was edited by hand", Fault.CHANGED_FILE, lambda f: (f / "bundle.json").write_text(
        (f / "bundle.json").read_text().replace('"python": "3', '"python": "2'))),
    ("an environment without NumPy", Fault.EDITED_ENVIRONMENT, field(lambda v: v["environment"].update(packages={}))),
    ("an unknown package", Fault.EDITED_ENVIRONMENT, field(lambda v: v["environment"]["packages"].update(evil="1"))),
    ("a version that is none", Fault.EDITED_ENVIRONMENT, field(lambda v: v["environment"]["packages"].update(av="x"))),
    ("a later format", Fault.FUTURE_FORMAT, field(lambda value: value.update(format="cmet-eval-bundle-2"))),
    ("another format", Fault.NOT_A_BUNDLE, field(lambda value: value.update(format="zip"))),
    ("a bundle of another version", Fault.OTHER_VERSION, field(lambda v: v["environment"].update(suite="9.9"))),
    ("rows of another version", Fault.OTHER_VERSION, set_table("suite_version", "9.9")),
    ("a script as title", Fault.HTML, set_method(title="<script>alert(1)</script>")),
    ("an image as revision", Fault.HTML, set_method(revision="<img src=x>")),
    ("a script in the notes", Fault.HTML, cells("values.csv", lambda rows: rows[0].update(notes="<b>"))),
    ("a script as codec", Fault.HTML, cells("videos.csv", lambda rows: rows[0].update(codec="<svg onload=x>"))),
    ("a summary of a megabyte", Fault.LONG_TEXT, set_method(summary="a" * 1_000_000)),
    ("a detail of a megabyte", Fault.BAD_FIELD, cells("values.csv", lambda r: r[0].update(detail="a" * 1_000_000))),
    ("a long detail", Fault.LONG_TEXT, cells("values.csv", lambda rows: rows[0].update(detail="a" * 2000))),
    ("a field more", Fault.BAD_FIELD, field(lambda value: value.update(winner=True))),
    ("fields in fields", Fault.BAD_FIELD, field(deep)),
    ("control characters", Fault.BAD_FIELD, set_method(summary="a\x1b[31m")),
    ("a method that is a path", Fault.BAD_FIELD, set_method(name="../mine")),
    ("a ceiling, which has no rank", Fault.FOREIGN_METHOD, set_method(role="ceiling")),
    ("a title that looks like another one", Fault.FOREIGN_METHOD, set_method(title="GROUND  Truth.")),
    ("the title of another method", Fault.FOREIGN_METHOD, set_method(title="Ground truth")),
    ("a published method", Fault.FOREIGN_METHOD, set_method(name="emostyle")),
    ("other inputs than the catalogue's", Fault.FOREIGN_METHOD, set_method(name="retrieval", title="Retrieval")),
    ("two titles in one record", Fault.NOT_CANONICAL, two_titles),
    ("a link", Fault.LINK, make_link),
    ("a pipe", Fault.LINK, make_fifo),
    ("a pickle", Fault.EXTRA_FILE, write("tables/01/model.pkl", b"cos\nsystem\n(S'true'\ntR.")),
    ("a listed file of no table", Fault.EXTRA_FILE, lambda f: [write("tables/07/pairs.csv")(f), sealed(f)][0]),
    ("a name that is not ASCII", Fault.BAD_PATH, write("tables/01/sample/a\u202egpj.mp4")),
    ("a name with a backslash", Fault.BAD_PATH, write("tables\\..\\..\\x")),
    ("no pair list", Fault.ABSENT_FILE, lambda folder: (folder / "tables/01/pairs.csv").unlink()),
    ("too many files", Fault.TOO_MANY_FILES, many_files),
    ("a video of 300 MiB", Fault.TOO_LARGE, large_file),
]  # fmt: skip
