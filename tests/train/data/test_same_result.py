"""The same images train to the same result, whatever form they are stored in."""

import dataclasses

import numpy as np
import pytest

from train.config import Network, Selection
from train.data import open_source
from train.run.loop import fit
from train.run.metrics import read_metrics

FORMS = ("idx", "folder", "npz", "tfds array_record")
NET = Network("resnet18", {"stage_sizes": (1,), "width": 4, "small_inputs": True})


def by_class(source):
    """Images and labels, class by class: the order of image folders."""
    order = np.argsort(source.labels, kind="stable")
    return source.images[order].squeeze(-1), source.labels[order]


def untimed(line):
    timed = ("seconds", "images_per_second")
    return {name: value for name, value in line.items() if name not in timed}


def trained(config, run, console):
    result = fit(config, run, console=console)
    return [untimed(line) for line in [*read_metrics(run), result]]


@pytest.mark.slow
@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("digits", 0),
        pytest.param(
            *("idx:/usr/share/datasets/fashion-mnist", 300), marks=pytest.mark.long
        ),
    ],
)
def test_every_form_of_a_set_gives_the_same_result(
    spec, count, tiny, tmp_path, write_set, quiet
):
    try:
        train, test = (
            by_class(open_source(spec, split, count=count or None))
            for split in ("train", "test")
        )
    except ValueError:
        pytest.skip(f"{spec} is not installed")
    options = dataclasses.replace(tiny.input, image_size=train[0].shape[1])
    config = dataclasses.replace(tiny, network=NET, epochs=2)
    results = {}
    for form in FORMS:
        data = write_set(form, "0123456789", train, test)
        options = dataclasses.replace(options, data=data)
        # A subset, to check that it is the same one too.
        select = Selection(share=0.5, eval_split="val", val_share=0.2)
        config = dataclasses.replace(config, input=options, selection=select)
        results[form] = trained(config, tmp_path / f"run of {form}", quiet)
    assert results["idx"][-1]["split"] == "val"
    for form in FORMS:
        assert results[form] == results["idx"], form
