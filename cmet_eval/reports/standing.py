"""Collects what the rows of the standing leaderboard do not state: facts about methods, and cards of evaluators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from cmet_baselines.entry import FROM_CHECKPOINT, Entry, Paper
from cmet_baselines.registry import catalogue, implemented
from cmet_leaderboards.file_record import split_summary
from cmet_leaderboards.results import Results
from cmet_leaderboards.site_views import MethodAbout, Runnable
from cmet_reference.departures import departures
from talking_face.pretrained.trained_evaluators import FOLDER
from talking_face.user_files import read_json

_OF_CARD = ("sha256", "parameters")  # the facts of an evaluator's card that are stored
_OF_HELD_OUT = ("clips", "accuracy", "offset_exact", "speakers")


def trained_methods(results: Results) -> list[str]:
    """The methods of the rows whose weights a training of this suite makes, and the methods outside the catalogue."""
    known = catalogue()
    return [name for name in results.methods if name not in known or known[name].revision == FROM_CHECKPOINT]


def evaluator_cards(shards: Path) -> list[dict[str, object]]:
    """The cards of the evaluators that were trained on a shard set: kind, digest, size, scores on held-out clips."""
    cards = []
    for path in sorted((shards / FOLDER).glob("*.json")):
        card = read_json(path, "card of an evaluator")
        held_out = card.get("held_out", {})
        shown = {name: held_out[name] for name in _OF_HELD_OUT if name in held_out}
        if "speakers" in shown:
            shown["speakers"] = len(shown["speakers"])
        facts = {name: card[name] for name in _OF_CARD if name in card}
        cards.append({"kind": card.get("trained_on", {}).get("kind", path.stem), **facts} | _on_held_out(shown))
    return cards


def _on_held_out(facts: dict[str, object]) -> dict[str, object]:
    return {f"held_out_{name}": value for name, value in facts.items()}


def method_facts(results: Results, bibtex: Callable[[str], str]) -> dict[str, MethodAbout]:
    """The facts about the methods of the rows that are in the catalogue, by name.

    Args:
        results: the rows.
        bibtex: the BibTeX of a method of the catalogue.
    """
    known, summaries = catalogue(), {record.key["method"]: record.method.summary for record in results.records}
    return {
        name: _facts(known[name], bibtex, split_summary(summary)[1])
        for name, summary in summaries.items()
        if name in known
    }


def runnable_methods() -> list[Runnable]:
    """The methods whose released code has a recipe, sorted by name, without their other forms."""
    return [
        Runnable(name, entry.title, entry.summary, f"cmet-eval baselines setup {name} --weights DIR")
        for name, entry in sorted(catalogue().items())
        if entry.recipe is not None and not entry.recipe.variant
    ]


def _facts(entry: Entry, bibtex: Callable[[str], str], topics: Sequence[str]) -> MethodAbout:
    source = catalogue()[implemented(entry.name)]
    paper, code = entry.paper or source.paper, entry.code or source.code
    return MethodAbout(
        paper=_paper(paper),
        code=f"https://github.com/{code.repository}" if code and code.repository else "",
        licence=entry.licence,
        bibtex=bibtex(entry.name) if paper else "",
        departures=tuple(_departures(source.name.removesuffix("-published"), topics)),
        notes=entry.notes,
    )


def _paper(paper: Paper | None) -> str:
    if paper is None:
        return ""
    arxiv = f", arXiv:{paper.arxiv}" if paper.arxiv and paper.venue != "arXiv" else ""
    venue = f"arXiv:{paper.arxiv}" if paper.venue == "arXiv" and paper.arxiv else paper.venue
    return f"{paper.title}. {venue}, {paper.year}{arxiv}"


def _departures(model: str, topics: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Each topic with what the paper does and what is done here."""
    records = {one.topic: one for one in departures() if one.model == model}
    for topic in topics:
        if topic in records:
            yield topic, records[topic].theirs, records[topic].ours
