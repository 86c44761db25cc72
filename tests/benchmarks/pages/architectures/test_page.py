import pytest

from benchmarks.pages.architectures import counted, overview, trained
from benchmarks.pages.architectures.experiments import read
from benchmarks.pages.architectures.page import page
from benchmarks.pages.folders import DOCS, PICTURES

PAGE = (DOCS / "architectures.md").read_text()
COMMAND = "python -m benchmarks.pages.architectures"
# The tables of whole nets, with the nets that are counted again here: tests/analysis
# counts them all.
TABLES = {
    (overview, "_MODELS"): ("alexnet_lrn",),
    (counted, "_WHOLE_NETS"): ("resnet34",),
    (counted, "_SENET_ERRORS"): ("resnet50",),
    (counted, "_SCALINGS"): ("B0",),
}


@pytest.mark.slow
def test_the_page_is_what_the_command_writes(monkeypatch):
    left_out = []
    for (module, name), kept in TABLES.items():
        nets = getattr(module, name)
        left_out += [net for net in nets if net not in kept]
        some = {k: nets[k] for k in kept} if isinstance(nets, dict) else kept
        monkeypatch.setattr(module, name, some)
    written = page().splitlines()
    rows = [line for line in PAGE.splitlines() if line not in written]
    assert [row.split("|")[1].strip(" `") for row in rows] == left_out, (
        f"docs/architectures.md: make it again with `{COMMAND}`."
    )
    assert written == [line for line in PAGE.splitlines() if line not in rows]


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
