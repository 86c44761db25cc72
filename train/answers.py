"""A teacher's answers to the training images, kept on disk in the run's folder.

It is asked once an image, before the first step; what it said is then read with the
image: `RUN/teacher_logits_train.npy`, float `[n, K]`, and the same for `unlabelled`.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train.config import Config
from train.data import BadImages, Source, eval_batches, prefetch_to_device
from train.errors import UserError
from train.images import reading
from train.program import Program
from train.record import pixel_inputs
from train.teacher import ANSWERS, teaching_pass

__all__ = ["with_answers"]


def with_answers(config: Config, program: Program, run: Path) -> Program:
    """The program with the teacher's answers beside its images.

    Args:
      config: of the run, with `cache_teacher`.
      program: of the run; its images expect answers.
      run: its folder.

    Raises:
      BadImagesError: too many images cannot be read.
      UserError: if a file holds answers to other images, by their number.
    """
    assert program.teacher is not None
    inputs = program.record["input"]
    teach = teaching_pass(program.teacher, inputs["mean"], inputs["std"])
    prepare, placement = pixel_inputs(program.record), program.placement
    variables = jax.device_put(program.teacher.variables, placement.whole)
    ask = jax.jit(lambda variables, images: teach(variables, prepare(images))[0])
    options = {
        **program.train_options,
        "batch_size": program.eval_options["batch_size"],
        **reading(config, training=True),
    }

    def kept(source: Source | None, split: str) -> Source | None:
        if source is None:
            return None

        def answers():
            share = config.input.max_bad_share
            # Training names them.
            bad = BadImages(len(source), max_share=share, say=lambda message: None)
            batches = eval_batches(source, **options, bad_images=bad)
            for batch in prefetch_to_device(batches, placement.split):
                yield batch["index"], batch["mask"], ask(variables, batch["image"])

        path = run / f"{ANSWERS}_{split}.npy"
        rows = _kept(path, source.beside[ANSWERS], answers())
        return replace(source, beside={**source.beside, ANSWERS: rows})

    train, unlabelled = (
        kept(program.train, "train"),
        kept(program.unlabelled, "unlabelled"),
    )
    return replace(program, train=train, unlabelled=unlabelled)


def _kept(path: Path, expected: np.ndarray, answers: Iterable[Any]) -> np.ndarray:
    """The rows in a file, which is written first if it is not there: whole, or not."""
    if not path.exists():
        new = path.with_name(f".{path.name}.new")
        rows = np.lib.format.open_memmap(
            new, "w+", dtype=expected.dtype, shape=expected.shape
        )
        for answer in answers:
            index, mask, logits = map(np.asarray, answer)
            rows[index[mask > 0]] = logits[mask > 0]
        rows.flush()
        os.replace(new, path)
    # Mapped: an answer is read when its image is.
    rows = np.load(path, mmap_mode="r")
    if rows.shape != expected.shape:
        raise UserError(
            f"{path} holds answers of shape {list(rows.shape)}, and the images want "
            f"{list(expected.shape)}. Remove it, and the teacher is asked again."
        )
    return rows
