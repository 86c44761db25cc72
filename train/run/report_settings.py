"""The parts of a report on a run's settings, and on what to do next."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from train.config import Config
from train.config_file import config_from_json, flag_values
from train.console import program_name
from train.errors import UserError
from train.run.page import details, escape, section, table

__all__ = [
    "environment_details",
    "flag_rows",
    "flags_of",
    "format_value",
    "next_steps_section",
    "settings_section",
]

Json = Mapping[str, Any]


def settings_section(record: Json) -> str:
    """The run's flags, first those that differ from the defaults, and its machine.

    Args:
      record: the contents of the run's `config.json`.
    """
    values, defaults = flags_of(record), flag_values(Config())
    changed = {k: v for k, v in values.items() if k not in defaults or v != defaults[k]}
    return section(
        "Settings",
        '<p class="note">Those that differ from the defaults:</p>',
        table((), flag_rows(changed), "words"),
        details("All settings", table((), flag_rows(values), "words")),
        environment_details(record.get("machine", {}), record.get("versions", {})),
    )


def flags_of(record: Json) -> dict[str, Any]:
    """The value of every flag of a run, by the name of its field.

    Of a run of another version, whose flags are not known here, those that it saved.

    Args:
      record: the contents of its `config.json`.
    """
    try:
        return flag_values(config_from_json(record["config"]))
    except UserError:
        values = {}
        for name, value in record["config"].items():
            values |= value if isinstance(value, dict) else {name: value}
        return values


def flag_rows(values: Json) -> list[tuple[str, str]]:
    """Flags and their values as on the command line."""
    return [
        ("--" + name.replace("_", "-"), format_value(value))
        for name, value in values.items()
    ]


def environment_details(machine: Json, versions: Json) -> str:
    """The machine and the versions of the packages, to unfold."""
    rows = [(name, str(value)) for name, value in {**machine, **versions}.items()]
    return details("Machine and versions", table((), rows, "words"))


def next_steps_section(run: Path, record: Json) -> str:
    """Commands that use the run.

    Args:
      run: its folder.
      record: the contents of its `config.json`.
    """
    steps = "".join(
        f"<p>{escape(text)}</p><pre>{escape(command)}</pre>"
        for text, command in _commands(run, record)
    )
    return section("How to go on", steps)


def _commands(run: Path, record: Json) -> Iterator[tuple[str, str]]:
    folder = shlex.quote(str(run))
    epochs = record["config"]["epochs"]
    code = f"cnn_flax.load_pretrained({record['model']['name']!r}, {str(run)!r})"
    yield "Classify images:", f"{program_name()} predict {folder} photo.jpg"
    yield (
        "Evaluate it on other images of the same classes:",
        f"{program_name()} evaluate {folder} --data folder:PATH --report other.html",
    )
    yield "Compare it with other runs:", f"{program_name()} compare {folder} OTHER_RUN"
    yield (
        "Train it for longer, with these flags added to the command that started it:",
        f"--epochs {2 * epochs} --extend",
    )
    yield "Load it in Python:", f"model, variables = {code}"


def format_value(value: Any) -> str:
    """A flag's value as on the command line; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        value = [f"{name}={part}" for name, part in value.items()]
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
