"""Chooses the metrics that score the videos of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmet_eval.protocol.setting import Setting
from cmet_metrics.base import Metric
from cmet_metrics.registry import DEFAULT_METRICS, Profile, check_packages, common_profile, get_metric, in_profile
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.trained_evaluators import with_hashes
from talking_face.reasons import UserError


@dataclass(frozen=True)
class Scoring:
    """The metrics that the user chose. Raises UserError if `metrics` and `profile` name different metrics."""

    # Keys of metrics, `name:variant`. None: all metrics of the profile. If there is no profile either: the default
    # metrics.
    metrics: Sequence[str] | None = None
    profile: Profile | None = None  # evaluator profile, stored in every result row; None: the profile of the metrics
    # Folders with the model files of metrics and methods. None: the folders in the environment variables, then the
    # folders in the shard set.
    files: ModelFiles | None = None
    # Compare videos with the ground truth although the face has another place or size; see `registration_check`.
    allow_misregistered: bool = False

    def __post_init__(self) -> None:
        if not self.metrics or not self.profile:
            return
        if {get_metric(name).key for name in self.metrics} != set(in_profile(self.profile)):
            raise UserError(
                f"--profile {self.profile} means all metrics of that profile, and --metrics names "
                f"{', '.join(self.metrics)}; give one of the two options"
            )

    def model_files(self, data: Path) -> ModelFiles:
        """The model files for one run on the shard set `data`, with the hashes of the evaluators."""
        return with_hashes(self.files or ModelFiles.from_environment(data))

    def in_setting(self, setting: Setting, files: ModelFiles) -> list[Metric]:
        """The metrics that are valid in the setting. The metrics use the model files `files`.

        Raises:
            UserError: no metric is valid in the setting, a name is unknown, or the metrics have different profiles.
        """
        metrics = self._wanted(files)
        self.common_profile(metrics)
        allowed = [metric for metric in metrics if setting.allows(metric.key)]
        if not allowed:
            asked = ", ".join(metric.key for metric in metrics)
            raise UserError(
                f"none of {asked} means anything in {setting.name}; give --metrics one of {', '.join(setting.metrics)}"
            )
        return allowed

    def not_computed_in(self, setting: Setting, files: ModelFiles) -> str:
        """A line about the metrics that the user named and that are not valid in the setting; else an empty text."""
        keys = [metric.key for metric in self._wanted(files) if not setting.allows(metric.key)] if self.metrics else []
        if not keys:
            return ""
        are, they = ("is", "it") if len(keys) == 1 else ("are", "them")
        return (
            f"{', '.join(keys)} {are} not among the metrics of {setting.name} and {are} not computed there; to allow "
            f"{they}, add the setting's name to `valid_in` of the metric's class, or the metric to `metrics` of a "
            "setting of your own"
        )

    def _wanted(self, files: ModelFiles) -> list[Metric]:
        """The metrics that the user named, without repetitions; see `metrics` for the case without names.

        Raises UserError if a named metric needs a package that is not installed. Without names, the rows of such a
        metric get a reason.
        """
        default = in_profile(self.profile) if self.profile else DEFAULT_METRICS
        wanted = list(dict.fromkeys(get_metric(name, files) for name in self.metrics or default))
        for metric in wanted if self.metrics else ():
            check_packages(metric)
        return wanted

    def common_profile(self, metrics: Sequence[Metric]) -> Profile:
        """The profile that all these metrics belong to. Raises UserError if the metrics have no common profile."""
        return common_profile((metric.key for metric in metrics), self.profile)
