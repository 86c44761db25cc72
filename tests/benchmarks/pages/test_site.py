import argparse
import json
import re

import pytest

from benchmarks.pages.site.cli import arguments, library_page
from benchmarks.pages.site.recipes import recipe_section
from benchmarks.pages.site.stage import (
    convert_notebook,
    from_root,
    to_staged_pages,
    without_links_out,
)
from tests.support.pages import PAGES, ROOT
from train import recipes


def test_links_of_the_root_are_seen_from_the_site():
    text = (
        "[a](docs/scale.md#hosts) ![b](docs/pictures/b.png) [c](CHANGELOG.md) [d](x.y)"
    )
    seen = "[a](scale.md#hosts) ![b](pictures/b.png) [c](changelog.md) [d](../x.y)"
    assert from_root(text) == seen
    assert from_root("[a](https://b.c/docs/d)") == "[a](https://b.c/docs/d)"


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_to_files_of_the_repository(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
    found = re.findall(r"""\]\(([^)\s#]+)|(?:src|href)="([^"#]+)""", text)
    targets = [path for pair in found for path in pair if path and ":" not in path]
    folder = (ROOT / page).parent
    assert [path for path in targets if not (folder / path).exists()] == []


def test_links_to_what_pages_are_made_from_lead_to_the_pages():
    text = (
        "[a](../../CONTRIBUTING.md#rules) [b](../../train/config.py) [c](../scale.md) "
        "[d](../../train/recipes) [e](https://f.g/README.md) [h](../../README.md)"
    )
    staged = (
        "[a](../contributing.md#rules) [b](../cli/train.md#recipe) [c](../scale.md) "
        "[d](../recipes.md) [e](https://f.g/README.md) [h](../index.md)"
    )
    assert to_staged_pages(text, "how-to/x.md") == staged
    assert to_staged_pages("[a](../train/config.py)", "y.md") == (
        "[a](cli/train.md#recipe)"
    )


def test_links_to_files_that_the_site_does_not_have_are_plain():
    text = "[a](../../LICENSE) [b](../measurements/b.json) [c](../scale.md) [d](#e)"
    plain = "a b [c](../scale.md) [d](#e)"
    assert without_links_out(text, "models/x.md") == plain


def test_a_flag_has_its_value_default_and_meaning():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", metavar="PX", help="of images\n (default: 8)")
    parser.add_argument("--fast", action="store_true", help="skip a | b")
    assert dict(arguments(parser)) == {
        "--size": ["`--size PX`", "`8`", "of images"],
        "--fast": ["`--fast`", "", "skip a \\| b"],
    }


def test_every_command_of_the_library_has_a_section():
    page = library_page()
    for name in ("list", "info", "summary", "convert", "predict", "gallery"):
        assert f"\n## {name}\n" in page
    assert "`--top N`" in page


def test_commands_in_a_recipe_are_blocks_for_a_shell():
    section = recipe_section(recipes.load("digits_efficientnet"))
    command = "python -m train search-scaling digits_efficientnet --out runs/scaling\n"
    assert f"\n{command}```\n" in section
    assert "```text\ndepth 1.0  width 1.0" in section


@pytest.mark.slow
def test_a_notebook_becomes_a_page_with_its_outputs(tmp_path):
    pytest.importorskip("nbconvert")
    pixel = (
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQ=="
    )
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Title"},
        {
            "cell_type": "code",
            "id": "b",
            "metadata": {},
            "source": "1 + 1",
            "execution_count": 1,
            "outputs": [
                {
                    "output_type": "display_data",
                    "metadata": {},
                    "data": {"image/png": pixel},
                }
            ],
        },
    ]
    about = {"language_info": {"name": "python"}}
    notebook = {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
    path = tmp_path / "one.ipynb"
    path.write_text(json.dumps(notebook))
    convert_notebook(path)
    page = (tmp_path / "one.md").read_text()
    assert page.startswith("# Title\n") and "```python\n1 + 1\n```" in page
    (picture,) = tmp_path.rglob("*.png")
    assert f"({picture.relative_to(tmp_path)})" in page
    assert not path.exists()
