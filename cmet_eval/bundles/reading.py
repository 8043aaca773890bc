"""Opens a bundle and makes every check that needs neither the data nor the model files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cmet_baselines.registry import catalogue
from cmet_eval.bundles.archive import check_manifest_is_there, opened
from cmet_eval.bundles.environment import check_environment
from cmet_eval.bundles.form import (
    FORMAT,
    MANIFEST,
    SAMPLE,
    TABLE_FILES,
    EnvironmentPart,
    Fault,
    Manifest,
    MethodPart,
    Refused,
    check_text,
    folder_of,
    is_video,
    manifest_text,
    shown,
)
from cmet_eval.bundles.suite_checks import check_method, check_rows, check_table
from cmet_eval.bundles.tables import BundleTable, read_table
from talking_face.files import sha256_of
from talking_face.names import counted
from talking_face.pretrained.model_files import ModelFiles
from talking_face.sealed import Damaged, read_sealed_json
from talking_face.user_files import WrongValue, checked


@dataclass(frozen=True)
class Bundle:
    """A bundle whose forms and hashes are right."""

    folder: Path
    method: MethodPart
    environment: EnvironmentPart
    tables: tuple[BundleTable, ...]
    unchecked: tuple[str, ...]  # texts about signatures that cannot be checked on this machine

    def __str__(self) -> str:
        settings = ", ".join(table.part.key["setting"] for table in self.tables)
        rows = sum(len(table.rows) for table in self.tables)
        sample = sum(len(table.sample) for table in self.tables)
        name = f"{self.method.name} @ {self.method.revision}"
        return f"bundle of {name}: {settings}; {rows} rows, {counted(sample, 'video')}"


@contextmanager
def read_bundle(path: Path, files: ModelFiles) -> Iterator[Bundle]:
    """A bundle, while its files can be read.

    Args:
        path: the folder or the zip file.
        files: where evaluators are searched for, whose hashes are part of signatures.

    Raises:
        Refused: the bundle has a fault. The message names the fault in one line.
    """
    with opened(path) as (folder, names):
        check_manifest_is_there(names)
        manifest = _manifest(folder / MANIFEST)
        _check_files(folder, manifest, names)
        check_environment(manifest.environment)
        check_method(manifest.method)
        keys = [tuple(sorted(part.key.items())) for part in manifest.tables]
        if len(set(keys)) != len(keys):
            raise Refused(Fault.DUPLICATE_TABLE, "two tables have the same setting, data, pairs and profile")
        entry = catalogue().get(manifest.method.name)
        tables, notes = [], dict[str, None]()
        for number, part in enumerate(manifest.tables):
            notes |= dict.fromkeys(check_table(part, files))
            table = read_table(folder, folder_of(number), part, manifest.method)
            check_rows(table, entry is not None and entry.trained_on_split)
            _check_sample(table, manifest.files)
            tables.append(table)
        yield Bundle(folder, manifest.method, manifest.environment, tuple(tables), tuple(notes))


def _manifest(path: Path) -> Manifest:
    """The manifest. The format is checked first, because a later format can have other fields."""
    try:
        value = read_sealed_json(path, "write the bundle again with `cmet-eval submit`")
    except Damaged as error:
        raise Refused(Fault.CHANGED_FILE, f"{MANIFEST}: {error.problem}; {error.remedy}") from None
    form = value.get("format")
    if form != FORMAT:
        known = isinstance(form, str) and form.startswith(FORMAT.rpartition("-")[0])
        fault = Fault.FUTURE_FORMAT if known else Fault.NOT_A_BUNDLE
        raise Refused(fault, f"{MANIFEST} has the format {str(form)[:40]!r}; this version reads {FORMAT}")
    try:
        for where, text in _texts(value, ""):
            check_text(text, f"{MANIFEST}, {where}")
    except RecursionError:
        raise Refused(Fault.BAD_FIELD, f"{MANIFEST} is nested too deeply") from None
    try:
        found = checked(Manifest, value, MANIFEST)
    except WrongValue as error:
        raise Refused(Fault.BAD_FIELD, str(error)) from None
    if path.read_text(encoding="utf-8") != manifest_text(found):  # for example a name that is there twice
        raise Refused(Fault.NOT_CANONICAL, f"{MANIFEST} has another form than `cmet-eval submit` writes")
    return found


def _texts(value: object, where: str) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, also the names of members, with its place."""
    if isinstance(value, str):
        yield where or "a name", value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(name, "a name")
            yield from _texts(item, f"{where}.{name}"[:100].lstrip("."))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, where)


def _check_files(folder: Path, manifest: Manifest, names: Collection[str]) -> None:
    """Compares the files with those that the manifest lists, and with those that its tables need."""
    there, listed = set(names) - {MANIFEST}, set(manifest.files)
    needed = {f"{folder_of(i)}/{name}" for i in range(len(manifest.tables)) for name in TABLE_FILES}
    for name in sorted(listed - there):
        raise Refused(Fault.ABSENT_VIDEO if is_video(name) else Fault.ABSENT_FILE, f"no file {shown(name)}")
    for name in sorted(there - listed):
        fault = Fault.EXTRA_VIDEO if is_video(name) else Fault.EXTRA_FILE
        raise Refused(fault, f"{shown(name)} is not listed in {MANIFEST}")
    for name in sorted(needed - there):
        raise Refused(Fault.ABSENT_FILE, f"no file {shown(name)}")
    folders = {name.rpartition("/")[0] for name in needed}
    for name in sorted(there - needed):
        if not is_video(name) or name.rpartition(f"/{SAMPLE}/")[0] not in folders:
            raise Refused(Fault.EXTRA_FILE, f"{shown(name)} is a file of no table of {MANIFEST}")
    for name, sha256 in sorted(manifest.files.items()):
        if (found := sha256_of(folder / name)) != sha256:
            fault = Fault.SWAPPED_VIDEO if is_video(name) else Fault.CHANGED_FILE
            raise Refused(fault, f"the SHA-256 of {shown(name)} is {found[:16]}, {MANIFEST} has {sha256[:16]}")


def _check_sample(table: BundleTable, files: Mapping[str, str]) -> None:
    """Compares the videos of a table with those that the digest of its pair list chooses, and with their hashes.

    `files`: path of each file of the bundle -> its SHA-256, which `_check_files` compared with the file.
    """
    wanted = table.sample
    there = {name for name in files if name.startswith(f"{table.folder}/") and is_video(name)}
    where = f"{table.part.key['setting']}: the digest of the pair list"
    for pair, name in wanted.items():
        if name not in there:
            fault = Fault.OTHER_SAMPLE if len(there) >= len(wanted) else Fault.ABSENT_VIDEO
            raise Refused(fault, f"{where} chooses the video of {pair}, and {shown(name)} is absent")
    for name in sorted(there - set(wanted.values())):
        raise Refused(Fault.EXTRA_VIDEO, f"{where} does not choose {shown(name)}")
    for pair, name in wanted.items():
        found, row = files[name], table.videos[pair].sha256
        if found != row:
            text = f"the SHA-256 of the video of {pair} is {found[:16]}, its rows have {row[:16]}"
            raise Refused(Fault.SWAPPED_VIDEO, text)
