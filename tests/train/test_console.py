import io
import subprocess
import sys

import pytest
from rich.console import Console
from rich.table import Table

from train.console import class_line, literal, printable, say

NAMES = (
    *("[red]", "[/red]", "[/]", "\\[red]", "\\", "\\\\", ":cat:", "$$", "%s", "<b>"),
    *("\x1b[31mred", "a\nb", "a\tb\r", "\udcff", "\u202eabc", "猫", "x" * 300),
)


def test_text_is_printed_verbatim():
    console = Console(file=io.StringIO(), width=10)
    say(console, "a file called [bold].png, of a long name")
    text = console.file.getvalue()  # pyright: ignore
    assert text == "a file called [bold].png, of a long name\n"


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name):
    console = Console(file=io.StringIO(), width=400, force_terminal=False)
    table = Table(title=literal(name))
    table.add_row(literal(name))
    console.print(table)
    say(console, name)
    say(console, class_line([name, "b"]))
    text = console.file.getvalue()  # pyright: ignore
    assert text.count(printable(name)) >= 3
    assert f"2 classes: {printable(name)}, b\n" in text
    assert not set(text) & set("\x1b\t\r\udcff\u202e")
    assert printable(name).isprintable()


def test_a_long_name_is_folded_and_not_cut():
    console = Console(file=io.StringIO(), width=30)
    table = Table()
    table.add_row(literal("x" * 100))
    console.print(table)
    assert console.file.getvalue().count("x") == 100  # pyright: ignore


def test_a_line_has_the_first_classes_only():
    assert class_line("abcde") == "5 classes: a, b, c, d, e"
    names = [str(k) for k in range(1000)]
    assert class_line(names) == "1,000 classes: 0, 1, 2, 3, 4, ..."


@pytest.mark.parametrize("module", ["train", "cnn_flax.cli"])
def test_an_encoding_that_lacks_a_character_is_no_error(module):
    program = (
        f"import sys; from {module} import main; sys.exit(main(['caf\\u00e9 \\udcff']))"
    )
    program = program.replace("from train import", "from train.__main__ import")
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONIOENCODING": "ascii", "LANG": "C", "PATH": ""},
        capture_output=True,
    )
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr and rb"caf\xe9" in done.stderr
