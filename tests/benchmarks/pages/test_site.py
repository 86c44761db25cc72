import argparse

from benchmarks.pages.site.cli import arguments, library_page
from benchmarks.pages.site.recipes import recipe_section
from benchmarks.pages.site.stage import from_root, without_links_out
from train import recipes


def test_links_of_the_root_are_seen_from_the_site():
    text = (
        "[a](docs/scale.md#hosts) ![b](docs/pictures/b.png) [c](CHANGELOG.md) [d](x.y)"
    )
    seen = "[a](scale.md#hosts) ![b](pictures/b.png) [c](changelog.md) [d](../x.y)"
    assert from_root(text) == seen
    assert from_root("[a](https://b.c/docs/d)") == "[a](https://b.c/docs/d)"


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
