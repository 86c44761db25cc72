"""Reads a run's `config.json`; converts a `Config` to JSON and back; changes it."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from train.config import Config, Optimization
from train.errors import UserError
from train.storage import read_json

__all__ = [
    "as_begun",
    "config_from_json",
    "config_to_json",
    "flag_values",
    "load_record",
    "read_record",
    "recorded_fields",
    "replace",
]

Json = dict[str, Any]

# What a run's `config.json` has.
_FIELDS = {
    "recipe": str,
    "config": dict,
    "config.epochs": int,
    "model.name": str,
    "model.fields": dict,
    "input.image_size": int,
    "input.channels": int,
    "input.mean": [float],
    "input.std": [float],
    "class_names": [str],
    "versions": dict,
    "machine": dict,
}

# Names of groups in older versions, and their names now.
_FORMER_NAMES = {"spread": "parallelism"}

# What a config without these fields did, where that is not their default now.
_FORMER_VALUES: Mapping[type, Json] = {Optimization: {"precise_bn": "never"}}


def config_to_json(config: Config) -> Json:
    """The config as JSON: one dictionary per group, lists for tuples."""
    return _jsonable(dataclasses.asdict(config))


def config_from_json(tree: Mapping[str, Any], cls: type = Config) -> Any:
    """Restores a config from `config_to_json`.

    Missing fields take their defaults, or the values of what older versions did.

    Args:
      tree: the JSON.
      cls: `Config`, or the class of one of its groups.

    Raises:
      UserError: if the JSON has a field that `cls` does not have, or a value that the
        field cannot have.
    """
    if not isinstance(tree, Mapping):
        raise UserError("The run's config is damaged: a group of it is no object.")
    types = {f.name: f.type for f in dataclasses.fields(cls)}
    fields = dict(_FORMER_VALUES.get(cls, {}))
    for name, value in tree.items():
        name = _FORMER_NAMES.get(name, name) if cls is Config else name
        if name not in types:
            from cnn_flax.weights.errors import name_of

            raise UserError(
                f"This version does not know the run's field {name_of(name)}."
            )
        if dataclasses.is_dataclass(types[name]):
            value = config_from_json(value, type(getattr(cls, name)))
        fields[name] = tuple(value) if isinstance(value, list) else value
    try:
        return cls(**fields)
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
        raise UserError(
            f"The run's config is damaged: values of its {cls.__name__} are of other "
            "types."
        ) from e


def as_begun(config: Config, known: Collection[str]) -> Config:
    """The config of a run that an older version began, as that version ran it.

    Fields that it did not have, and that are at their defaults now, take the values of
    what it did.

    Args:
      config: the config.
      known: names of the fields that the older version had.
    """
    groups = {}
    for field in dataclasses.fields(config):
        group = getattr(config, field.name)
        values = {
            name: value
            for name, value in _FORMER_VALUES.get(type(group), {}).items()
            if name not in known and getattr(group, name) == getattr(type(group), name)
        }
        if values:
            groups[field.name] = dataclasses.replace(group, **values)
    return dataclasses.replace(config, **groups)


def recorded_fields(record: Json) -> set[str]:
    """Names of the fields in the config of a run's `config.json`."""
    names = set()
    for name, value in record["config"].items():
        names |= value.keys() if isinstance(value, dict) else {name}
    return names


def flag_values(config: Config) -> Json:
    """The value of every flag, by the name of its field."""
    values = {}
    for name, value in config_to_json(config).items():
        values |= value if isinstance(value, dict) else {name: value}
    return values


def replace(config: Config, **values: Any) -> Config:
    """A copy of a config with other values, whichever group they are in.

        replace(config, learning_rate=0.03, epochs=5)

    Args:
      config: the config.
      **values: maps the names of fields to their new values; `augment=Augment(...)`
        replaces a whole group.

    Raises:
      UserError: if there is no such field, or the values are not allowed.
    """
    names = [field.name for field in dataclasses.fields(config)]
    # The group `transfer` has a field `transfer`: the value says which is meant.
    changes: Json = {
        name: values.pop(name)
        for name in names
        if name in values
        and dataclasses.is_dataclass(values[name])
        == dataclasses.is_dataclass(getattr(config, name))
    }
    for name in names:
        group = changes.get(name, getattr(config, name))
        if dataclasses.is_dataclass(group) and not isinstance(group, type):
            inside = {field.name for field in dataclasses.fields(group)}
            if mine := {k: values.pop(k) for k in inside & values.keys()}:
                changes[name] = dataclasses.replace(group, **mine)
    if values:
        unknown, known = next(iter(values)), [*names, *flag_values(config)]
        near = difflib.get_close_matches(unknown, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"A config has no field {unknown!r}.{hint}")
    return dataclasses.replace(config, **changes)


def read_record(run: Path, *, whole: bool = False) -> Json | None:
    """The contents of a run's `config.json`; None if the folder is missing or empty.

    Hidden files do not count.

    Args:
      run: the run's folder.
      whole: whether it must have all that a run's has.

    Raises:
      UserError: if the folder holds something other than a run, or the file is damaged.
    """
    record = read_json(run / "config.json", _FIELDS, whole=whole)
    if record is None and run.exists():
        if not run.is_dir():
            raise UserError(f"{run} is a file; a run needs a folder.")
        if any(not path.name.startswith(".") for path in run.iterdir()):
            raise UserError(
                f"{run} is not empty, and holds no run (there is no config.json)."
            )
    return record


def load_record(run: Path, *, whole: bool = False) -> Json:
    """The contents of a run's `config.json`; see `read_record`.

    Raises:
      UserError: if the folder holds no run.
    """
    record = read_record(run, whole=whole)
    if record is None:
        raise UserError(f"{run} holds no run.")
    return record


def _jsonable(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _jsonable(value) for key, value in tree.items()}
    return [_jsonable(v) for v in tree] if isinstance(tree, tuple | list) else tree
