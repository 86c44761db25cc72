"""On-disk cache of a teacher's logits for the training images.

The teacher runs once per image, before the first step; its logits are then read with
the image from `RUN/teacher_logits_train.npy`, float `[n, K]`, and
`RUN/teacher_logits_unlabelled.npy`.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax

from train.data import BadImages, Source, eval_batches, prefetch_to_device
from train.data.select import decode_options
from train.learn.teacher import TEACHER_LOGITS, teacher_pass
from train.run.output_cache import cache_key, cached_rows, output_rows
from train.run.program import Program
from train.run.record import pixel_inputs

__all__ = ["with_teacher_logits"]


def with_teacher_logits(program: Program, run: Path) -> Program:
    """Adds the teacher's logits to a program's images, as a column.

    Args:
      program: the program of a run with `cache_teacher`; its images have room for them.
      run: the run's folder.

    Raises:
      BadImagesError: if too many images cannot be read.
      UserError: if a file is of another teacher or of other images.
    """
    assert program.teacher is not None
    config, inputs = program.config, program.record["input"]
    teach = teacher_pass(program.teacher, inputs["mean"], inputs["std"])
    prepare, placement = pixel_inputs(program.record), program.placement
    teacher = jax.device_get(program.teacher.variables)
    variables = placement.replicate(teacher)
    step = jax.jit(lambda variables, images: teach(variables, prepare(images))[0])
    options = program.train_batch._replace(batch_size=program.eval_batch.batch_size)

    def cached(source: Source, split: str) -> Source:
        # Training reports unreadable images, so they are not reported here as well.
        bad = BadImages(
            len(source), max_share=config.input.max_bad_share, say=lambda message: None
        )
        batches = eval_batches(
            source,
            **options._asdict(),
            **program.process,
            **decode_options(config, training=True),
            bad_images=bad,
        )
        on_device = prefetch_to_device(batches, placement.sharded)
        rows = output_rows(partial(step, variables), on_device, placement)
        path = run / f"{TEACHER_LOGITS}_{split}.npy"
        key = cache_key(teacher, source, options._asdict(), inputs)
        logits = cached_rows(path, source.columns[TEACHER_LOGITS], rows, key)
        return source.with_columns(**{TEACHER_LOGITS: logits})

    program = replace(program, train=cached(program.train, "train"))
    if program.unlabelled is None:
        return program
    return replace(program, unlabelled=cached(program.unlabelled, "unlabelled"))
