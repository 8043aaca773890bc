"""A user study as a static page, blind and balanced. What its raters answered is read by `study_analysis`.

    STUDY/index.html     the page; works from a web server or from the disk, asks no server for anything
    STUDY/media/         videos and reference pictures under names that say nothing
    STUDY/key.json       which name is which method and pair: keep it from the raters

Two designs, as the papers ran them: `rating` (CEM-Net: lip sync, emotion, identity, 1 to 5) and `pairwise` (C-MET:
which of two). A rater's answers stay in the browser and are saved as one JSON file by a button.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from cmet_eval.protocol.pairs import PairList, pair_file_name
from cmet_eval.reports.web_video import write_web_video
from cmet_pipelines.shards import ShardSet
from talking_face.clip import Pair
from talking_face.files import write_json
from talking_face.progress import Progress
from talking_face.reasons import UserError

Design = Literal["rating", "pairwise"]
VERSION = 1
# (key, what is asked, the ends of the scale). `{emotion}` is the pair's target emotion.
QUESTIONS: tuple[tuple[str, str, str, str], ...] = (
    ("lip_sync", "How well do the lips follow the speech?", "not at all", "perfectly"),
    ("emotion", "How clearly does the face show this emotion: {emotion}?", "not at all", "very clearly"),
    ("identity", "How much does it look like the person in the picture?", "another person", "the same person"),
)
PREFERENCES: tuple[tuple[str, str], ...] = (
    ("lip_sync", "In which do the lips follow the speech better?"),
    ("emotion", "Which shows this emotion more clearly: {emotion}?"),
    ("identity", "Which looks more like the person in the picture?"),
)


@dataclass(frozen=True)
class Item:
    """One page of a rater: a pair, and the method or the two methods shown."""

    pair: int  # index into the study's pairs
    methods: tuple[int, ...]  # indices, left to right


def plan(n_pairs: int, n_methods: int, rater: int, per_rater: int, design: Design, seed: int) -> list[Item]:
    """What one rater sees, in order. Two raters never see the same order; counts are balanced.

    The pairs come in an order of the rater's own, and every method (or unordered pair of methods, its sides taking
    turns) comes up equally often, up to one, in each rater's list. Over as many raters as there are methods, every
    video is seen equally often: the method shown is a Latin square over raters and pairs.
    """
    shown = (
        [(m,) for m in range(n_methods)] if design == "rating" else list(itertools.combinations(range(n_methods), 2))
    )
    draw = np.random.default_rng((seed, rater))
    # Round after round over all pairs, each round with the next method, until the rater's share is full.
    cells = [
        (pair, shown[(pair + rater + turn) % len(shown)]) for turn in range(len(shown)) for pair in range(n_pairs)
    ][: min(per_rater, n_pairs * len(shown))]
    sides = [(k + rater) % 2 for k in range(len(cells))]
    items = [Item(pair, m[::-1] if flip else m) for (pair, m), flip in zip(cells, sides, strict=True)]
    return [items[i] for i in draw.permutation(len(items))]


def make_study(
    run: Path,
    pair_list: PairList,
    methods: Sequence[str],
    data: ShardSet,
    out: Path,
    *,
    design: Design = "rating",
    raters: int = 30,
    per_rater: int = 64,
    max_pairs: int = 16,
    seed: int = 0,
    quiet: bool = False,
) -> Path:
    """Write the study's page. Only pairs of which every method has a video are shown; returns the page's path.

    Args:
        run: folder of `cmet-eval run` or with videos/METHOD/SETTING/PAIR.mp4 of the same form.
        methods: at least one; two for `pairwise`. `ground-truth` among them anchors the scale.
        raters, per_rater: 30 people and 64 videos are CEM-Net's.

    Raises:
        UserError: too few methods, no pair that all have, or the folder holds another study.
    """
    if len(set(methods)) != len(methods) or len(methods) < (2 if design == "pairwise" else 1):
        raise UserError(f"a {design} study needs {'two' if design == 'pairwise' else 'one'} or more different --method")
    files = {
        (pair.pair_id, method): run / "videos" / method / pair_list.setting / f"{pair_file_name(pair.pair_id)}.mp4"
        for pair in pair_list.pairs
        for method in methods
    }
    whole = [p for p in pair_list.pairs if all(files[p.pair_id, m].exists() for m in methods)]
    if not whole:
        missing = [m for m in methods if not any(files[p.pair_id, m].exists() for p in pair_list.pairs)]
        raise UserError(f"no pair of {pair_list.setting} has a video of every method ({', '.join(missing) or 'each'})")
    order = sorted(whole, key=lambda p: hashlib.sha256(f"{seed} {p.pair_id}".encode()).digest())
    # Speakers and emotions take turns, so that a small study is not of one person.
    turns: dict[tuple[str, str], int] = {}
    ranked: list[tuple[int, int, Pair]] = []
    for p in order:
        turn = turns[p.speaker, p.target_emotion] = turns.get((p.speaker, p.target_emotion), 0) + 1
        ranked.append((turn, len(ranked), p))
    chosen = [p for _, _, p in sorted(ranked, key=lambda row: row[:2])[:max_pairs]]
    wanted = {
        "version": VERSION, "design": design, "setting": pair_list.setting, "pairs_digest": pair_list.digest,
        "methods": list(methods), "pairs": [p.pair_id for p in chosen], "raters": raters, "per_rater": per_rater,
        "seed": seed,
    }  # fmt: skip
    key = _claim(out, wanted)
    media = out / "media"
    media.mkdir(parents=True, exist_ok=True)
    pairs: list[dict[str, Any]] = []
    with Progress(len(chosen) * (len(methods) + 1), unit="files", label="copy", quiet=quiet) as progress:
        for p in chosen:
            picture = media / f"{_name(key, p.pair_id, 'picture')}.png"
            if not picture.exists():
                frame = data.frames(p.reference_clip, [p.reference_frames[0]])[0]
                ok, blob = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
                assert ok
                picture.write_bytes(blob.tobytes())
            progress.advance()
            videos = []
            for method in methods:
                target = media / f"{_name(key, p.pair_id, method)}.mp4"
                if not target.exists():
                    write_web_video(files[p.pair_id, method], target)
                videos.append(f"media/{target.name}")
                progress.advance()
            pairs.append({"emotion": p.target_emotion, "picture": f"media/{picture.name}", "videos": videos})
    # The page knows names that say nothing: the order of each pair's videos is the study's secret.
    plans = [
        [
            {
                "emotion": pairs[item.pair]["emotion"],
                "picture": pairs[item.pair]["picture"],
                "videos": [pairs[item.pair]["videos"][m] for m in item.methods],
            }
            for item in plan(len(pairs), len(methods), rater, per_rater, design, seed)
        ]
        for rater in range(raters)
    ]
    questions = QUESTIONS if design == "rating" else tuple((k, text, "", "") for k, text in PREFERENCES)
    study = {"study": key["study"], "design": design, "questions": questions, "plans": plans}
    page = out / "index.html"
    page.write_text(_page(study), encoding="utf-8")
    names = {f"media/{_name(key, p.pair_id, m)}.mp4": [p.pair_id, m] for p in chosen for m in methods}
    write_json(out / "key.json", {**key, "videos": names})
    return page


def _claim(out: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The study's key, made once: its salt must not change under raters who have begun."""
    path = out / "key.json"
    if path.exists():
        try:
            key = dict(json.loads(path.read_text("utf-8")))
        except ValueError:
            raise UserError(f"{path} cannot be read; use another --out") from None
        if any(key.get(name) != value for name, value in wanted.items()):
            raise UserError(f"{out} holds another study; use another --out")
        return key
    key = {**wanted, "salt": secrets.token_hex(16), "study": secrets.token_hex(4)}
    write_json(path, key)
    return key


def _name(key: Mapping[str, Any], pair_id: str, what: str) -> str:
    return hashlib.sha256(f"{key['salt']} {pair_id} {what}".encode()).hexdigest()[:16]


def _page(study: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cmet_eval.study", "templates"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("study.html.j2").render(study=study)
