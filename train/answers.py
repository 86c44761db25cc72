"""A teacher's answers to the training images, kept on disk in the run's folder.

It is asked once an image, before the first step; what it said is then read with the
image: `RUN/teacher_logits_train.npy`, float `[n, K]`, and the same for `unlabelled`.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax

from train.config import Config
from train.data import BadImages, Source, eval_batches, prefetch_to_device
from train.images import reading
from train.kept import kept_rows, rows_of
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
        share = config.input.max_bad_share
        # Training names them.
        bad = BadImages(len(source), max_share=share, say=lambda message: None)
        batches = eval_batches(source, **options, bad_images=bad)
        on_device = prefetch_to_device(batches, placement.split)
        found = rows_of(partial(ask, variables), on_device)
        path = run / f"{ANSWERS}_{split}.npy"
        rows = kept_rows(path, source.beside[ANSWERS], found)
        return replace(source, beside={**source.beside, ANSWERS: rows})

    train, unlabelled = (
        kept(program.train, "train"),
        kept(program.unlabelled, "unlabelled"),
    )
    return replace(program, train=train, unlabelled=unlabelled)
