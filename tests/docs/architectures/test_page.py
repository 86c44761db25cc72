import pathlib

import pytest

import docs
from docs.architectures import ideas, measured
from docs.architectures.page import page
from docs.architectures.results import read

DOCS = pathlib.Path(docs.__file__).parent
PAGE = (DOCS / "architectures.md").read_text()
COMMAND = "python -m docs.architectures"


@pytest.mark.long
@pytest.mark.slow
def test_the_page_is_what_the_command_writes():
    assert page() == PAGE, f"docs/architectures.md: make it again with `{COMMAND}`."


ROWS = read()


@pytest.mark.parametrize(
    "section",
    [
        ideas.small_kernels,
        ideas.inception,
        lambda: measured.setting([row for rows in ROWS.values() for row in rows]),
        lambda: measured.norm(ROWS["norm"]),
        lambda: measured.depth(ROWS["depth"]),
        lambda: measured.deform(ROWS["deform"]),
    ],
    ids=["small_kernels", "inception", "setting", "norm", "depth", "deform"],
)
def test_a_section_is_what_the_command_writes(section):
    assert section() in PAGE, f"docs/architectures.md: make it again with `{COMMAND}`."


def test_the_pages_pictures_are_there():
    for name in ("plain_and_residual", "accuracy_and_cost"):
        assert f"(pictures/{name}.png)" in PAGE
        assert (DOCS / "pictures" / f"{name}.png").stat().st_size > 0
