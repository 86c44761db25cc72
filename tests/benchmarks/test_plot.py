import pytest

from benchmarks.plot import accuracy, plot_accuracy, points
from train.errors import UserError


def row(model, rate, candidate="ours"):
    name = {"case": model, "candidate": candidate, "model": model}
    return {**name, "images_per_second": rate}


def test_accuracy_is_that_of_the_first_weights_that_state_it():
    # torchvision's IMAGENET1K_V1, as its documentation has it.
    assert accuracy("resnet50") == 76.13
    assert accuracy("resnet50_dcn") is None


def test_points_are_our_models_with_accuracy_and_throughput(tmp_path):
    rows = [
        row("vgg16", 20.0),
        row("resnet50", 40.0),
        row("resnet50", 30.0, "torch eager"),
        row("resnet50_dcn", 10.0),
        {"case": "alexnet", "candidate": "ours", "model": "alexnet", "error": "no"},
    ]
    assert points(rows) == [
        ("resnet", "resnet50", 40.0, 76.13),
        ("vgg", "vgg16", 20.0, accuracy("vgg16")),
    ]
    plot_accuracy(rows, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_without_a_point_there_is_no_picture(tmp_path):
    with pytest.raises(UserError, match="No model was measured"):
        plot_accuracy([row("resnet50_dcn", 1.0)], tmp_path / "a.png")
