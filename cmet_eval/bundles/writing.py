"""Writes a bundle: the result rows of one method, its record, the environment, and a sample of its videos."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmet_eval.bundles.archive import write_zip
from cmet_eval.bundles.environment import environment
from cmet_eval.bundles.form import (
    FORMAT,
    MANIFEST,
    PAIRS,
    SUFFIX,
    VALUES,
    VIDEOS,
    Manifest,
    MethodPart,
    MetricPart,
    TablePart,
    folder_of,
    manifest_text,
)
from cmet_eval.bundles.reading import read_bundle
from cmet_eval.bundles.sample import sample_of
from cmet_eval.bundles.tables import VideoPart, sample_path, values_text, videos_text
from cmet_eval.protocol.pair_files import read_pairs, write_pairs
from cmet_eval.protocol.pairs import PairList
from cmet_eval.runs.submissions import video_name
from cmet_eval.runs.verification import videos_folder
from cmet_eval.runs.videos_by_content import VideosByContent
from cmet_leaderboards.file_record import FileRecord
from cmet_leaderboards.results import Results
from cmet_leaderboards.row import TABLE_KEYS, ResultRow
from talking_face.files import check_writable, sha256_of, write_text
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError
from talking_face.scratch import scratch_folder

ZIP = ".zip"


@dataclass(frozen=True)
class Source:
    """What a bundle is made from."""

    results: Results  # the rows, of any number of methods
    pairs: Sequence[Path]  # files of pair lists
    videos: Path  # folder with METHOD/SETTING/, SETTING/ or the video files
    files: ModelFiles  # where evaluators are searched for
    pattern: str = "{pair}.mp4"  # form of the videos' file names


@dataclass(frozen=True)
class _Table:
    """One table of the method: its fields, its pairs, its rows, and the videos of the sample."""

    part: TablePart
    pair_list: PairList
    videos: Mapping[str, VideoPart]
    rows: Sequence[ResultRow]
    sample: Mapping[str, Path]  # pair_id -> file


def write_bundle(source: Source, method: tuple[str, str], out: Path, training_seed: int | None = None) -> Path:
    """Writes the bundle of one method, and reads it again with all checks that need no data.

    Args:
        source: rows, pair lists and videos.
        method: the name and the revision.
        out: the folder of the bundle, or a file that ends in `.zip`. The same rows and videos give the same bytes in
            the same environment.
        training_seed: the seed with which the method was trained; None: it was not trained, or the seed is not known.

    Returns:
        `out`.

    Raises:
        UserError: a pair list or a video of the sample is not there.
        Refused: the rows do not fulfil the rules of a bundle.
    """
    name, revision = method
    rows: dict[tuple[str, ...], list[ResultRow]] = {}
    for row in _rows_of(source.results, name, revision):
        rows.setdefault(tuple(getattr(row, key) for key in TABLE_KEYS), []).append(row)
    records = [r for r in source.results.records if (r.key.get("method"), r.key.get("revision")) == (name, revision)]
    lists = {found.digest: found for found in map(read_pairs, source.pairs)}
    tables = [
        _table(dict(zip(TABLE_KEYS, key, strict=True)), rows[key], records, lists, source) for key in sorted(rows)
    ]
    facts = records[0].method
    part = MethodPart(
        name=name,
        revision=revision,
        title=facts.title or name,
        role=facts.role,  # type: ignore[arg-type]
        summary=facts.summary,
        sees=list(facts.sees),
        training_seed=training_seed,
    )
    with scratch_folder() as scratch:
        folder = scratch / "bundle"
        _write(folder, part, tables)
        with read_bundle(folder, source.files):  # raises Refused
            pass
        if out.suffix == ZIP:
            write_zip(folder, out)
        else:
            shutil.copytree(folder, out)
    return out


def check_new(out: Path) -> None:
    """Raises an error if `out` exists or its folder cannot be written."""
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists; name another --out, or remove it")
    check_writable(out.parent)


def find_method(results: Results, method: str | None) -> tuple[str, str]:
    """The name and the revision of the method that the user named with `NAME` or `NAME@REVISION`.

    None means the only method of the rows. Raises UserError if no method or several methods fit.
    """
    every = sorted({(r.key["method"], r.key["revision"]) for r in results.records if "method" in r.key})
    found = [one for one in every if method in (None, one[0], "@".join(one))]
    if len(found) != 1:
        known = ", ".join("@".join(one) for one in found or every)
        what = f"--method {method} fits" if method else "without --method,"
        raise UserError(f"{what} {len(found)} methods; name one of {known} with --method")
    return found[0]


def _rows_of(results: Results, name: str, revision: str) -> list[ResultRow]:
    import pyarrow.compute as pc

    both = pc.and_(pc.equal(results.table["method"], name), pc.equal(results.table["revision"], revision))
    return [ResultRow.of(row) for row in results.table.filter(both).to_pylist()]


def _table(
    key: Mapping[str, str],
    rows: Sequence[ResultRow],
    records: Sequence[FileRecord],
    lists: Mapping[str, PairList],
    source: Source,
) -> _Table:
    if key["pairs_digest"] not in lists:
        raise UserError(f"no pair list with the digest {key['pairs_digest']} of {key['setting']}; name it with --pairs")
    pair_list = lists[key["pairs_digest"]]
    metrics = {
        row.signature: MetricPart(
            metric=row.metric,
            signature=row.signature,
            higher_is_better=row.higher_is_better,
            ideal=row.ideal,
            unit=row.unit,
        )
        for row in sorted(rows, key=lambda row: (row.metric, row.signature))
    }
    record = next(r for r in records if all(r.key.get(name) == value for name, value in key.items()))
    part = TablePart(key=dict(key), command=record.command, metrics=list(metrics.values()))
    shas = {row.pair_id: (row.video_sha256 or "", row.codec) for row in rows}
    sample = _find_sample(pair_list, {pair: sha for pair, (sha, _) in shas.items() if sha}, rows[0], source)
    suffixes = {pair: path.suffix[1:].lower() for pair, path in sample.items()}
    videos = {}
    for pair in pair_list.pairs:
        sha, codec = shas.get(pair.pair_id, ("", ""))
        suffix = suffixes.get(pair.pair_id, Path(source.pattern).suffix[1:].lower() or "mp4") if sha else ""
        videos[pair.pair_id] = VideoPart(sha, suffix if SUFFIX.fullmatch(suffix) or not sha else "mp4", codec)
    return _Table(part, pair_list, videos, rows, sample)


def _find_sample(pair_list: PairList, shas: Mapping[str, str], row: ResultRow, source: Source) -> dict[str, Path]:
    """The files of the sample, by pair. Raises UserError if a file is absent or has other content than was scored."""
    folder = videos_folder(source.videos, row.method, row.setting)
    by_content = VideosByContent(folder)
    found = {}
    for pair_id in sample_of(pair_list, shas):
        path = folder / video_name(source.pattern, pair_id)
        if not path.is_file() or sha256_of(path) != shas[pair_id]:
            other = by_content.find([shas[pair_id]])
            if other is None:
                raise UserError(
                    f"{folder} has no file with the SHA-256 {shas[pair_id][:16]}, the scored video of {pair_id}, which "
                    "the bundle needs; name the folder of the scored videos with --videos"
                )
            path = other
        found[pair_id] = path
    return found


def _write(folder: Path, method: MethodPart, tables: Sequence[_Table]) -> None:
    for number, table in enumerate(tables):
        place = folder / folder_of(number)
        write_pairs(table.pair_list, place / PAIRS)
        write_text(place / VIDEOS, videos_text(table.pair_list, table.videos))
        write_text(place / VALUES, values_text(table.pair_list, table.part, table.rows))
        for pair_id, path in table.sample.items():
            target = folder / sample_path(folder_of(number), pair_id, table.videos[pair_id].suffix)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    files = {path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()}
    manifest = Manifest(
        format=FORMAT,
        method=method,
        environment=environment(),
        tables=[table.part for table in tables],
        files=dict(sorted(files.items())),
    )
    write_text(folder / MANIFEST, manifest_text(manifest))
