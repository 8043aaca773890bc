"""Finds which training clips say the same sentence, from the shards, a user's CSV, MEAD's known pairs, or the sound.

AEE compares decoded combinations with real clips, so it needs clips of one sentence in several emotions and voices.
MEAD's file numbers do not identify sentences. Four sources do, and the setting `[aee] sentences` lists those to use:

- "data": the `sentence_id` of the shard set (`preprocess --numbering`, CREMA-D's file names).
- "mead-pairs": mead_sentence_pairs.csv, 648 pairs of a neutral and an emotional clip that say one of the three common
  sentences: 36 actors, six emotions. Source: a public alignment file. The file does not give the intensity, so a clip
  gets the sentence only if its duration agrees with the number of frames in the file.
- a path that ends with .csv: a user's table, see `read_table_of`.
- "sound": DTW of the clips' cepstra, see same_sentence.py.

If sources contradict each other about a clip, the source that is listed first decides.

`python -m cmet_reference.cem_net.sentences DATA --sources mead-pairs sound --out sentences.csv` writes the sentences of
the training split to a CSV that `[aee] sentences` accepts. If the shards have sentences, it also prints how many pairs
of clips agree with them.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cmet_pipelines.shards import ShardSet
from cmet_pipelines.tables import Row, has_value, read_table
from cmet_reference.cem_net import same_sentence
from cmet_reference.cem_net.same_sentence import Link
from cmet_reference.clips import FPS, ClipArrays, read_clips
from talking_face.emotions import EMOTIONS
from talking_face.files import write_text
from talking_face.names import counted, did_you_mean, printable
from talking_face.reasons import UserError
from talking_face.sealed import Damaged, discard, read_sealed_json, write_sealed_json
from talking_face.signature import canonical_json, digest

DATA, PAIRS, SOUND = "data", "mead-pairs", "sound"
_PAIRS_FILE = Path(__file__).parent / "mead_sentence_pairs.csv"
_RATES, _TOLERANCE = (30.0, 25.0), 0.12  # frames/s of MEAD and of its usual conversion; s, three frames of a shard
_COLUMNS = ("speaker", "emotion", "level", "number")

Sentences = dict[str, str]  # clip_id -> sentence


@dataclass(frozen=True)
class Found:
    """The sentences of the clips, and how many clips each source contributed."""

    of: Sentences
    counts: Mapping[str, int]  # source -> clips; a source that only repeats an earlier one counts 0
    notes: tuple[str, ...] = ()


def check_sources(sources: Sequence[str]) -> None:
    """Raises UserError if a source is unknown, is listed twice, or is a CSV file that is absent."""
    for source in sources:
        if source.endswith(".csv"):
            if not Path(source).is_file():
                raise UserError(f"[aee] sentences: the file {source} is absent")
        elif source not in (DATA, PAIRS, SOUND):
            known = (DATA, PAIRS, SOUND)
            hint = did_you_mean(source, known) or f"; known: {', '.join(known)}, or a path that ends with .csv"
            raise UserError(f"[aee] sentences: there is no source {printable(source[:60])!r}{hint}")
        if list(sources).count(source) > 1:
            raise UserError(f"[aee] sentences: {source} is listed twice")


def find(
    clips: Sequence[ClipArrays],
    sources: Sequence[str],
    error: float,
    kept: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Found:
    """The sentences of clips.

    Args:
        clips: clips of one or several shard sets.
        sources: see the module. Clips without an emotion label get no sentence from the sound.
        error: see `same_sentence.match`.
        kept: a JSON file that keeps the result of the sound, because it takes about an hour for MEAD. None: keep none.
        report: called with lines about the progress.

    Raises:
        UserError: the errors of `check_sources` and `read_table_of`.
    """
    check_sources(sources)
    takes = _takes(clips)
    of: Sentences = {}
    counts, notes = {}, []
    for source in sources:
        if source == DATA:
            given = {c.clip_id: c.sentence_id for c in clips if c.sentence_id}
        elif source == PAIRS:
            given = _of_pairs(clips, takes)
        elif source == SOUND:
            links, note = _links(clips, error, kept, report)
            given = joined(clips, of, links)
            notes.append(note)
        else:
            given = read_table_of(Path(source), clips, takes)
        new = {clip_id: sentence for clip_id, sentence in given.items() if clip_id not in of}
        of |= new
        counts[source] = len(new)
    return Found(of, counts, tuple(notes))


def named(clips: Sequence[ClipArrays], found: Found) -> list[ClipArrays]:
    """The clips with the found sentences in place of those of the shards."""
    return [replace(c, sentence_id=found.of.get(c.clip_id)) for c in clips]


def read_table_of(path: Path, clips: Sequence[ClipArrays], takes: Mapping[str, str]) -> Sentences:
    """The sentences in a user's CSV file.

    The file has the columns `clip_id` and `sentence`; or `speaker`, `emotion`, `level`, `number` and `sentence`. Equal
    texts in the column `sentence` mean equal sentences. A row without a sentence is ignored. An empty `level` means
    all levels. Rows of clips that are not among `clips` are ignored, because a table can describe the whole dataset.

    Args:
        takes: the number of each clip in its folder, by clip_id; only for the second form of the table.

    Raises:
        UserError: a cell is wrong, two rows contradict each other, or no row is about one of the clips. The message
            names the file and the line.
    """
    name = f"the sentences {path}"
    first = path.read_bytes()[:4096].decode("utf-8-sig", "replace").lower().splitlines()[:1]
    by_id = "clip_id" in (first[0] if first else "")
    table = read_table(path, name, ("clip_id", "sentence") if by_id else (*_COLUMNS, "sentence"))
    by_place: dict[tuple[str, str, str, int], list[str]] = {}
    for c in clips:
        number = takes.get(c.clip_id, "")
        if not by_id and number.isdecimal() and c.emotion:
            for level in ("", str(c.intensity or "")):
                by_place.setdefault((c.speaker, c.emotion, level, int(number)), []).append(c.clip_id)
    known, lines = {c.clip_id for c in clips}, dict[str, int]()
    out: Sentences = {}
    for row in table.rows:
        sentence = row.cells["sentence"]
        if by_id and not row.cells["clip_id"]:
            raise UserError(f"{name}, line {row.line}: the cell `clip_id` is empty")
        ids = [row.cells["clip_id"]] if by_id else by_place.get(_place(row, name), [])
        for clip_id in ids if has_value(sentence) else ():
            if out.get(clip_id, sentence) != sentence:
                raise UserError(
                    f"{name}, line {row.line}: {printable(clip_id)} says {printable(sentence[:60])!r}, and by line "
                    f"{lines[clip_id]} it says {printable(out[clip_id][:60])!r}"
                )
            out[clip_id], lines[clip_id] = sentence, row.line
    found = {clip_id: sentence for clip_id, sentence in out.items() if clip_id in known}
    if not found:
        like = next(iter(sorted(known)), "none")
        raise UserError(f"{name}: none of its {counted(len(table.rows), 'row')} is about a clip of the data, as {like}")
    return found


def _place(row: Row, name: str) -> tuple[str, str, str, int]:
    """(speaker, emotion, level or empty, number) of a row. Raises UserError for a wrong cell."""
    speaker, emotion, level, number = (row.cells[column] for column in _COLUMNS)
    level = level.removeprefix("level_")
    if not speaker:
        raise UserError(f"{name}, line {row.line}: the cell `speaker` is empty")
    if emotion not in EMOTIONS:
        hint = did_you_mean(emotion, EMOTIONS) or f"; known: {', '.join(EMOTIONS)}"
        raise UserError(f"{name}, line {row.line}: there is no emotion {printable(emotion[:60])!r}{hint}")
    if level and level not in ("1", "2", "3"):
        raise UserError(f"{name}, line {row.line}: `level` is {printable(level[:60])!r}; it should be 1, 2, 3 or empty")
    if not re.fullmatch("[0-9]{1,6}", number):
        raise UserError(f"{name}, line {row.line}: `number` is {printable(number[:60])!r}; it should be like 021")
    return speaker, emotion, level, int(number)


def _takes(clips: Sequence[ClipArrays]) -> dict[str, str]:
    """The number of each clip in its folder, by clip_id."""
    out: dict[str, str] = {}
    for folder in sorted({c.folder for c in clips}):
        if not folder.is_dir():
            continue
        rows = ShardSet(folder).clips
        out |= {str(k): str(v) for k, v in zip(rows["clip_id"], rows["take"], strict=True) if isinstance(v, str)}
    return out


def _of_pairs(clips: Sequence[ClipArrays], takes: Mapping[str, str]) -> Sentences:
    """The sentences of MEAD's clips in mead_sentence_pairs.csv: common-1, common-2 and common-3."""
    known: dict[tuple[str, str, int], tuple[str, int]] = {}  # (actor, emotion, number) -> (sentence, frames)
    with _PAIRS_FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            sentence = f"common-{int(row['neutral_number'])}"
            for emotion, part in (("neutral", "neutral"), (row["emotion"], "emotion")):
                place = row["actor"], emotion, int(row[f"{part}_number"])
                known[place] = sentence, int(row[f"{part}_frames"])
    out = {}
    for c in clips:
        number = takes.get(c.clip_id, "")
        actor = re.sub(r"-\d$", "", c.speaker)  # some downloads have two folders for an actor, as M026-2
        if c.dataset != "mead" or not number.isdecimal() or (actor, str(c.emotion), int(number)) not in known:
            continue
        sentence, frames = known[actor, str(c.emotion), int(number)]
        if any(abs(len(c) / FPS - frames / rate) <= _TOLERANCE for rate in _RATES):
            out[c.clip_id] = sentence
    return out


def _links(
    clips: Sequence[ClipArrays], error: float, kept: Path | None, report: Callable[[str], None]
) -> tuple[list[Link], str]:
    """The links of `same_sentence.match` and a line about them; from the file `kept` if it belongs to these clips."""
    key = digest(canonical_json([error, [[c.clip_id, zlib.crc32(c.audio.tobytes())] for c in clips]]))
    record: dict[str, object] | None = None
    if kept is not None and kept.is_file():
        try:
            record = read_sealed_json(kept, "it is made again")
        except Damaged as damaged:
            discard(damaged)
    if record is None or record.get("key") != key:
        found = same_sentence.match(clips, error, report)
        record = {
            "key": key,
            "links": [[float(d), int(i), int(j)] for d, i, j in found.links],
            "thresholds": [round(float(t), 5) for t in found.thresholds],
            "null": found.n_null,
        }
        if kept is not None:
            write_sealed_json(kept, record)
    links = [(float(d), int(i), int(j)) for d, i, j in record["links"]]  # type: ignore[attr-defined]
    thresholds = " and ".join(map(str, record["thresholds"]))  # type: ignore[call-overload]
    note = f"{counted(len(links), 'pair')} by sound, relative DTW distance up to {thresholds}: at most {error:g} "
    return links, note + f"of them expected wrong by {record['null']} distances of different sentences"


def joined(clips: Sequence[ClipArrays], known: Mapping[str, str], links: Iterable[Link]) -> Sentences:
    """Joins clips to groups of one sentence, in the order of the links, and names the groups.

    Clips with the same known sentence are a group from the start. A link is ignored if the joined group would have two
    known sentences, or two clips of one speaker, emotion and intensity.

    Args:
        known: sentences from other sources, by clip_id.
        links: (distance, index, index) of clips that say the same, sorted by distance.

    Returns:
        the sentences by clip_id: the known sentence of the group, or `sound-` and the group's first clip_id. Clips
        that are alone have none.
    """
    group = list(range(len(clips)))
    members = {i: [i] for i in group}
    names = {i: known.get(c.clip_id) for i, c in enumerate(clips)}
    places = {i: {(c.speaker, c.emotion, c.intensity)} for i, c in enumerate(clips)}

    def join(a: int, b: int, surely: bool = False) -> None:
        a, b = group[a], group[b]
        contradicts = bool(places[a] & places[b]) or (names[a] and names[b] and names[a] != names[b])
        if a == b or (contradicts and not surely):
            return
        for i in members[b]:
            group[i] = a
        members[a] += members.pop(b)
        names[a], places[a] = names[a] or names[b], places[a] | places[b]

    first: dict[str, int] = {}
    for i, c in enumerate(clips):
        if name := known.get(c.clip_id):
            join(first.setdefault(name, i), i, surely=True)
    for _, i, j in links:
        join(i, j)
    out: Sentences = {}
    for a, inside in members.items():
        if len(inside) > 1 or names[a]:
            name = names[a] or f"sound-{min(clips[i].clip_id for i in inside)}"
            out |= {clips[i].clip_id: name for i in inside}
    return out


@dataclass(frozen=True)
class Agreement:
    """How found sentences agree with the true ones, in pairs of clips that say the same sentence."""

    true: int  # pairs by the true sentences
    found: int  # pairs by the found sentences
    right: int  # pairs by both


def agreement(found: Mapping[str, str], truth: Mapping[str, str]) -> Agreement:
    """Compares found sentences with the true ones, over the clips whose true sentence is known."""

    def pairs(names: Iterable[object]) -> int:
        return sum(n * (n - 1) // 2 for n in Counter(names).values())

    ids = [clip_id for clip_id in found if clip_id in truth]
    both = pairs((found[i], truth[i]) for i in ids)
    return Agreement(pairs(truth.values()), pairs(found[i] for i in ids), both)


def say(line: str) -> None:
    """Print a line about AEE's sentences on stderr."""
    print(f"aee: {line}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> Found:
    """Find the sentences of the training split, print what was found, and write a CSV."""
    parser = argparse.ArgumentParser(prog="python -m cmet_reference.cem_net.sentences", description=main.__doc__)
    parser.add_argument("data", type=Path, help="a shard set")
    parser.add_argument("--sources", nargs="+", default=[PAIRS, SOUND], help=f"{DATA}, {PAIRS}, {SOUND}, or a CSV")
    parser.add_argument("--error", type=float, default=0.01, help="expected share of wrong pairs; default 0.01")
    parser.add_argument("--out", type=Path, help="the CSV to write")
    args = parser.parse_args(argv)
    try:
        clips = read_clips([args.data])
        found = find(clips, args.sources, args.error, report=say)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    print("; ".join([*(f"{k}: {counted(n, 'clip')} of {len(clips)}" for k, n in found.counts.items()), *found.notes]))
    truth = {c.clip_id: c.sentence_id for c in clips if c.sentence_id}
    if truth:
        agreed = agreement(found.of, truth)
        print(
            f"of {agreed.true} pairs of clips with one sentence in the shards, {agreed.right} were found; "
            f"{agreed.found - agreed.right} of {agreed.found} found pairs are wrong"
        )
    if args.out:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("clip_id", "sentence"), *sorted(found.of.items())])
        write_text(args.out, text.getvalue())
    return found


if __name__ == "__main__":
    main()
