import json
from pathlib import Path

import pytest

import cnn_flax
from benchmarks.pages.folders import DOCS
from benchmarks.pages.models import counted
from benchmarks.pages.models.page import (
    FAMILIES,
    family_page,
    overview_page,
    readme_table,
)

FOLDER = DOCS / "models"
COMMAND = "python -m benchmarks.pages.models"


def test_the_pages_are_what_the_command_writes():
    counts = counted.counted()
    assert (FOLDER / "index.md").read_text("utf-8") == overview_page(counts), COMMAND
    for family in FAMILIES:
        text = (FOLDER / f"{family}.md").read_text("utf-8")
        assert text == family_page(family, counts), COMMAND


def test_every_model_is_counted_and_readme_has_the_families():
    counts = counted.counted()
    assert sorted(counts) == cnn_flax.list_models(), f"{COMMAND} --measure MODEL"
    assert readme_table(counts) in (DOCS.parent / "README.md").read_text("utf-8")


def test_every_model_and_all_of_its_weights_are_on_the_page_of_its_family():
    pages = {family: family_page(family, {}) for family in FAMILIES}
    for name in cnn_flax.list_models():
        info = cnn_flax.model_info(name)
        page = pages[info.family]
        assert f"`{name}`" in page
        for weights in info.weights:
            assert f"[{weights.source}]" in page
            if weights.imagenet_top1 is not None:
                assert f"{weights.imagenet_top1:.1f} %" in page


def test_counted_parameters_are_the_references():
    path = Path(__file__).parents[2] / "reference" / "parameter_counts.json"
    reference = {}
    for part in json.loads(path.read_text("utf-8")):
        reference |= part["parameters"]
    with_heads = {"googlenet", "googlenet_lrn"}  # Auxiliary heads, which are left out.
    for name, row in counted.counted().items():
        if name in reference and name not in with_heads:
            assert row["parameters"] == reference[name]


@pytest.mark.slow
def test_a_model_is_counted_from_its_traced_program():
    row = counted.count("alexnet")
    assert row["parameters"] == 61_100_840  # torchvision's
    # By hand: 11/4, pool 3/2, 5, pool 3/2, three times 3, pool 3/2.
    size, stride = 1, 1
    for kernel, step in ((11, 4), (3, 2), (5, 1), (3, 2), *[(3, 1)] * 3, (3, 2)):
        size, stride = size + (kernel - 1) * stride, stride * step
    assert row["receptive_field"] == (size, size)
    written = counted.counted()["alexnet"]
    assert {key: written[key] for key in row} == {
        **row,
        "receptive_field": list(row["receptive_field"]),
    }
