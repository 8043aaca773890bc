"""Writes a blind and balanced user study as a static page. `analysis.py` reads the raters' answers.

    STUDY/index.html     the page; it works on a web server or as a local file, and sends nothing to a server
    STUDY/media/         videos and reference pictures; the file names do not reveal the method
    STUDY/key.json       method and pair of each file name; raters must not see this file

There are two designs. In `rating`, as in CEM-Net, a rater scores lip sync, emotion and identity from 1 to 5. In
`pairwise`, as in C-MET, a rater chooses one of two videos. A rater's answers stay in the browser. A button saves the
answers as one JSON file.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import cv2

from cmet_eval.protocol.pairs import PairList, pair_file_name
from cmet_eval.reports.web_video import write_web_video
from cmet_eval.study.key import FILE, VERSION, Kind, StudyKey, plan_digest, read_key, write_key
from cmet_eval.study.plan import Design, choose_pairs, plan
from cmet_pipelines.shards import ShardSet
from talking_face.clip import Pair
from talking_face.files import STRAY, sha256_of, write_bytes, write_text
from talking_face.names import check_name, did_you_mean
from talking_face.progress import Progress
from talking_face.reasons import UserError

SCALES: dict[Kind, tuple[int, int]] = {"rating": (1, 5), "pairwise": (0, 1)}  # the lowest and the highest answer
# (key, question, meaning of the lowest score, meaning of the highest score). `{emotion}` is the target emotion.
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


class Page(TypedDict):
    """A pair with its picture and its videos, as index.html reads it."""

    emotion: str
    picture: str  # path of the reference picture
    videos: list[str]  # paths of the videos, from left to right


def make_study(
    run: Path,
    pair_list: PairList,
    methods: Sequence[str],
    data: ShardSet,
    out: Path,
    *,
    design: Design | None = None,
    quiet: bool = False,
) -> Path:
    """Writes the study and returns the path of the page. Only pairs with a video of every method are shown.

    Args:
        run: folder of `cmet-eval run`, or another folder with videos/METHOD/SETTING/PAIR.mp4.
        methods: at least one method, or at least two for `pairwise`. Include `ground-truth` to learn how raters judge
            real videos.
        data: the shard set of the run, from which the reference pictures are read.
        out: the study's folder.

    Raises:
        UserError: there are too few methods, no pair has a video of every method, or `out` contains another study.
    """
    design = design or Design()
    check_study_methods(methods, design)
    chosen = choose_pairs(_with_all_videos(run, pair_list, methods), design)
    key = _claim(out, _new_key(pair_list, methods, chosen, design))
    shown, names, originals = [], {}, {}
    with Progress(len(chosen) * (len(methods) + 1), unit="files", label="copy", quiet=quiet) as progress:
        for pair in chosen:
            picture = _copy_picture(pair, data, out, key)
            progress.advance()
            videos = []
            for method in methods:
                source = _video(run, pair_list, pair, method)
                videos.append(_copy_video(pair, method, source, out, key))
                names[videos[-1]], originals[videos[-1]] = (pair.pair_id, method), sha256_of(source)
                progress.advance()
            shown.append(Page(emotion=pair.target_emotion, picture=picture, videos=videos))
    _write_page(out / "index.html", shown, key, design)
    write_key(out, replace(key, videos=names, originals=originals))
    return out / "index.html"


def check_study_methods(methods: Sequence[str], design: Design) -> None:
    """Raises UserError if there are too few methods, one is given twice, or one is not a name."""
    least = 2 if design.kind == "pairwise" else 1
    if len(set(methods)) != len(methods) or len(methods) < least:
        count = "two" if least == 2 else "one"
        raise UserError(f"a {design.kind} study needs {count} or more different --method")
    try:
        for method in methods:
            check_name(method)
    except ValueError as error:
        raise UserError(f"--method: {error}") from None


def _video(run: Path, pair_list: PairList, pair: Pair, method: str) -> Path:
    return run / "videos" / method / pair_list.setting / f"{pair_file_name(pair.pair_id)}.mp4"


def _with_all_videos(run: Path, pair_list: PairList, methods: Sequence[str]) -> list[Pair]:
    """The pairs with a video of every method. Raises UserError if no pair has them all."""
    have = {
        (pair.pair_id, method)
        for pair in pair_list.pairs
        for method in methods
        if _video(run, pair_list, pair, method).exists()
    }
    whole = [pair for pair in pair_list.pairs if all((pair.pair_id, method) in have for method in methods)]
    if not whole:
        missing = [method for method in methods if method not in {name for _, name in have}]
        there = sorted(place.name for place in (run / "videos").glob("*") if place.is_dir())
        hint = did_you_mean(missing[0], there) if missing else ""
        raise UserError(
            f"no pair of {pair_list.setting} has a video of every method ({', '.join(missing) or 'each'}){hint or ';'} "
            f"{run / 'videos'} has {', '.join(there) or 'no method'}"
        )
    return whole


def _new_key(pair_list: PairList, methods: Sequence[str], chosen: Sequence[Pair], design: Design) -> StudyKey:
    return StudyKey(
        version=VERSION,
        design=design.kind,
        setting=pair_list.setting,
        pairs_digest=pair_list.digest,
        methods=list(methods),
        pairs=[pair.pair_id for pair in chosen],
        raters=design.raters,
        per_rater=design.per_rater,
        seed=design.seed,
        salt=secrets.token_hex(16),
        study=secrets.token_hex(4),
        questions=[question[0] for question in _questions(design)],
        scale=SCALES[design.kind],
    )


def _claim(out: Path, new: StudyKey) -> StudyKey:
    """Writes the key `new` into `out` and returns the key. If `out` already has a key of this study, that key is kept
    and returned, so that the file names do not change.

    Raises:
        UserError: the folder contains another study or other files, or its key is damaged.
    """
    if not (out / FILE).exists():
        if out.exists() and (not out.is_dir() or any(not path.match(STRAY) for path in out.iterdir())):
            raise UserError(f"{out} exists and is not a study with its {FILE}; use another --out")
        write_key(out, new)
        return new
    key = replace(read_key(out), videos={}, originals={})
    if replace(key, salt=new.salt, study=new.study) != new:
        raise UserError(f"{out} holds another study; use another --out")
    return key


def _place(key: StudyKey, pair_id: str, what: str, suffix: str) -> str:
    """Path of a file, relative to the study's folder. The file name is a hash and does not reveal the method."""
    return f"media/{sha256_of(f'{key.salt} {pair_id} {what}'.encode())[:16]}{suffix}"


def _copy_picture(pair: Pair, data: ShardSet, out: Path, key: StudyKey) -> str:
    """If the file is absent, writes the pair's first reference frame as PNG. Returns the path relative to `out`."""
    place = _place(key, pair.pair_id, "picture", ".png")
    if not (out / place).exists():
        frame = data.frames(pair.reference_clip, [pair.reference_frames[0]])[0]
        ok, blob = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        assert ok
        write_bytes(out / place, blob.tobytes())
    return place


def _copy_video(pair: Pair, method: str, source: Path, out: Path, key: StudyKey) -> str:
    """If the file is absent, writes a copy of the video that browsers can play. Returns the path relative to `out`."""
    place = _place(key, pair.pair_id, method, ".mp4")
    if not (out / place).exists():
        write_web_video(source, out / place)
    return place


def _write_page(path: Path, shown: Sequence[Page], key: StudyKey, design: Design) -> None:
    """Writes the page for all raters. The page contains no names of methods or pairs."""
    plans = [
        [
            Page(
                emotion=shown[item.pair]["emotion"],
                picture=shown[item.pair]["picture"],
                videos=[shown[item.pair]["videos"][m] for m in item.methods],
            )
            for item in plan(len(shown), len(key.methods), rater, design)
        ]
        for rater in range(design.raters)
    ]
    digests = [plan_digest(key, [page["videos"] for page in pages]) for pages in plans]
    study = {"study": key.study, "design": design.kind, "scale": key.scale, "plans": plans, "digests": digests}
    study["questions"] = _questions(design)
    write_text(path, _render(study))


def _questions(design: Design) -> tuple[tuple[str, str, str, str], ...]:
    return QUESTIONS if design.kind == "rating" else tuple((key, text, "", "") for key, text in PREFERENCES)


def _render(study: Mapping[str, object]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cmet_eval.study", "templates"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("study.html.j2").render(study=study)
