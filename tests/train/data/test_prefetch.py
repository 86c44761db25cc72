import itertools
import threading

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.data import prefetch_to_device


def batches(count):
    for i in range(count):
        yield {"image": np.full((4, 2, 2, 1), i, np.uint8), "label": np.arange(4) + i}


def live_threads():
    return [t for t in threading.enumerate() if t.name == "prefetch_to_device"]


def test_batches_are_unchanged_and_in_order():
    found = list(prefetch_to_device(batches(7)))
    assert [int(batch["label"][0]) for batch in found] == list(range(7))
    assert all(isinstance(batch["image"], jax.Array) for batch in found)
    np.testing.assert_array_equal(found[3]["image"], np.full((4, 2, 2, 1), 3))
    assert found[3]["image"].dtype == np.uint8
    assert not live_threads()


def test_batches_go_where_the_sharding_says():
    mesh = Mesh(np.asarray(jax.devices()[:1]), "data")
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    (batch,) = prefetch_to_device(batches(1), sharding)
    assert batch["image"].sharding.is_equivalent_to(sharding, 4)
    (batch,) = prefetch_to_device(batches(1), jax.devices()[0])
    assert batch["label"].devices() == {jax.devices()[0]}


@pytest.mark.parametrize("size", [1, 3])
def test_no_more_batches_are_read_ahead_than_asked_for(size):
    read = []
    enough, more = threading.Event(), threading.Event()

    def counted():
        for i, batch in enumerate(batches(100)):
            read.append(i)
            if i == size + 1:
                enough.set()
            if i == size + 2:
                more.set()
            yield batch

    stream = prefetch_to_device(counted(), size=size)
    next(stream)
    # One is consumed, `size` wait, and the thread holds one.
    assert enough.wait(10)
    assert not more.wait(0.2)
    stream.close()


def test_an_error_is_raised_after_the_batches_before_it():
    def broken():
        yield from batches(2)
        raise OSError("disk gone")

    stream = prefetch_to_device(broken())
    assert len(list(itertools.islice(stream, 2))) == 2
    with pytest.raises(OSError, match="disk gone"):
        next(stream)
    assert not live_threads()


def test_closing_ends_the_thread_and_closes_the_iterator():
    closed = []

    def endless():
        try:
            while True:
                yield from batches(5)
        finally:
            closed.append(True)

    stream = prefetch_to_device(endless())
    next(stream)
    assert live_threads()
    stream.close()
    assert not live_threads()
    assert closed


def test_a_size_below_1_is_refused():
    with pytest.raises(ValueError, match="size 0 must be at least 1"):
        prefetch_to_device(batches(1), size=0)
