"""The analysis of a user study: means, intervals over raters, and Krippendorff's alpha."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from talking_face.reasons import UserError


def read_answers(study: Path, answers: Iterable[Path]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The study's key, and one record an answer: rater, question, pair, method(s), value.

    Raises:
        UserError: a file that is no answer of this study, or two files of one rater.
    """
    path = study / "key.json"
    try:
        key = dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        raise UserError(f"{path} is not there or cannot be read; it was written with the study") from None
    records: list[dict[str, Any]] = []
    seen: dict[int, Path] = {}
    for file in sorted(answers):
        try:
            given = json.loads(file.read_text("utf-8"))
            rater, items, name = int(given["rater"]), list(given["answers"]), str(given["study"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{file} is not a rater's answers") from None
        if name != key["study"]:
            raise UserError(f"{file} belongs to another study ({name})")
        if rater in seen:
            raise UserError(f"{file} and {seen[rater]} are both rater {rater + 1}; keep one")
        seen[rater] = file
        for item in items:
            if any(video not in key["videos"] for video in item["videos"]):
                raise UserError(f"{file} names a video that the study does not have")
            shown = [key["videos"][video] for video in item["videos"]]
            for question, value in item["values"].items():
                records.append(
                    {
                        "rater": rater,
                        "question": question,
                        "pair": shown[0][0],
                        "methods": [method for _, method in shown],
                        "value": int(value),
                    }
                )
    if not records:
        raise UserError("no answers; name the JSON files that the raters saved")
    return key, records


def analyse_ratings(records: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> list[dict[str, Any]]:
    """Per question and method: mean of the raters' means, 95 % t-interval over raters, answers; and per question
    Krippendorff's alpha (ordinal) over all videos."""
    rows = []
    for question in dict.fromkeys(r["question"] for r in records):
        asked = [r for r in records if r["question"] == question]
        alpha = _alpha(asked, lambda r: (r["pair"], r["methods"][0]), "ordinal")
        for method in methods:
            by_rater: dict[int, list[float]] = {}
            for r in asked:
                if r["methods"] == [method]:
                    by_rater.setdefault(r["rater"], []).append(r["value"])
            rows.append({"question": question, "method": method, **_over_raters(by_rater), "alpha": alpha})
    return rows


def analyse_preferences(records: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> list[dict[str, Any]]:
    """Per question and two methods: share of answers that prefer the first, 95 % t-interval over raters' shares, and
    Krippendorff's alpha (nominal)."""
    rows = []
    for question in dict.fromkeys(r["question"] for r in records):
        asked = [r for r in records if r["question"] == question]
        turned = [{**r, "value": r["methods"][r["value"]], "unit": (r["pair"], *sorted(r["methods"]))} for r in asked]
        codes = {method: i for i, method in enumerate(methods)}
        alpha = _alpha([{**r, "value": codes[r["value"]]} for r in turned], lambda r: r["unit"], "nominal")
        for first, second in itertools.combinations(methods, 2):
            by_rater: dict[int, list[float]] = {}
            for r in turned:
                if set(r["methods"]) == {first, second}:
                    by_rater.setdefault(r["rater"], []).append(float(r["value"] == first))
            if by_rater:
                names = {"question": question, "method": first, "against": second}
                rows.append({**names, **_over_raters(by_rater), "alpha": alpha})
    return rows


def _over_raters(values: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    """Mean of the raters' means and half of its 95 % t-interval: raters differ more than one rater's answers do."""
    from scipy import stats

    means = [float(np.mean(v)) for v in values.values()]
    n = len(means)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(means, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    mean = float(np.mean(means)) if means else math.nan
    return {"mean": mean, "half_width": half, "raters": n, "answers": sum(map(len, values.values()))}


def _alpha(
    records: Sequence[Mapping[str, Any]],
    unit: Callable[[Mapping[str, Any]], Any],
    level: Literal["nominal", "ordinal"],
) -> float:
    """Krippendorff's alpha; NaN where no video was judged by two raters, or all answers are equal."""
    import krippendorff

    raters = sorted({r["rater"] for r in records})
    units = sorted({unit(r) for r in records})
    table = np.full((len(raters), len(units)), np.nan)
    for r in records:
        table[raters.index(r["rater"]), units.index(unit(r))] = r["value"]
    if (np.isfinite(table).sum(axis=0) < 2).all() or len(np.unique(table[np.isfinite(table)])) < 2:
        return math.nan
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement=level))


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The analysis as a table."""
    versus = "against" in rows[0]
    lines = [
        f"| question | method |{' preferred to |' if versus else ''} mean | 95% | raters | answers | alpha |",
        f"|---|---|{'---|' if versus else ''}---|---|---|---|---|",
    ]
    for r in rows:
        other = f" {r['against']} |" if versus else ""
        interval = "-" if math.isnan(r["half_width"]) else f"±{r['half_width']:.2f}"
        mean = "-" if math.isnan(r["mean"]) else f"{r['mean']:.2f}"
        alpha = "-" if math.isnan(r["alpha"]) else f"{r['alpha']:.2f}"
        counts = f"{r['raters']} | {r['answers']}"
        lines.append(f"| {r['question']} | {r['method']} |{other} {mean} | {interval} | {counts} | {alpha} |")
    return "\n".join(lines) + "\n"
