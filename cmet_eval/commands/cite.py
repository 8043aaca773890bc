"""Print the BibTeX of metrics, methods, datasets, and of this suite. An entry that several keys share is printed once.

Examples:
    cmet-eval cite psnr ssim:skimage m_lmd:eat
    cmet-eval cite mead eat cmet-eval
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from cmet_baselines.entry import Entry, Paper
from cmet_baselines.registry import catalogue, implemented
from cmet_eval import completion
from cmet_metrics.registry import KEYS, default_variants, get_metric
from cmet_pipelines.readers import READERS
from talking_face.names import did_you_mean
from talking_face.packages import suite_version
from talking_face.reasons import UserError

if TYPE_CHECKING:  # imports PyArrow
    from cmet_leaderboards.tables import Table

SUITE = "cmet-eval"


def cite(
    keys: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY",
            autocompletion=completion.citable,
            help="a metric, a method of the catalogue, a dataset, or cmet-eval; several are allowed",
        ),
    ],
) -> None:
    print(bibliography(keys))


def bibliography(keys: list[str]) -> str:
    """The BibTeX entries of the keys in their order, each once. A key without a paper becomes a comment.

    Raises UserError if a key is unknown; the message has the most similar names.
    """
    out: dict[str, str] = {}
    for key, text in [(key, _bibtex(key)) for key in dict.fromkeys(keys)]:
        for entry in _entries(text):
            out.setdefault(entry.partition("{")[2].partition(",")[0], entry)
        if not text:
            out[key] = f"% {key}: no paper is known; cite the suite, {SUITE}"
    return "\n\n".join(out.values())


def bibliography_of(tables: Iterable[Table]) -> str:
    """The BibTeX entries of the methods, the metrics and the data of some tables of a board, and of the suite.

    A method or a metric that this suite does not know becomes a comment. Drawn clips in the layout of a dataset are not
    that dataset, so the dataset is left out.
    """
    found: dict[str, str] = {}
    known: list[str] = []
    for table in tables:
        for name, title in [(row.method, row.title) for row in table.rows]:
            if name in catalogue():
                known.append(name)
            else:
                found[name] = f"% {_plain(name)} ({_plain(title)}): not in the catalogue; cite its authors"
        for column in table.columns:
            if column.metric in KEYS:
                known.append(column.metric)
            else:
                found[column.metric] = f"% {_plain(column.metric)}: not a metric of this suite; cite its authors"
        if table.key["origin"] == "recorded":
            known += [name for name in table.key["dataset"].split(", ") if name in READERS]
    return "\n\n".join([bibliography([*known, SUITE]), *found.values()])


def _plain(text: str) -> str:
    """The text for a comment. BibTeX takes every `@` for the beginning of an entry."""
    return text.replace("@", "(at)")


def _bibtex(key: str) -> str:
    """The BibTeX entries of one key. The text is empty if the key has no paper."""
    if key == SUITE:
        return _suite()
    if key in catalogue():
        return _of_method(catalogue()[key])
    if key.lower() in READERS:
        return READERS[key.lower()].bibtex
    if key.partition(",")[0].partition(":")[0] in default_variants() or (":" in key and key not in KEYS):
        return get_metric(key).bibtex
    known = [SUITE, *catalogue(), *READERS, *default_variants(), *KEYS]
    hint = did_you_mean(key.lower(), known, at_most=3) or "; `cmet-eval metrics` and `cmet-eval baselines` list them"
    raise UserError(f"{key!r} is not a metric, a method or a dataset{hint}")


def _suite() -> str:
    """The facts of CITATION.cff, which an installation does not contain. A test compares them."""
    return (
        "@software{cmet-eval,\n  author = {{The cmet-eval authors}},\n"
        "  title = {{cmet-eval: preprocessing and evaluation for emotional talking-face generation}},\n"
        f"  version = {{{suite_version()}}}, year = {{2026}}}}"
    )


def _of_method(entry: Entry) -> str:
    paper = entry.paper or catalogue()[implemented(entry.name)].paper
    if paper is None:
        return ""
    name = implemented(entry.name).removesuffix("-published")
    return _of_paper(paper, name)


def _of_paper(paper: Paper, name: str) -> str:
    """The entry of a paper. Its key is the first author's name, the year, and the method's name."""
    arxiv = paper.venue == "arXiv"
    where = f"arXiv:{paper.arxiv}" if arxiv else paper.venue
    kind, field = ("article", "journal") if arxiv or "Transactions" in where else ("inproceedings", "booktitle")
    first = re.sub(r"\W", "", (paper.authors or name).partition(",")[0]).lower()
    lines = [
        *([f"author = {{{paper.authors}}}"] if paper.authors else []),
        f"title = {{{{{paper.title}}}}}",
        f"{field} = {{{where}}}, year = {{{paper.year}}}",
    ]
    return f"@{kind}{{{first}{paper.year}{name.replace('-', '')},\n  " + ",\n  ".join(lines) + "}"


def _entries(text: str) -> Iterator[str]:
    """The entries of a BibTeX text, which each begin a line."""
    yield from (entry.strip() for entry in re.split(r"^(?=@)", text, flags=re.M) if entry.strip())
