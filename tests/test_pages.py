"""README and the site's pages: their code runs, and their commands work."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from skimage import data

import cnn_flax
from benchmarks import fuzz
from benchmarks.flags import parse
from benchmarks.measurements import read
from benchmarks.pages.badges import badges
from benchmarks.pages.folders import MEASUREMENTS, PICTURES
from benchmarks.pages.goals import CPU
from cnn_flax import cli
from tests.support.pages import PAGES, ROOT, blocks, commands
from train.commands.advise import Advise
from train.commands.calibrate import Calibrate
from train.commands.compare import Compare
from train.commands.evaluate import Evaluate
from train.commands.main import main as run_programs
from train.commands.noisy_student import RunNoisyStudent
from train.commands.plan import Plan
from train.commands.predict import Predict
from train.commands.pseudo_label import PseudoLabel
from train.commands.run import Run
from train.commands.search_scaling import SearchScaling

README = (ROOT / "README.md").read_text("utf-8")
WITH_PYTHON = [
    page
    for page in PAGES
    if page != "CONTRIBUTING.md" and any(not b.reason for b in blocks(page, "python"))
]
WITH_COMMANDS = [page for page in PAGES if next(commands(page), None)]
FORMS = (
    *(Advise, Calibrate, Compare, Evaluate, Plan, Predict, PseudoLabel, Run),
    *(RunNoisyStudent, SearchScaling),
)
# A tiny net on few images, appended to the commands of a page that are run.
SMALL = [
    *("--epochs", "1", "--epoch-steps", "1", "--batch-size", "8", "--seed", "1"),
    *("--model", "resnet18", "--model-fields", "width=4", "small_inputs=True"),
    "stage_sizes=(1,)",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder of a page's code: `photos`, `holiday.jpg`."""
    monkeypatch.chdir(tmp_path)
    for name, image in (("cat", data.chelsea()), ("cup", data.coffee())):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            crop = Image.fromarray(image[5 * i : 5 * i + 200, :200]).resize((32, 32))
            crop.save(tmp_path / "photos" / name / f"{i}.png")
    Image.fromarray(data.coffee()).save(tmp_path / "holiday.jpg")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON)
def test_code_runs(page, folder, programs):
    names = {"__name__": page}
    for block in blocks(page, "python"):
        if not block.reason:
            code = compile("\n" * (block.line - 1) + block.text, page, "exec")
            exec(code, names)
    assert folder == Path.cwd()


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_are_understood(page, monkeypatch):
    understood = []
    for form in FORMS:  # Parsed, but not run.
        monkeypatch.setattr(form, "__call__", lambda self: understood.append(self))
    for program, *words in commands(page):
        if program == "cnn-flax" and words[:1] != ["train"]:
            parser, _ = cli._parsers()
            parser.parse_args(words)
        elif program == "cnn-flax" or words[1] == "train":
            rest = words[words.index("train") + 1 :]
            asks = not rest or rest[-1].startswith("--help")
            assert run_programs(rest) == 0, words
            assert asks or understood.pop()
        elif words[1:3] == ["benchmarks", "fuzz"]:
            fuzz._parser().parse_args(words[3:])
        elif words[1] == "benchmarks" and words[2:3] not in (["compare"], ["gpu"]):
            parse(words[2:], "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page, section",
    [
        ("docs/how-to/own-data.md", "# Train on your own images"),
        ("docs/how-to/labels-from-a-model.md", "## Pseudo-labels"),
    ],
)
def test_commands_run_on_few_images(page, section, folder, programs):
    ran = [words[3:] for words in commands(page, section)]
    for words in ran:
        is_recipe = "--epochs" in words or "--labels-per-class" in words
        small = [*SMALL, "--labels-per-class", "4"] if is_recipe else []
        if words[0].startswith("folder_"):
            small += ["--image-size", "16"]
        if "--min-confidence" in words:  # It has hardly learned.
            small += ["--min-confidence", "0"]
        assert run_programs([*words, *small]) == 0, words
    assert len(ran) == 3


@pytest.mark.slow
def test_the_pretrained_prediction_is_what_readme_says(folder, capsys, programs):
    block = next(b for b in blocks("README.md", "bash") if "cnn-flax predict" in b.text)
    lines = block.text.split("\n")
    assert lines[0] == "source .venv/bin/activate" and lines[1].startswith("pip ")
    installed = "\n".join(lines[2:])
    # The shell runs the block, and the program in this process what it is asked to.
    shell = (
        f'cnn-flax() {{ printf "%s\\0" "$@"; }}\npython() {{ {sys.executable} "$@"; }}'
    )
    done = subprocess.run(
        ["bash", "-euc", f"{shell}\n{installed}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert cli.main(done.stdout.split("\0")[:-1]) == 0
    printed = capsys.readouterr().out
    assert "espresso" in printed
    assert "95.11" in printed and "95.11 %" in README


def test_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_readme_has_as_many_models_as_there_are():
    names = cnn_flax.list_models()
    papers = {cnn_flax.model_info(name).paper for name in names}
    assert f"{len(names)} models from {len(papers)} papers" in README


def test_readme_states_measured_speeds():
    goals = {(goal.title, goal.peers): goal for goal in CPU}
    run = {
        name: read(MEASUREMENTS / "performance" / f"{name}.json").rows
        for name in ("xeon/deform_conv", "epyc/augmentation")
    }
    for words, title, form, rows in (
        (
            "{} times as fast as torchvision's kernel",
            "deformable 3x3, forward",
            ".0f",
            0,
        ),
        ("{}\n  times with gradients", "deformable 3x3, with gradients", ".0f", 0),
        ("RandAugment is {} times", "augmentation, rand_augment", ".1f", 1),
        ("rotation {} times", "augmentation, rotate", ".1f", 1),
    ):
        goal = next(g for (name, peers), g in goals.items() if name == title and peers)
        figure = goal.figure(list(run.values())[rows])
        assert words.format(format(figure, form)) in README


def test_badges_say_what_the_project_states():
    for name, picture in badges().items():
        path = PICTURES / "badges" / f"{name}.svg"
        assert path.read_text("utf-8") == picture, "python -m benchmarks.pages.badges"


def test_every_page_is_in_the_navigation():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    made = ["index.md", "contributing.md", "changelog.md", "recipes.md"]
    made += ["cli/cnn-flax.md", "cli/train.md"]
    docs = ROOT / "docs"
    pages = [*docs.rglob("*.md"), *docs.rglob("*.ipynb")]
    written = [str(path.relative_to(docs).with_suffix(".md")) for path in pages]
    assert sorted(leaves(nav)) == sorted([*written, *made])


def leaves(nav):
    """The pages of a navigation."""
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [value] if isinstance(value, str) else leaves(value)
