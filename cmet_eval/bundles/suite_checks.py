"""Compares a bundle with this suite: its settings, its methods, its metrics, and their signatures and ranges."""

from __future__ import annotations

import re
import unicodedata

from cmet_baselines.method import INPUTS
from cmet_baselines.registry import catalogue
from cmet_eval.bundles.form import Fault, MethodPart, MetricPart, Refused, TablePart
from cmet_eval.bundles.tables import BundleTable
from cmet_eval.protocol.setting import Setting, get_setting, setting_names
from cmet_eval.runs.verification import TREATMENTS
from cmet_leaderboards.metric_facts import limits
from cmet_leaderboards.results import storable_table
from cmet_metrics.base import Metric
from cmet_metrics.registry import PROFILES, common_profile, get_metric, is_own
from talking_face.packages import suite_version
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import Reason, UserError

_ROUNDING = 1e-6  # a similarity of a picture with itself can be 1.0000000002
# What follows from a model file in a signature: its tag and the number of its classes. If the file is not on this
# machine, the tag is `absent`.
_OF_FILE = {"absent": r"[A-Za-z0-9_.,+=-]+", r"classes:\d+": r"classes:\d+"}


def check_method(method: MethodPart) -> None:
    """Checks the record of the method.

    Raises Refused if a method that is not in the catalogue has a role without a rank, or the title of a method of the
    catalogue; or if the role or the inputs of a method of the catalogue are others.
    """
    entries = catalogue()
    if unknown := sorted(set(method.sees) - set(INPUTS)):
        raise Refused(Fault.FOREIGN_METHOD, f"{unknown[0]!r} is not an input of methods: {', '.join(INPUTS)}")
    entry = entries.get(method.name)
    if entry is None:
        if method.role != "method":
            raise Refused(Fault.FOREIGN_METHOD, f"{method.name} is not in the catalogue and cannot be a {method.role}")
        if plain(method.title) in {plain(other.title) for other in entries.values()} | set(map(plain, entries)):
            raise Refused(Fault.FOREIGN_METHOD, f"{method.title!r} is the name of a method of the catalogue")
        return
    if entry.kind == "published":
        raise Refused(Fault.FOREIGN_METHOD, f"{method.name} stands for the numbers of a paper; choose another name")
    for what, stated, known in (
        ("role", method.role, entry.role),
        ("inputs", sorted(method.sees), sorted(entry.sees)),
        ("title", method.title.split(",")[0], entry.title.split(",")[0]),
    ):
        if stated != known:
            raise Refused(
                Fault.FOREIGN_METHOD, f"the {what} of {method.name} is {known} in the catalogue, not {stated}"
            )


def plain(title: str) -> str:
    """The letters and digits of a title, without case and style, so that similar titles are equal.

    Example:
        >>> plain("C-MET"), plain("ｃ met")
        ('cmet', 'cmet')
    """
    return "".join(char for char in unicodedata.normalize("NFKC", title).casefold() if char.isalnum())


def check_table(part: TablePart, files: ModelFiles) -> tuple[str, ...]:
    """Checks the setting, the version and the metrics of a table.

    Args:
        part: the table's fields.
        files: where evaluators are searched for.

    Returns:
        one text for each signature that cannot be checked because an evaluator is not on this machine.

    Raises:
        Refused: see `Fault`.
    """
    setting = _setting(part)
    if part.key["suite_version"] != suite_version():
        text = (
            f"the rows are of version {part.key['suite_version'][:40]} and this is {suite_version()}; score them again"
        )
        raise Refused(Fault.OTHER_VERSION, text)
    signatures = [metric.signature for metric in part.metrics]
    if twice := sorted({one for one in signatures if signatures.count(one) > 1}):
        raise Refused(Fault.DUPLICATE_METRIC, f"two metrics of {setting.name} have the signature {twice[0][:80]}")
    notes = [note for metric in part.metrics if (note := _check_metric(metric, setting, files))]
    profile = part.key["profile"]
    try:
        fits = profile in PROFILES and common_profile([m.metric for m in part.metrics], profile) == profile
    except UserError:
        fits = False
    if not fits:
        text = f"the metrics of {setting.name} are not of one profile {profile[:40]!r}"
        raise Refused(Fault.FOREIGN_METRIC, text)
    return tuple(notes)


def _setting(part: TablePart) -> Setting:
    name = part.key["setting"]
    if name not in setting_names():
        raise Refused(Fault.FOREIGN_SETTING, f"{name[:60]!r} is not a setting of this suite")
    setting = get_setting(name)
    if part.key["rules"] != setting.digest:
        text = f"the rows of {name} follow the rules {part.key['rules'][:40]}, this suite's are {setting.digest}"
        raise Refused(Fault.FOREIGN_SETTING, text)
    return setting


def _check_metric(part: MetricPart, setting: Setting, files: ModelFiles) -> str:
    """Checks one metric; returns a text if its signature cannot be checked here."""
    try:
        metric = None if is_own(part.metric) else get_metric(part.metric, files, imports=False)
    except UserError:
        metric = None
    if metric is None or metric.key != part.metric:
        raise Refused(Fault.UNKNOWN_METRIC, f"{part.metric} is not a metric of this suite")
    if not setting.allows(metric.key):
        raise Refused(Fault.FOREIGN_METRIC, f"{metric.key} has no meaning in {setting.name}")
    facts = (metric.higher_is_better or metric.ideal is not None, metric.ideal, metric.unit)
    if facts != (part.higher_is_better or part.ideal is not None, part.ideal, part.unit):
        raise Refused(Fault.EDITED_METRIC, f"the direction, the ideal value or the unit of {metric.key} is wrong")
    return _check_signature(part, metric)


def _check_signature(part: MetricPart, metric: Metric) -> str:
    possible = [rules.signature(metric) for rules in TREATMENTS]
    if part.signature in possible:
        return ""
    for text in possible:
        if "absent" in text and re.fullmatch(_with_any_file(text), part.signature):
            return f"{metric.key}: its evaluator is not on this machine, so its signature is not checked"
    text = f"{metric.key} has the signature {part.signature}; this suite makes {possible[0]}"
    raise Refused(Fault.FOREIGN_SIGNATURE, text)


def _with_any_file(signature: str) -> str:
    """A pattern for the signatures that differ only in what follows from a model file."""
    pattern = re.escape(signature)
    for own, anything in _OF_FILE.items():
        pattern = re.sub(own, lambda _, text=anything: text, pattern)  # type: ignore[misc]
    return pattern


def check_rows(table: BundleTable, trained_on_split: bool) -> None:
    """Checks the split of the pairs, and the values and the reasons of the rows.

    Args:
        table: the table.
        trained_on_split: whether the catalogue states that the method shows training clips.

    Raises:
        Refused: the pairs are not from the setting's split, a value is impossible, or a score is left out as
            `trained-on` for a method for which the catalogue does not state this.
    """
    setting = get_setting(table.part.key["setting"])
    if table.pair_list.split != setting.split:
        text = f"the pairs of {setting.name} are from the split {table.pair_list.split!r}, not {setting.split!r}"
        raise Refused(Fault.TRAINING_CLIPS, text)
    for row in table.rows:
        low, high = limits(row.metric)
        if row.value is not None and not low - _ROUNDING <= row.value <= high + _ROUNDING:
            raise Refused(Fault.OUT_OF_RANGE, f"{row.metric} of {row.pair_id} is {row.value!r}, which it cannot be")
        if row.reason == Reason.MISSING_WEIGHTS:
            raise Refused(Fault.NO_WEIGHTS, f"{row.metric} of {row.pair_id} was not computed: {row.detail}")
        if row.reason == Reason.TRAINED_ON and not trained_on_split:
            text = f"{row.metric} of {row.pair_id} is left out, but {row.method} shows no training clips"
            raise Refused(Fault.TRAINED_ON, text)
    try:
        storable_table(table.rows)
    except UserError as error:
        raise Refused(Fault.BAD_FIELD, str(error)) from None
