import pytest

from benchmarks.pages.architectures import counted, trained
from benchmarks.pages.architectures.experiments import read
from benchmarks.pages.architectures.page import page
from benchmarks.pages.folders import DOCS, PICTURES

PAGE = (DOCS / "architectures.md").read_text()
COMMAND = "python -m benchmarks.pages.architectures"


@pytest.mark.long
@pytest.mark.slow
def test_the_page_is_what_the_command_writes():
    assert page() == PAGE, f"docs/architectures.md: make it again with `{COMMAND}`."


ROWS = read()


@pytest.mark.parametrize(
    "section",
    [
        counted.small_kernels,
        counted.inception,
        lambda: trained.setting([row for rows in ROWS.values() for row in rows]),
        lambda: trained.norm(ROWS["norm"]),
        lambda: trained.depth(ROWS["depth"]),
        lambda: trained.deform(ROWS["deform"]),
    ],
    ids=["small_kernels", "inception", "setting", "norm", "depth", "deform"],
)
def test_a_section_is_what_the_command_writes(section):
    assert section() in PAGE, f"docs/architectures.md: make it again with `{COMMAND}`."


def test_the_pages_pictures_are_there():
    for name in ("plain_and_residual", "accuracy_and_cost"):
        assert f"(pictures/{name}.png)" in PAGE
        assert (PICTURES / f"{name}.png").stat().st_size > 0
