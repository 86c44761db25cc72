import io

from rich.console import Console

from train.console import say


def test_text_is_printed_verbatim():
    console = Console(file=io.StringIO(), width=10)
    say(console, "a file called [bold].png, of a long name")
    text = console.file.getvalue()  # pyright: ignore
    assert text == "a file called [bold].png, of a long name\n"
