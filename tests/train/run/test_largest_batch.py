import dataclasses
import itertools
from types import SimpleNamespace

import pytest

from train.config import Parallelism
from train.errors import UserError
from train.learn.parallel import Placement
from train.run.largest_batch import largest_batch, largest_that_fits


@pytest.mark.parametrize("capacity", [90, 137, 1_000, 54_321])
@pytest.mark.parametrize("start", [1, 7, 64])
@pytest.mark.parametrize("curve", [0.0, 0.002])
def test_the_search_brackets_what_fits(capacity, start, curve):
    def memory(size):
        return 40 + 3 * size + int(curve * size**2)

    tried = []

    def needs(size):
        tried.append(size)
        return memory(size) if memory(size) <= capacity else None

    fits, exceeds = largest_that_fits(needs, start, 10**6, capacity)
    assert memory(fits) <= capacity < memory(exceeds)
    assert exceeds - fits <= max(1, exceeds / 16)
    assert len(tried) == len(set(tried)) <= 14


def test_a_linear_need_takes_four_probes():
    tried = []

    def needs(size):
        tried.append(size)
        return 500 + 10 * size if 500 + 10 * size <= 16_000 else None

    fits, exceeds = largest_that_fits(needs, 100, 10**6, 16_000)
    # 100 and 200 give the line, one probe is above its estimate, one at it.
    assert (fits, exceeds, len(tried)) == (1550, 1599, 4)


def test_nothing_fits_or_everything_does():
    assert largest_that_fits(lambda size: None, 12, 100, 1) == (0, 1)
    assert largest_that_fits(lambda size: size, 12, 100, 10**9) == (100, 0)


@pytest.mark.parametrize("accumulation", [1, 2, 3])
@pytest.mark.parametrize("mixup", [0.0, 0.2])
@pytest.mark.parametrize("model", [1, 2])
def test_every_batch_that_can_be_split_is_among_those_that_are_tried(
    tiny, monkeypatch, accumulation, mixup, model
):
    mesh = f"data={4 // model},model={model}"
    placement = Placement.__new__(Placement)
    placement.parts = 4 // model

    def splits(size):
        try:
            placement.check(size, accumulation, pairs=mixup > 0)
        except UserError:
            return False
        return True

    def build_for(config, *rest):
        assert splits(config.input.batch_size)
        return config

    def plan_step(config, name, topology):
        size, room = config.input.batch_size, topology.chip.memory
        compiled.append(size)
        return SimpleNamespace(images=size, needs=size, fits=size <= room)

    compiled = []
    monkeypatch.setattr("train.run.largest_batch.build_for", build_for)
    monkeypatch.setattr("train.run.largest_batch.plan_step", plan_step)
    config = dataclasses.replace(
        tiny,
        optimization=dataclasses.replace(
            tiny.optimization, gradient_accumulation=accumulation
        ),
        augment=dataclasses.replace(tiny.augment, mixup=mixup),
        parallelism=Parallelism(mesh=mesh),
    )
    first, second, third = itertools.islice(filter(splits, itertools.count(1)), 3)
    # The smallest batch is the run's own, and the next one is the largest that fits.
    topology = SimpleNamespace(chip=SimpleNamespace(memory=second))
    plan = SimpleNamespace(
        topology=topology,
        program=SimpleNamespace(
            config=config, placement=placement, record={"recipe": "tiny"}
        ),
        steps={"training": SimpleNamespace(images=first, needs=first, fits=True)},
    )
    assert largest_batch(plan, (), 1000) == (second, third, len(compiled))
    assert first not in compiled
