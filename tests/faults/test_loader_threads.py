"""Errors in the threads that read images which are not the image's."""

import dataclasses

import numpy as np
import pytest

from train.__main__ import main
from train.data import SourceError, eval_batches, train_batches
from train.data.source import array_source
from train.errors import UserError
from train.run import inference

OPTIONS = {"batch_size": 4, "image_size": 8, "channels": 1, "threads": 2}


def source(error, bad=5):
    """Nine images, of which one cannot be read for this reason."""
    images = np.zeros((9, 6, 6, 1), np.uint8)
    whole = array_source("digits", images, np.zeros(9, int), ("a",), "image {}".format)

    def example(index, target_side):
        if index == bad:
            raise error
        return whole.example(index, target_side)

    return dataclasses.replace(whole, example=example)


@pytest.mark.parametrize("batches", [eval_batches, train_batches])
@pytest.mark.parametrize(
    "error", [RuntimeError("no decoder"), MemoryError(), RecursionError("too deep")]
)
def test_the_error_names_the_image(batches, error):
    options = {**OPTIONS, "seed": 0} if batches is train_batches else OPTIONS
    with pytest.raises(
        SourceError, match=r"^image 5 could not be read because of an error"
    ) as e:
        for _, _ in zip(range(3), batches(source(error), **options), strict=False):
            pass
    message = str(e.value)
    assert type(error).__name__ in message and len(message.splitlines()) == 1
    assert e.value.__cause__ is error


def test_our_own_errors_pass_unchanged():
    with pytest.raises(UserError, match="^of our own"):
        list(eval_batches(source(UserError("of our own")), **OPTIONS))


def test_columns_that_cannot_be_read_name_the_set():
    class Rows:
        shape, dtype = (9, 2), np.dtype(np.float32)

        def __getitem__(self, indices):
            raise OSError(5, "Input/output error")

    images = source(KeyError(), bad=-1).with_columns(features=Rows())
    with pytest.raises(SourceError, match="digits could not be read .*Input/output"):
        list(eval_batches(images, **OPTIONS))


@pytest.mark.parametrize("debug", [False, True])
def test_programs_show_tracebacks_only_with_debug(tmp_path, monkeypatch, capsys, debug):
    def evaluate_run(*arguments, **options):
        return list(eval_batches(source(RuntimeError("no decoder")), **OPTIONS))

    monkeypatch.setattr(inference, "evaluate_run", evaluate_run)
    assert main(["evaluate", str(tmp_path), *["--debug"] * debug]) == 2
    shown = capsys.readouterr().err
    assert "image 5 could not be read" in " ".join(shown.split())
    assert ("Traceback" in shown) == debug
    assert ("raise error" in shown) == debug
