import json

from benchmarks.pages.folders import DOCS, MEASUREMENTS
from benchmarks.pages.scale import replace_section, section

RECORD = {
    "recipe": "imagenet_resnet50",
    "model": "resnet50",
    "topology": "v5e:2x4",
    "chips": 8,
    "image_size": 224,
    "steps": {
        "training": {
            "images": 2048,
            "needs": 9_500_000_000,
            "cost": {
                "temporaries": 9_200_000_000,
                "flops": 6.16e12,
                "traffic": 1.025e11,
                "collectives": [
                    {"kind": "all-gather", "count": 1, "bytes": 1_000_000},
                    {"kind": "all-reduce", "count": 160, "bytes": 51_500_000},
                ],
            },
            "roofline": {
                "compute": 0.0313,
                "memory": 0.1252,
                "links": 0.0009,
                "seconds": 0.1252,
            },
        }
    },
    "versions": {"jax": "1.2", "libtpu": "3.4"},
    "date": "2026-11-30",
}


def test_a_row_has_the_figures_of_a_chip():
    other = RECORD | {"recipe": "digits_resnet", "model": "resnet18"}
    text = section([RECORD | {"image_size": 32}, RECORD, other])
    row = (
        "| `resnet50` | 224 | 8 | 256 | 9.50 | 9.20 | 6.16 | 102.5 | 161 | 52.5 "
        "| 31.30 | 125.20 | 0.90 | 125.2 | 16,358 |"
    )
    assert row in text
    # The last measurement counts, and another recipe's has no row.
    assert text.count("| `resnet") == 1
    assert "2026-11-30, JAX 1.2, libtpu 3.4" in text


def test_a_net_that_does_not_fit_says_so():
    step = RECORD["steps"]["training"] | {"cost": None, "roofline": None}
    text = section([RECORD | {"steps": {"training": step}}])
    assert "| `resnet50` | 224 | 8 | 256 | does not fit |" in text
    step = RECORD["steps"]["training"] | {"roofline": None}
    text = section([RECORD | {"steps": {"training": step}}])
    assert "| 8 | 256 | 9.50 |" in text
    assert "| 52.5 |  |  |  | does not fit |  |" in text


def test_other_sections_of_the_page_stay():
    before = "# Title\n\nText.\n\n## Before\n\nOne.\n\n"
    page = f"{before}## Mine\n\nOld.\n\n### Sub\n\n## Z\n\n2.\n"
    new = replace_section(page, "## Mine\n\nNew \\1.\n")
    assert new == (
        "# Title\n\nText.\n\n## Before\n\nOne.\n\n## Mine\n\nNew \\1.\n\n## Z\n\n2.\n"
    )
    assert replace_section(new, "## Mine\n\nNew \\1.\n") == new
    assert replace_section("# Title\n", "## Mine\n\nNew.\n") == (
        "# Title\n\n## Mine\n\nNew.\n"
    )


def test_the_page_is_what_the_program_writes():
    lines = (MEASUREMENTS / "plan.jsonl").read_text("utf-8").splitlines()
    page = (DOCS / "scale.md").read_text("utf-8")
    assert replace_section(page, section([json.loads(line) for line in lines])) == page


def test_a_net_with_rematerialized_stages_says_so():
    text = section([RECORD | {"remat": "stage"}])
    assert "| `resnet50` `--remat stage` | 224 | 8 |" in text
