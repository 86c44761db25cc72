"""Code blocks of README and of the site's pages."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["PAGES", "ROOT", "Block", "blocks", "commands"]

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
]

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
_COMMAND = re.compile(r"(?:python3? -m (?:train|benchmarks)\b|cnn-flax )[^\"&]*")


class Block(NamedTuple):
    """A block in fences.

    Attributes:
      page: path of its page in the repository.
      line: number of its first line.
      language: what follows the fence.
      text: of the block.
      reason: why it is not run, from a comment above it; empty if it is.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str


def blocks(page: str, *languages: str, section: str = "") -> list[Block]:
    """The blocks of a page, or of the section of a title, in one of the languages."""
    text = (ROOT / page).read_text("utf-8")
    start = text.index(f"{section}\n") if section else 0
    end = text.find("\n## ", start + 1) if section else len(text)
    return [
        Block(
            page,
            text.count("\n", 0, match.start("text")) + 1,
            match["language"],
            textwrap.dedent(match["text"]),
            match["reason"] or "",
        )
        for match in _BLOCK.finditer(text, start, end)
        if match["language"] in languages
    ]


def commands(page: str, section: str = "") -> Iterator[list[str]]:
    """The words of each of the project's commands in a page's blocks for a shell.

    Args:
      page: path in the repository.
      section: title of the section to stay in, with its "#"; all by default.

    Yields:
      Words without the comment, from "python" or "cnn-flax" on.
    """
    for block in blocks(page, "bash", section=section):
        for line in block.text.replace("\\\n", " ").splitlines():
            line = re.sub(r'"\$\(.*\)"', "WEIGHTS", line.partition("  #")[0])
            for command in _COMMAND.findall(line):
                yield shlex.split(command.replace("$i", "0"))
