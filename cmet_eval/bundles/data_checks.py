"""Compares a bundle with the shard set: draws its pairs again, finds training clips, and scores its sample again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cmet_eval.bundles.board_checks import write_rows
from cmet_eval.bundles.form import PAIRS, Fault, Refused
from cmet_eval.bundles.reading import Bundle
from cmet_eval.bundles.tables import BundleTable
from cmet_eval.protocol.draw import Draw, draw_from_shards
from cmet_eval.protocol.pairs import PairList
from cmet_eval.protocol.setting import get_setting
from cmet_eval.runs.result_rows import data_fields
from cmet_eval.runs.verification import REFUSED, Check, CheckedRow, DrawnVideos, Verified, verify, verify_checks
from cmet_leaderboards.results import read_results
from cmet_metrics.registry import check_packages, get_metric
from cmet_pipelines.shards import ShardSet
from talking_face.clip import Pair
from talking_face.execution.options import RunOptions
from talking_face.lines import one_line
from talking_face.pretrained import store, trained_evaluators
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError
from talking_face.scratch import scratch_folder

_TRAINING = "train"  # the split of training clips in every shard set


def check_model_files(bundle: Bundle, files: ModelFiles) -> None:
    """Raises UserError if a metric of the bundle cannot be computed here, because a package or a model file is absent.

    Without this check, an honest bundle would be refused because of the machine that checks it.
    """
    for key in dict.fromkeys(part.metric for table in bundle.tables for part in table.part.metrics):
        metric = get_metric(key, files)
        check_packages(metric)
        for name in metric.weights:
            if not store.is_here(name, files):
                raise UserError(f"{key} cannot be scored here: {one_line(store.missing_message(store.weight(name)))}")
        if metric.evaluator is not None:
            trained_evaluators.find(metric.evaluator, files)


def check_data(bundle: Bundle, shards: ShardSet, files: ModelFiles) -> None:
    """Checks every table before anything is scored.

    Args:
        bundle: the bundle.
        shards: the shard set that it belongs to.
        files: where evaluators are searched for.

    Raises:
        Refused: the rows are of other data; a pair has a training clip, or a clip on which an evaluator of the table
            was trained; or the setting's rules do not draw these pairs.
    """
    facts = data_fields(shards)
    for table in bundle.tables:
        key, name = table.part.key, table.part.key["setting"]
        for field, known in facts.items():
            if key[field] != known:
                text = f"the {field} of {name} is {key[field][:80]}, that of --data is {str(known)[:80]}"
                raise Refused(Fault.OTHER_DATA, text)
        _check_splits(table, shards)
        _check_draw(table.pair_list, shards)
        _check_evaluators(table, shards, files)


def _clips_of(pair: Pair) -> set[str]:
    """The clips that a method sees or is compared with. The pools of sound are left out: every method may hear them."""
    named = (pair.reference_clip, pair.source_clip, pair.driving_clip, pair.ground_truth_clip)
    return {clip for clip in named if clip is not None}


def _check_splits(table: BundleTable, shards: ShardSet) -> None:
    if table.pair_list.split == _TRAINING:
        return  # the setting's own split, which `check_rows` compared
    train = set(shards.clips.loc[shards.clips["split"] == _TRAINING, "clip_id"])
    for pair in table.pair_list.pairs:
        if seen := sorted(_clips_of(pair) & train):
            raise Refused(Fault.TRAINING_CLIPS, f"{pair.pair_id} has the training clip {seen[0]}")


def _check_draw(pair_list: PairList, shards: ShardSet) -> None:
    draw = Draw(len(pair_list.pairs), pair_list.seeds, pair_list.split)
    try:
        again = draw_from_shards(shards, get_setting(pair_list.setting), draw)
    except UserError as error:
        raise Refused(Fault.FOREIGN_PAIRS, f"no pairs of {pair_list.setting} can be drawn: {error}") from None
    if again.digest != pair_list.digest:
        text = f"the rules of {pair_list.setting} draw the list {again.digest} from --data, not {pair_list.digest}"
        raise Refused(Fault.FOREIGN_PAIRS, text)
    if again != pair_list or (again.missing, again.notes) != (pair_list.missing, pair_list.notes):
        raise Refused(Fault.FOREIGN_PAIRS, f"the facts about the draw of {pair_list.setting} are not those of --data")


def _check_evaluators(table: BundleTable, shards: ShardSet, files: ModelFiles) -> None:
    """Raises Refused if a pair has a clip on which an evaluator of the table was trained."""
    kinds = {kind for part in table.part.metrics if (kind := get_metric(part.metric, files).evaluator) is not None}
    clips = set().union(*map(_clips_of, table.pair_list.pairs))
    for kind in sorted(kinds):
        trained_on = trained_evaluators.find(kind, files).trained_on
        for clip in sorted(clips & set(trained_on.clips)):
            same = trained_on.data == shards.digest
            if same or trained_evaluators.sound_id(shards.audio(clip)) in trained_on.sounds:
                text = f"the {kind} evaluator was trained on {clip}, a clip of the pairs of {table.pair_list.setting}"
                raise Refused(Fault.TRAINED_ON, text)


def score_sample(bundle: Bundle, data: Path, options: RunOptions, files: ModelFiles) -> Verified:
    """Scores the sample again and compares every value with the rows.

    Args:
        bundle: the bundle.
        data: the shard set.
        options: worker processes, and whether progress is printed.
        files: where evaluators are searched for, with their hashes.
    """
    checks = [check for table in bundle.tables for check in _checks(bundle.folder, table)]
    videos = sum(bool(video.sha256) for table in bundle.tables for video in table.videos.values())
    return verify_checks(checks, videos, data, options, files)


def _checks(folder: Path, table: BundleTable) -> Iterator[Check]:
    pairs = {pair.pair_id: pair for pair in table.pair_list.pairs}
    for pair_id, name in table.sample.items():
        rows = (row for row in table.rows if row.pair_id == pair_id and row.reason not in REFUSED)
        checked = tuple(CheckedRow(row.metric, row.signature, row.value, row.reason) for row in rows)
        yield Check(table.rows[0].method, pairs[pair_id], folder / name, table.videos[pair_id].sha256, checked)


def score_drawn(bundle: Bundle, data: Path, videos: DrawnVideos, options: RunOptions) -> Verified:
    """Scores more videos again. The submitter did not know which ones, if the seed was chosen after the bundle.

    Args:
        bundle: the bundle, whose rows have the SHA-256 of every video.
        data: the shard set.
        videos: all videos, and which of them are chosen.
        options: worker processes, and whether progress is printed.
    """
    with scratch_folder() as scratch:
        write_rows(bundle, scratch)
        lists = [bundle.folder / table.folder / PAIRS for table in bundle.tables]
        return verify(read_results(scratch), videos, data, lists, options)
