"""Builds the settings and the reader options of a run from the options of a command line and of a TOML file.

Each option is a field of `ProcessingSettings`, or a field of the options of a dataset's reader. If the user sets an
option of another dataset's reader, an error is raised, because this option would have no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.readers import READERS, ReaderOptions, get_reader
from talking_face.names import did_you_mean, printable
from talking_face.reasons import UserError
from talking_face.user_files import WrongValue, checked, read_toml

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Value:
    """The value of one option. `shown` is the option as the user wrote it, for error messages."""

    value: object
    shown: str


def reader_fields() -> dict[str, dict[str, FieldInfo]]:
    """The options of all readers: `result[name][dataset]` is the field of option `name` in that dataset's reader.

    Raises TypeError if a reader's option has the same name as a field of `ProcessingSettings`.
    """
    found: dict[str, dict[str, FieldInfo]] = {}
    for dataset, reader in READERS.items():
        for name, field in reader.options.model_fields.items():
            if name in ProcessingSettings.model_fields:
                raise TypeError(
                    f"{reader.options.__name__}.{name}: this is a setting of all datasets; rename the option"
                )
            found.setdefault(name, {})[dataset] = field
    return found


def read_config(path: Path) -> dict[str, Value]:
    """The values of a TOML file, by name. Raises UserError if the file cannot be read or has an unknown key."""
    table = read_toml(path, "settings file")
    known = ProcessingSettings.model_fields.keys() | reader_fields().keys()
    for name in table:
        if name not in known:
            raise UserError(f"{path}: unknown setting {printable(name[:60])}{did_you_mean(name, known)}")
    return {name: Value(value, f"{path}: {name}") for name, value in table.items()}


def configure(dataset: str, values: Mapping[str, Value]) -> tuple[ProcessingSettings, ReaderOptions]:
    """(settings, options of the dataset's reader), from `values` by name. A missing option gets the default value.

    Raises UserError for an unknown dataset, for a value that is not allowed, and for an option of another dataset.
    """
    reader = get_reader(dataset)
    of_settings = {name: value for name, value in values.items() if name in ProcessingSettings.model_fields}
    of_reader = {name: value for name, value in values.items() if name in reader.options.model_fields}
    for name in values.keys() - of_settings.keys() - of_reader.keys():
        _check_unused(dataset, name, values[name])
    return _validated(ProcessingSettings, of_settings), _validated(reader.options, of_reader)


def _check_unused(dataset: str, name: str, value: Value) -> None:
    """Raises UserError if the option is unknown, or belongs to another dataset and does not have the default value."""
    owners = reader_fields().get(name)
    if owners is None:
        raise UserError(f"unknown setting {value.shown}{did_you_mean(name, reader_fields())}")
    if all(value.value != field.default for field in owners.values()):
        raise UserError(f"{value.shown} does nothing for {dataset}; it is an option of {', '.join(owners)}")


def _validated(model: type[Model], values: Mapping[str, Value]) -> Model:
    """The model with these values. The message for a wrong value begins with the option as the user wrote it."""
    try:
        return checked(model, {name: value.value for name, value in values.items()}, "the settings")
    except WrongValue as error:
        name, message = error.problems[0]
        raise UserError(f"{values[name].shown if name in values else name}: {message}") from None
