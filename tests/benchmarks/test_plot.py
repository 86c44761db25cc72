import pytest

from benchmarks.plot import Point, accuracy, draw_models, front, plot_accuracy, points
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


def test_the_front_holds_what_no_other_model_beats():
    models = [
        Point("a", "slow and good", 1, 80),
        Point("a", "slower and worse", 0.5, 70),
        Point("b", "middle", 2, 75),
        Point("b", "as fast and worse", 2, 74),
        Point("b", "fast", 9, 60),
    ]
    assert [p.name for p in front(models)] == ["slow and good", "middle", "fast"]
    cheapest = front(models, lower_is_better=True)
    assert [p.name for p in cheapest] == ["slow and good", "slower and worse"]


def test_the_title_names_device_and_batch_and_the_front_is_bold(tmp_path, monkeypatch):
    rows = [
        {**row("vgg16", 20.0), "case": "vgg16, batch 16, 224 px, float32"},
        {**row("resnet50", 40.0), "case": "resnet50, batch 16, 299 px, float32"},
    ]
    drawn = []
    monkeypatch.setattr(
        "benchmarks.plot.draw_models",
        lambda *arguments: drawn.append(draw_models(*arguments)) or drawn[0],
    )
    plot_accuracy(rows, tmp_path / "a.png", {"processor": "A $CPU$", "device": "cpu"})
    title = drawn[0].get_suptitle()
    assert title.splitlines()[1] == "A $CPU$, batch 16, float32"
    weights = {t.get_text(): t.get_weight() for t in drawn[0].axes[0].texts}
    assert weights == {"resnet50": "bold", "vgg16": "normal"}
