"""Evaluation settings. A setting is a TOML file that states how pairs are drawn, and which metrics are valid.

The files `settings/*.toml` ship with the package. Wherever a setting's name is accepted, a path to another TOML file is
accepted too. A published list of rows (`rows`) is a CSV file in the folder of the TOML file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from cmet_eval.protocol.published_lists import ListRow, read_list
from cmet_leaderboards.row import check_setting_name
from cmet_metrics.registry import find_record, is_own
from talking_face.names import Key, Name, printable
from talking_face.signature import digest
from talking_face.user_files import Line, Text, check_own_name, checked, named_toml, read_toml

_FOLDER = Path(__file__).parent / "settings"
MOST = 1_000_000  # clips; the largest data set in use, LRS2, has 144,000


class Setting(BaseModel):
    """One evaluation setting. Unknown fields are an error, so that a misspelt rule is not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Annotated[Key, AfterValidator(check_setting_name)]
    title: Line
    summary: Text  # one sentence, shown on the board
    protocol: Text = ""  # source of the rules, for example a paper

    split: Name = "test"  # pairs are drawn from the clips with this value in the split column; "all": every clip
    # cells: pairs for each speaker, reference emotion and target emotion. The ground truth is a clip with the target
    #   emotion. The sound of the ground truth drives the lips.
    # clips: one pair per clip. The clip is its own reference, source and ground truth.
    # rows: one pair per row of a published list. The source clip's own sound drives the lips. The ground truth has the
    #   same sentence at another speed, so the video and the ground truth cannot be compared frame by frame.
    # no-truth: pairs for each speaker and target emotion. The source clip's sound drives the lips; there is no ground
    #   truth.
    draw: Literal["cells", "clips", "rows", "no-truth"] = "cells"
    rows: Name | None = None  # draw = "rows": name of the list, a CSV file in the folder of the TOML file
    clips: int | None = Field(default=None, ge=1, le=MOST)  # draw = "clips": number of clips, chosen by hash; None: all
    unlabelled: Name | None = None  # emotion that clips without a label get; None: clips without a label are left out
    reference: Literal["neutral", "other-emotion", "itself"]  # the clip that gives the identity
    # Only used if reference = "other-emotion". any-other: every emotion except the target emotion. non-neutral: every
    # emotion except the target emotion and neutral.
    reference_emotions: Literal["any-other", "non-neutral"] | None = None
    reference_frames: int = Field(default=5, ge=1, le=1000)
    # first-and-random: the first frame, for methods that use only one picture, and further frames at random.
    reference_frame_rule: Literal["random", "first", "first-and-random"] = "random"
    # The source clip, for methods that edit a video. same-sentence: a clip with the emotion of the reference
    # clip and the sentence of the driving clip, as in C-MET's test rows. If there is no such clip or no sentence is
    # known, the source clip is the reference clip.
    source: Literal["reference-clip", "same-sentence"] = "same-sentence"
    target_emotions: Literal["all"] | tuple[Name, ...] = "all"
    clips_per_cell: int = Field(default=1, ge=1, le=MOST)  # number of ground-truth clips per cell and seed
    seeds: int = Field(default=5, ge=1, le=1000)
    # Number of clips in each of C-MET's two pools of sound: the pool of the target emotion and the neutral pool. The
    # clips come from the pair's split and from any speaker. Clips with the highest intensity are chosen first. The
    # ground truth is never in a pool. C-MET's own pools contain clips of intensity 3 of C-MET's four test speakers.
    emotion_audio_clips: int = Field(default=10, ge=0, le=1000)
    visible: Literal["none", "upper-half", "all"] = "none"  # part of the ground truth that a method receives as input

    disjoint: tuple[Literal["speaker", "sentence", "clip"], ...] = ()  # training and test share no value of these
    shared: tuple[Literal["speaker", "sentence", "clip"], ...] = ()  # training and test share values of these

    # Valid metrics: families (the part of a key before the colon), or whole keys.
    metrics: tuple[Line, ...] = Field(min_length=1)

    _folder: Path = PrivateAttr(default=_FOLDER)  # folder of the TOML file

    @model_validator(mode="after")
    def _reference_rule(self) -> Self:
        if (self.reference == "other-emotion") != (self.reference_emotions is not None):
            raise ValueError('reference_emotions goes with reference = "other-emotion", and only with it')
        if (self.reference == "itself") != (self.draw == "clips"):
            raise ValueError('reference = "itself" goes with draw = "clips", and only with it')
        if self.draw in ("rows", "no-truth") and self.reference != "neutral":
            raise ValueError(f'draw = "{self.draw}" takes a neutral reference')
        if (self.rows is not None) != (self.draw == "rows"):
            raise ValueError('rows goes with draw = "rows", and only with it')
        if self.draw == "no-truth" and self.target_emotions == "all":
            raise ValueError('draw = "no-truth" needs target_emotions: no clip of the data shows them')
        if self.clips is not None and self.draw != "clips":
            raise ValueError('clips goes with draw = "clips"')
        for field in ("target_emotions", "metrics", "disjoint", "shared"):
            if (values := getattr(self, field)) != "all" and len(set(values)) != len(values):
                raise ValueError(f"{field} names a value twice")
        if self.target_emotions == ():
            raise ValueError('target_emotions is empty; leave it out, or write "all"')
        if overlap := set(self.disjoint) & set(self.shared):
            raise ValueError(f"{', '.join(sorted(overlap))} cannot be both disjoint and shared")
        return self

    @property
    def digest(self) -> str:
        """Eight hex digits, computed from the rows and from all fields except title, summary and protocol."""
        rules = self.model_dump(mode="json", exclude={"title", "summary", "protocol"})
        return digest(rules | {"rows": [list(row) for row in self.row_list]}, 8)

    @property
    def row_list(self) -> tuple[ListRow, ...]:
        """The rows of the published list; empty if there is no list. Raises UserError if reading the list fails."""
        return read_list(self._folder / self.rows) if self.rows else ()

    def allows(self, metric_key: str) -> bool:
        """Whether the metric is valid in this setting.

        A metric is valid if `metrics` contains its key, such as `ssim:wang2004`, or its family, such as `ssim`. Options
        after a comma are ignored. The metric is also valid if the field `valid_in` of its record names the setting. A
        user's own metric, `module:Class`, is valid in every setting.
        """
        key = metric_key.partition(",")[0]
        if key in self.metrics or key.split(":")[0] in self.metrics or is_own(key):
            return True
        record = find_record(key)
        return record is not None and self.name in record.valid_in


@cache
def setting_names() -> tuple[str, ...]:
    """Names of the settings that ship with the package, sorted; `neutral-base` is the first name."""
    return tuple(
        sorted((path.stem for path in _FOLDER.glob("*.toml")), key=lambda name: (name != "neutral-base", name))
    )


def get_setting(name: str) -> Setting:
    """The setting with this name, or the setting in this TOML file.

    Raises UserError if the name is unknown, the file has an error, or a file outside of the package has the name of a
    setting of the package.
    """
    path = named_toml(name, _FOLDER, "setting", setting_names())
    setting = checked(Setting, read_toml(path, "setting"), f"the setting {printable(str(path))}")
    check_own_name(path, setting.name, _FOLDER, "setting", setting_names())
    setting._folder = path.parent
    if setting.rows:
        read_list(path.parent / setting.rows)  # a wrong list is reported before any work
    return setting
