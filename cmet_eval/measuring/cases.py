"""Lists what `cmet-eval measure` compares: one case per video, from files, folders or a CSV file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cmet_metrics.base import Labels
from talking_face.emotions import EMOTIONS, canonical
from talking_face.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from talking_face.names import check_id, check_name, counted, did_you_mean, printable
from talking_face.reasons import ClipError, Reason, UserError
from talking_face.user_files import read_csv

_NO_LABELS = Labels()
_TEXTS = frozenset({".txt", ".tsv", ".json", ".toml", ".md", ".parquet", ".xlsx", ".yaml", ".yml"})  # never videos
COLUMNS = ("pred", "target", "audio", "emotion", "reference", "speaker")  # of a CSV file; only `pred` is required


@dataclass(frozen=True)
class Case:
    """One video to measure, and what it is compared with."""

    id: str  # the name of the case in rows: the path of the file in its folder, without suffix
    pred: Path | None  # None: `lost` states why
    target: Path | None = None
    audio: Path | None = None
    reference: Path | None = None  # a video whose frames are the reference frames
    labels: Labels = _NO_LABELS
    lost: ClipError | None = None  # why the case cannot be measured


@dataclass(frozen=True)
class Cases:
    """All cases, sorted by id.

    Attributes:
        name: the name of the measured videos: their folder or file.
        target: the name of the ground truths; "" without ground truth.
        cases: the cases.
        notes: lines about files that were not used.
    """

    name: str
    target: str
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()

    @property
    def have_target(self) -> bool:
        """Whether any case has a ground truth."""
        return any(case.target is not None for case in self.cases)


def find_cases(pred: Path, target: Path | None = None, audio: Path | None = None) -> Cases:
    """The cases of a file, a folder or a CSV file.

    Args:
        pred: a video; a folder, which is searched in depth; or a .csv file with the columns `COLUMNS`. Relative paths
            in a CSV file begin at the folder of the file.
        target: the ground truth: a video if `pred` is a video, a folder if `pred` is a folder. Files of two folders are
            matched by their path in the folder, without suffix. A file without partner gets a reason.
        audio: the sound for videos without sound whose ground truth has none either: a file for all, or a folder that
            is matched as `target` is.

    Raises:
        UserError: a path is absent or has the wrong kind, or no file has a partner, or the CSV file has a fault.
    """
    for path in filter(None, (pred, target, audio)):
        if not path.exists():
            raise UserError(f"{printable(str(path))} does not exist")
        if path.suffix.lower() in _TEXTS and path.is_file():
            raise UserError(
                f"{printable(str(path))} has the suffix of a text file; give a video, a folder, or a list of videos "
                "that ends in .csv"
            )
    if pred.suffix.lower() == ".csv" and pred.is_file():
        if target is not None:
            raise UserError(
                f"{pred.name} is a CSV file: write the ground truths into its column target, without TARGET"
            )
        return _from_csv(pred, audio)
    if pred.is_dir():
        return _from_folders(pred, target, audio)
    if target is not None and target.is_dir():
        raise UserError(f"{printable(pred.name)} is a file and {printable(target.name)} a folder; name the file in it")
    sound = None if audio is None else _sound_for(pred.with_suffix("").name, audio)
    name = _id_of(Path(pred.name))
    return Cases(_label(pred), "" if target is None else _label(target), (Case(name, pred, target, sound),))


def _from_folders(pred: Path, target: Path | None, audio: Path | None) -> Cases:
    if target is not None and not target.is_dir():
        raise UserError(f"{printable(pred.name)} is a folder and {printable(target.name)} a file; name a folder")
    notes: list[str] = []
    videos = _by_stem(pred, VIDEO_SUFFIXES, notes)
    if not videos:
        raise UserError(f"{printable(str(pred))} has no video; videos end in .mp4, .mov, .mkv, .avi, .webm and so on")
    truths = None if target is None else _by_stem(target, VIDEO_SUFFIXES, notes)
    if target is not None and truths is not None and not videos.keys() & truths.keys():
        raise UserError(_no_partner(pred, target, videos, truths))
    stems = sorted({*videos, *(truths or ())})
    cases = [_matched(stem, videos, truths, audio) for stem in stems]
    return Cases(_label(pred), "" if target is None else _label(target), tuple(_unique(cases)), tuple(notes))


def _matched(
    stem: Path, videos: Mapping[Path, list[Path]], truths: Mapping[Path, list[Path]] | None, audio: Path | None
) -> Case:
    """The case of one stem. A stem that several files of one folder have is not measured."""
    name, lost = _id_of(stem), None
    for found in (videos.get(stem, []), (truths or {}).get(stem, [])):
        if len(found) > 1:
            names = ", ".join(printable(path.name) for path in found)
            lost = ClipError(Reason.DUPLICATE_ID, f"{counted(len(found), 'file')} are called {name}: {names}; keep one")
    pred = next(iter(videos.get(stem, ())), None)
    truth = None if truths is None else next(iter(truths.get(stem, ())), None)
    if lost is None and pred is None:
        lost = ClipError(
            Reason.MISSING_OUTPUT, f"no video belongs to the ground truth {printable(str(truth and truth.name))}"
        )
    sound = None if audio is None else _sound_for(stem, audio)
    return Case(name, pred, truth, sound, lost=lost)


def _by_stem(folder: Path, suffixes: frozenset[str], notes: list[str]) -> dict[Path, list[Path]]:
    """Path in the folder without suffix -> the files with these suffixes. Other files are counted in a note."""
    found: dict[Path, list[Path]] = {}
    other = 0
    for path in sorted(_files(folder)):
        inner = path.relative_to(folder)
        if inner.suffix.lower() in suffixes:
            found.setdefault(inner.with_suffix(""), []).append(path)
        else:
            other += 1
    if other:
        notes.append(
            f"{counted(other, 'file')} in {printable(folder.name or str(folder))} not used: not a video by name"
        )
    return found


def _files(folder: Path) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        raise UserError(f"{printable(str(error.filename))} cannot be read: {error.strerror}")

    for root, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        _refuse_loop(Path(root), folder)
        yield from (Path(root, name) for name in names if not name.startswith("."))


def _refuse_loop(root: Path, top: Path) -> None:
    """Raises UserError if a link leads from below `top` back to a folder above the link."""
    real = root.resolve()
    if root != top and any(real == parent.resolve() for parent in root.parents if parent.is_relative_to(top)):
        raise UserError(f"the link {printable(str(root))} leads back to a folder that contains it; remove it")


def _sound_for(stem: Path | str, audio: Path) -> Path | None:
    """The sound file for a stem: `audio` itself, or the file with this stem in the folder `audio`."""
    if not audio.is_dir():
        return audio
    found = [audio / f"{stem}{suffix}" for suffix in sorted(AUDIO_SUFFIXES | VIDEO_SUFFIXES)]
    return next((path for path in found if path.is_file()), None)


def _no_partner(pred: Path, target: Path, videos: Mapping[Path, list[Path]], truths: Mapping[Path, list[Path]]) -> str:
    first, last = printable(str(min(videos))), printable(str(min(truths, default=Path("nothing"))))
    return (
        f"no file of {printable(str(pred))} has a partner in {printable(str(target))}: files are matched by their path "
        f"without suffix, and the first are {first} and {last}; rename them, or name the pairs in a CSV file with the "
        "columns pred,target"
    )


def _from_csv(path: Path, audio: Path | None) -> Cases:
    rows = read_csv(path, "list of videos", ("pred",))
    where = f"the list of videos {printable(str(path))}"
    if not rows:
        raise UserError(f"{where} has no row")
    if unknown := [name for name in rows[0].cells if name not in COLUMNS]:
        hint = did_you_mean(unknown[0], COLUMNS)
        raise UserError(f"{where} has a column {printable(unknown[0])[:40]!r}{hint}; known: {', '.join(COLUMNS)}")
    cases = []
    common = _common_folder([Path(row.cells["pred"].strip()) for row in rows])
    for row in rows:
        cells = {name: text.strip() for name, text in row.cells.items()}
        line = f"{where}, line {row.line}"
        if not cells["pred"]:
            raise UserError(f"{line}: the cell pred is empty")
        cases.append(_of_row(cells, path.parent, Path(cells["pred"]).relative_to(common), line, audio))
    name = _label(path)
    return Cases(name, name if any(case.target for case in cases) else "", tuple(_unique(cases)))


def _common_folder(paths: Sequence[Path]) -> Path:
    """The folder that contains all these paths. Methods in different folders then have equal ids."""
    absolute = {path.is_absolute() for path in paths}
    return Path(os.path.commonpath([path.parent for path in paths])) if len(absolute) == 1 else Path()


def _of_row(cells: Mapping[str, str], folder: Path, stem: Path, line: str, audio: Path | None) -> Case:
    """The case of one row. `stem`: path of the video, from which the id is made."""

    def file(column: str) -> Path | None:
        return folder / cells[column] if cells.get(column) else None

    emotion = canonical(cells["emotion"]) if cells.get("emotion") else None
    if emotion is not None and emotion not in EMOTIONS:
        hint = did_you_mean(emotion, EMOTIONS) or f"; known: {', '.join(EMOTIONS)}"
        raise UserError(f"{line}: {printable(cells['emotion'])[:40]!r} is not an emotion of the suite{hint}")
    speaker = cells.get("speaker") or None
    if speaker is not None:
        try:
            check_name(speaker)
        except ValueError as error:
            raise UserError(f"{line}: speaker: {error}") from None
    pred = file("pred")
    missing = next((path for path in (pred, file("target"), file("reference")) if path and not path.is_file()), None)
    lost = ClipError(Reason.MISSING_FILE, f"{line}: no file {printable(str(missing))}") if missing else None
    return Case(
        _id_of(stem),
        pred,
        file("target"),
        file("audio") or (None if audio is None else _sound_for(stem.with_suffix(""), audio)),
        file("reference"),
        Labels(emotion, None, speaker),
        lost,
    )


def _unique(cases: Iterable[Case]) -> Iterator[Case]:
    """The cases, sorted by id. If several cases have one id, `#2`, `#3` and so on are added to the id."""
    seen: dict[str, int] = {}
    for case in sorted(cases, key=_order):
        seen[case.id] = seen.get(case.id, 0) + 1
        number = seen[case.id]
        yield case if number == 1 else replace(case, id=f"{case.id}#{number}")


def _order(case: Case) -> tuple[str, str]:
    return case.id, str(case.pred)


def _id_of(stem: Path) -> str:
    """The id of a case, from the path of its file in its folder. A name that is not an id gets `./` in front."""
    text = printable(str(stem.with_suffix("") if stem.suffix.lower() in VIDEO_SUFFIXES else stem))
    try:
        return check_id(text)
    except ValueError:
        return check_id(f"./{text}"[:1000])


def _label(path: Path) -> str:
    """The last part of a path, as a name; `videos` if it cannot be a name."""
    try:
        return check_name(printable(path.resolve().name if path.is_dir() else path.stem)[:100].strip())
    except ValueError:
        return "videos"
