"""A published folder is what timm and we read back."""

import json
import logging

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import cnn_flax
from cnn_flax.cli import main
from cnn_flax.publish.timm_form import timm_form
from cnn_flax.weights.convert import to_dialect
from cnn_flax.weights.identify import identify_weights
from cnn_flax.weights.native import write
from cnn_flax.weights.variables import flatten, variable_shapes
from tests.support.small_weights import random_variables, save_run

pytestmark = pytest.mark.usefixtures("programs")

RESULT = {
    "accuracy": 0.912,
    "top5_accuracy": 0.99,
    "loss": 0.31,
    "classes": 5,
    "test_images": 1200,
    "split": "test",
}


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A run of a ResNet of our own width, which timm does not have."""
    folder = tmp_path_factory.mktemp("small") / "run"
    save_run(folder, random_variables(), steps=(1,))
    (folder / "result.json").write_text(json.dumps(RESULT))
    return folder


def push(capsys, *words):
    code = main(["push", *map(str, words)])
    out, err = capsys.readouterr()
    assert code == (2 if err else 0)
    assert err.count("\n") <= 1
    return err or out


def test_a_net_of_our_own_comes_back_by_its_folder(small_run, tmp_path, capsys):
    folder = tmp_path / "hub"
    printed = push(capsys, small_run, "--to", folder, "--license", "cc-by-4.0")
    assert "resnet18; cnn_flax reads it" in printed
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    model, variables = cnn_flax.load_pretrained("resnet18", folder)
    original, expected = cnn_flax.load_pretrained("resnet18", small_run)
    assert model.width == original.width == 8
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    found, of_run = (identify_weights("resnet18", x) for x in (folder, small_run))
    for field in ("image_size", "resize", "crop_mode", "interpolation"):
        assert getattr(found, field) == getattr(of_run, field), field
    assert (found.mean, found.std) == ((0.5,) * 3, (0.5,) * 3)


def test_the_card_has_figures_licence_and_preparation(small_run, tmp_path, capsys):
    words = ("--to", tmp_path / "hub", "--license", "cc-by-4.0")
    push(capsys, small_run, *words)
    head, _, card = (tmp_path / "hub/README.md").read_text()[4:].partition("\n---\n")
    assert "license: cc-by-4.0" in head.split("\n")
    assert "library_name: cnn_flax" in head.split("\n")
    assert "| accuracy | 91.20% |" in card and "| images | 1,200 |" in card
    assert "top-5" not in card  # Of five classes.
    assert "short side resized to 18 px (bilinear), the central 16 x 16 px" in card
    assert "0 a, 1 b, 2 c, 3 d, 4 e" in card


def test_a_folder_is_predicted_with_its_names(small_run, tmp_path, capsys):
    push(capsys, small_run, "--to", tmp_path / "hub", "--license", "mit")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "dark.png")
    words = ("resnet18", tmp_path / "dark.png", "--weights", tmp_path / "hub")
    assert main(["predict", *map(str, words)]) == 0
    printed = capsys.readouterr().out
    names = [line.split("│")[2].strip() for line in printed.splitlines() if "%" in line]
    assert sorted(names) == list("abcde")


def timm_reads(folder):
    """timm's rules: `timm/models/_hub.py`, `load_model_config_from_path` of 1.0.31."""
    config = json.loads((folder / "config.json").read_text())
    images = config["pretrained_cfg"]
    images["num_classes"] = config["num_classes"]
    if "label_names" in config:
        images["label_names"] = config.pop("label_names")
    arrays = load_file(folder / "model.safetensors")
    return config["architecture"], images, config.get("model_args", {}), arrays


def test_a_net_of_timm_has_its_form(tmp_path, capsys):
    rng = np.random.default_rng(0)
    shapes = variable_shapes("resnet18", {"num_classes": 7}, 1)
    flat = {k: rng.random(x.shape, np.float32) for k, x in shapes.items()}
    write(tmp_path / "net.safetensors", flat, {"model": "resnet18"})
    words = ("--to", tmp_path / "hub", "--license", "mit")
    assert "timm and cnn_flax read" in push(
        capsys, tmp_path / "net.safetensors", *words
    )
    name, images, arguments, arrays = timm_reads(tmp_path / "hub")
    assert (name, arguments) == ("resnet18", {"in_chans": 1})
    assert images["input_size"] == [1, 224, 224]
    assert (images["num_classes"], images["classifier"]) == (7, "fc")
    assert images["first_conv"] == "conv1"
    assert arrays["fc.weight"].shape == (7, 512)
    np.testing.assert_array_equal(
        arrays["conv1.weight"], flat["params/conv1/conv/kernel"].transpose(3, 2, 0, 1)
    )
    assert len(arrays) == len(flat)
    _, variables = cnn_flax.load_pretrained("resnet18", tmp_path / "hub")
    jax.tree.map(np.testing.assert_array_equal, flatten(variables), flat)


# As `timm.create_model(name)` of 1.0.31 names the first convolution and the head.
FORMS = {
    "densenet121": ("features.conv0", "classifier"),
    "legacy_seresnet18": ("layer0.conv1", "last_linear"),
    "resnet18d": ("conv1.0", "fc"),
    "resnext50_32x4d": ("conv1", "fc"),
    "tf_efficientnet_b0": ("conv_stem", "classifier"),
    "vgg11": ("features.0", "head.fc"),
    "wide_resnet50_2": ("conv1", "fc"),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_head_and_the_first_convolution_are_where_timm_has_them(name):
    form = timm_form(name, {})
    assert form is not None
    assert (form.first_conv, form.classifier) == FORMS[name]
    head = {"kernel": np.ones((4, 3), np.float32), "bias": np.ones(3, np.float32)}
    if name.startswith("vgg"):  # A convolution.
        head["kernel"] = head["kernel"][None, None]
    arrays = to_dialect(form.dialect, {"params": {"head": head}})
    assert set(arrays) == {f"{form.classifier}.{x}" for x in ("weight", "bias")}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("alexnet", {}),
        ("googlenet", {}),
        ("mobilenet_v2", {}),
        ("resnet50_dcnv2", {}),
        ("lab_resnet34", {}),
        ("resnet18", {"width": 32}),
        ("resnet50", {"stride_in_1x1": True}),
        ("efficientnet_b5", {}),  # torchvision's epsilon.
    ],
)
def test_a_net_that_timm_does_not_compute_has_no_form(name, fields):
    assert timm_form(name, fields) is None


def test_the_epsilon_of_timm_is_its_form():
    assert timm_form("efficientnet_b5", {"bn_epsilon": 1e-5}) is not None


def test_timms_own_folders_say_how_images_are_prepared(tmp_path):
    # A folder as `timm.models.save_for_hf` writes it, of a net trained by a user.
    shapes = variable_shapes("resnet18", {"num_classes": 4})
    variables = {k: np.ones(x.shape, np.float32) for k, x in shapes.items()}
    write(tmp_path / "model.safetensors", variables, {})
    images = {
        "input_size": [3, 160, 160],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "crop_pct": 0.8,
        "crop_mode": "squash",
        "interpolation": "bicubic",
    }
    config = {"architecture": "resnet18", "num_classes": 4, "pretrained_cfg": images}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = identify_weights(None, tmp_path)
    assert (found.name, found.image_size, found.resize) == ("resnet18", 160, 200)
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (found.crop_mode, found.interpolation) == ("squash", "bicubic")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}"], "Name a repository, --repo owner/name, or a folder, --to"),
        (["{run}", "--to", "{new}"], "--license names it"),
        (["{run}", "--to", "{run}", "--license", "mit"], "is no empty folder"),
        (["{run}", "--repo", "digits", "--license", "mit"], "owner/name, got 'digits'"),
        (["nowhere", "--to", "{new}"], "There is no file or folder nowhere"),
    ],
)
def test_what_cannot_be_done_is_said(words, message, small_run, tmp_path, capsys):
    new = tmp_path / "new"
    words = [word.format(run=small_run, new=new) for word in words]
    assert message in push(capsys, *words)
    assert not new.exists()


def test_a_damaged_result_is_said(tmp_path, capsys):
    run = save_run(tmp_path / "run", random_variables(), steps=(1,))
    (run / "result.json").write_text("{")
    words = (run, "--to", tmp_path / "new", "--license", "mit")
    assert "result.json cannot be read" in push(capsys, *words)


def test_nothing_is_logged_about_the_folder(small_run, tmp_path, capsys, caplog):
    push(capsys, small_run, "--to", tmp_path / "hub", "--license", "mit")
    with caplog.at_level(logging.WARNING):
        cnn_flax.load_pretrained("resnet18", tmp_path / "hub")
    assert not caplog.records
