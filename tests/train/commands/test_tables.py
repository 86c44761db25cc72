"""The tables that commands print."""

import csv
import io
import json
from pathlib import Path

import numpy as np
from rich.console import Console

from train.api.evaluation import evaluation_table
from train.api.labelling import pseudo_label_table
from train.api.prediction import prediction_table
from train.api.prediction_formats import as_csv, as_json
from train.api.training import result_table
from train.commands.compare import comparison_table
from train.data import open_source
from train.data.pseudo_label_file import PseudoLabels
from train.run.evaluation import Evaluation

FOUR = Evaluation(
    index=np.arange(4),
    label=np.array([0, 0, 0, 1]),
    prediction=np.array([0, 0, 1, 1]),
    confidence=np.ones(4),
    rank=np.array([0, 0, 1, 0]),
    loss=np.ones(4),
)


def test_a_result_shows_every_figure():
    result = {
        "loss": 0.5,
        "accuracy": 0.98765,
        "top5_accuracy": 1.0,
        "split": "test",
        "classes": 10,
        "test_images": 10_000,
        "unreadable_images": 2,
        "parameters": 11_173_962,
        "epochs": 2,
        "steps": 936,
        "seconds": 3725.4,
        "images_per_second": 1234.5,
    }
    text = shown(result_table(Path("runs/x"), result))
    for part in ("98.77 %", "100.00 %", "10,000", "11,173,962", "1:02:05", "1,234"):
        assert part in text
    assert "unreadable" in text
    assert "unreadable" not in shown(
        result_table(Path("runs/x"), {**result, "unreadable_images": 0})
    )
    assert "top-5" not in shown(result_table(Path("x"), {**result, "classes": 5}))


def test_an_evaluation_shows_each_class():
    ranges = {"accuracy": (0.25, 1.0), "loss": (0.5, 1.25)}
    text = shown(evaluation_table("title", FOUR, ["cat", "dog", "[emu]"], ranges))
    rows = [line.split("│")[1:5] for line in text.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert ["accuracy", "75.00 %", "25.00 to 100.00", "4"] in cells
    assert [cell for cell in cells if cell[0] == "loss"][0][2] == "0.5000 to 1.2500"
    assert ["calibration error", "25.00 %", "", "4"] in cells
    assert ["cat", "66.67 %", "", "3"] in cells
    assert ["dog", "100.00 %", "", "1"] in cells
    assert ["[emu]", "", "", "0"] in cells


def test_a_comparison_has_one_row_per_run():
    record = {"model": {"name": "resnet18"}, "config": {"epochs": 3}}
    lines = [
        {"split": "train", "epoch": 0.5, "loss": 3.0, "accuracy": 0.1},
        {"split": "val", "epoch": 1.0, "loss": 1.0, "accuracy": 0.75},
        {"split": "val", "epoch": 2.0, "loss": 2.0, "accuracy": 0.5},
    ]
    text = shown(comparison_table({"[a]": (record, lines), "b": (record, [])}))
    rows = [line.split("│")[1:-1] for line in text.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    best = "75.00 % (epoch 1)"
    assert ["[a]", "resnet18", "2 of 3", "2.0000", "50.00 %", best] in cells
    assert ["b", "resnet18", "0 of 3", "", "", ""] in cells


def test_a_prediction_shows_the_five_most_probable_classes():
    probabilities = np.array([[0.05, 0.5, 0.1, 0.2, 0.01, 0.14]])
    names = ["[a]", "[b]", "[c]", "[d]", "[e]", "[f]"]
    text = shown(prediction_table([Path("[x].png")], probabilities, names))
    order = [text.index(name) for name in ("[x].png", "[b]", "[d]", "[f]", "[c]")]
    assert order == sorted(order)
    assert "[a]" in text and "[e]" not in text
    assert "50.00 %" in text


def test_a_prediction_as_json_and_csv_says_the_same():
    probabilities = np.array([[0.25, 0.5, 0.25], [0.1, 0.2, 0.7]])
    paths = [Path("a,b.png"), Path("c.png")]
    predictions = paths, probabilities, ["x", "y", "z"], 2
    found = json.loads(as_json(*predictions))
    assert [image["image"] for image in found] == ["a,b.png", "c.png"]
    rows = [
        [image["image"], str(rank), of["class"], f"{of['probability']:.6f}"]
        for image in found
        for rank, of in enumerate(image["classes"], 1)
    ]
    assert rows[:2] == [
        ["a,b.png", "1", "y", "0.500000"],
        ["a,b.png", "2", "x", "0.250000"],
    ]
    head = ["image", "rank", "class", "probability"]
    assert list(csv.reader(as_csv(*predictions).splitlines())) == [head, *rows]


def pseudo_labels(probabilities, names):
    probabilities = np.asarray(probabilities, np.float32)
    readable = ~np.isnan(probabilities[:, 0])
    return PseudoLabels(probabilities, readable, {"class_names": names})


def rows(text):
    """Cells of a table's rows, without borders and bars."""
    lines = (line.replace("│", "|").split("|") for line in text.splitlines())
    cells = ([cell.strip() for cell in line if cell.strip(" █")] for line in lines)
    return [row for row in cells if row and row[0][0].isalnum()]


def test_pseudo_labels_show_confidence_class_balance_and_accuracy():
    source = open_source("digits").take(np.arange(4))
    k, other = source.labels[:2].tolist()
    assert k != other
    probabilities = np.zeros((4, 10))
    probabilities[0, [k, other]] = [0.95, 0.05]
    probabilities[1, [k, other]] = [0.6, 0.4]
    probabilities[2] = np.nan
    probabilities[3, source.labels[3]] = 1
    expected = np.bincount([k, k, source.labels[3]], minlength=10)
    names = list(source.class_names)
    table = pseudo_label_table("digits", pseudo_labels(probabilities, names), source)
    found = {row[0]: row[1:] for row in rows(shown(table))}
    assert found["all"] == ["3", "100.00 %", "66.67 %"]
    assert found["unreadable"] == ["1"]
    assert found["confidence 0.9 to 1"] == ["2", "66.67 %", "100.00 %"]
    assert found["confidence 0.5 to 0.6"] == ["1", "33.33 %", "0.00 %"]
    assert sum(name.startswith("confidence") for name in found) == 2
    counts = [int(found[name][0]) for name in names]
    assert counts == expected.tolist()


def test_without_true_labels_there_is_no_accuracy_and_few_of_many_classes_show():
    source = open_source("digits").take(np.arange(50))
    names = [f"class{k}" for k in range(25)]
    probabilities = np.repeat(np.eye(25), 2, axis=0)
    probabilities[0] = probabilities[-1]
    table = pseudo_label_table("digits", pseudo_labels(probabilities, names), source)
    text = shown(table)
    assert "accuracy" not in text and "5 more classes" in text
    classes = [row for row in rows(text) if row[0].startswith("class")]
    assert classes[0][:2] == ["class24", "3"] and classes[-1][:2] == ["class0", "1"]
    assert len(classes) == 20


def shown(*renderables):
    console = Console(file=io.StringIO(), width=120)
    console.print(*renderables)
    return console.file.getvalue()  # pyright: ignore
