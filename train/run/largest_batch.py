"""The largest batch that fits a chip's memory, found by compiling."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from train.data import Source
from train.run.plan import RunPlan, build_for, plan_step

__all__ = ["LargestBatch", "largest_batch", "largest_that_fits"]

# The search ends when the batch is known to within this share.
_PRECISION = 1 / 16


class LargestBatch(NamedTuple):
    """The result of a search for the largest batch.

    Attributes:
      fits: the largest batch that was compiled and fits, over all chips; 0 if none.
      exceeds: the smallest that was compiled and does not; 0 if none.
      compilations: number of compilations, without those of the plan.
    """

    fits: int
    exceeds: int
    compilations: int


def largest_batch(
    plan: RunPlan, images: tuple[Source, Source], limit: int = 2**20
) -> LargestBatch:
    """The largest training batch that fits, found as in `largest_that_fits`.

    Each probe is a compilation of the training step, except for the config's own batch.
    The search ends when the batch is known to within a sixteenth, or to within the
    smallest batch that the chips can split.

    Args:
      plan: the run, with its training step.
      images: the images to train and to evaluate on, or stand-ins.
      limit: the largest batch to try, such as the number of training images.
    """
    topology, program, known = plan.topology, plan.program, plan.steps["training"]
    config = program.config
    unit = program.placement.batch_unit(
        config.optimization.gradient_accumulation, config.augment.pairs
    )
    compiled: list[int] = []

    def needs(units: int) -> int | None:
        if units * unit == known.images:
            return known.needs if known.fits else None
        input = dataclasses.replace(config.input, batch_size=units * unit)
        # With a number of steps, since a batch may be larger than the training set.
        steps = config.epoch_steps or 1
        probe = dataclasses.replace(config, input=input, epoch_steps=steps)
        recipe = program.record["recipe"]
        step = plan_step(
            build_for(probe, recipe, topology, images), "training", topology
        )
        compiled.append(step.images)
        return step.needs if step.fits else None

    start = known.images // unit
    most = max(start, limit // unit)
    capacity = int(topology.chip.memory)
    low, high = largest_that_fits(needs, start, most, capacity)
    return LargestBatch(low * unit, high * unit, len(compiled))


def largest_that_fits(
    needs: Callable[[int], int | None],
    start: int,
    most: int,
    capacity: int,
    precision: float = _PRECISION,
) -> tuple[int, int]:
    """The largest size that fits, found with few probes.

    Once two sizes fit, the next one is a linear estimate from the two largest that do:
    a little above it until a size does not fit, then the estimate itself, if it is
    between the largest that fits and the smallest that does not. If it is not, or fewer
    than two fit, it is the middle of these two, or twice the largest while all fit.

    Args:
      needs: what a size needs, about linear in it; None if that is too much.
      start: the first size to try, at least 1.
      most: the largest size to try, at least `start`.
      capacity: what there is.
      precision: the search ends when what fits is within this share of what does not.

    Returns:
      The largest size that fits and the smallest that does not, either 0 if there is
      none.
    """
    fitting: dict[int, int] = {}
    low, high, size = 0, 0, start
    while True:
        needed = needs(size)
        if needed is None:
            high = size
        else:
            low, fitting[size] = size, needed
        if low == most or (high and high - low <= max(1, precision * high)):
            return low, high
        size = min(_next_size(fitting, low, high, capacity), most)


def _next_size(fitting: dict[int, int], low: int, high: int, capacity: int) -> int:
    middle = (low + high) // 2 if high else 2 * low
    if len(fitting) < 2:
        return middle
    (a, at_a), (b, at_b) = sorted(fitting.items())[-2:]
    slope = max((at_b - at_a) / (b - a), 1)
    estimate = int(b + (capacity - at_b) / slope)
    if not high:  # Above the estimate, so that the search gets an upper end.
        return max(low + 1, estimate + 1 + estimate // 32)
    if not low < estimate < high:
        return middle
    return estimate
