from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from tests.support.devices import on_four_devices
from train.errors import UserError
from train.learn.parallel import Placement, choose_devices, compile_step


def test_a_compiled_step_refuses_other_shapes():
    placement = Placement()
    arguments = placement.shapes((jnp.zeros(4),), placement.sharded)
    step = compile_step(lambda x: 2 * x, arguments, out=placement.sharded)
    assert (step(jnp.ones(4)) == 2).all()
    with pytest.raises(TypeError, match="differ from the types"):
        step(jnp.ones(5))


def test_donated_buffers_are_reused():
    placement = Placement()
    arguments = placement.shapes((jnp.zeros(4),), placement.replicated)
    step = compile_step(
        lambda x: x + 1, arguments, out=placement.replicated, donate=(0,)
    )
    x = jax.device_put(jnp.zeros(4), placement.replicated)
    assert step(x)[0] == 1
    assert x.is_deleted()


def test_a_batch_that_does_not_divide_evenly_is_refused_or_rounded_up():
    placement = Placement(jax.devices() * 4)
    assert [placement.round_up(n) for n in (1, 4, 9)] == [4, 4, 12]
    with pytest.raises(UserError, match="multiple of the 4 devices, got 6"):
        placement.check(6)
    placement.check(24, parts=3)
    message = "4 devices times --gradient-accumulation 3, got 16"
    with pytest.raises(UserError, match=message):
        placement.check(16, parts=3)
    placement.check(8, pairs=True)
    with pytest.raises(UserError, match="2 for each of the 4 devices, got 12"):
        placement.check(12, pairs=True)


def test_too_many_devices_is_an_error_that_names_the_existing_ones():
    with pytest.raises(UserError, match="--devices is 9, and there are 1: .*[Cc]pu"):
        choose_devices(9)
    assert choose_devices(0) == choose_devices(1) == jax.devices()


@pytest.fixture(scope="module")
def four_devices():
    """The report of `four_devices.py` on four simulated devices, in float64."""
    program = Path(__file__).with_name("four_devices.py")
    return on_four_devices(program, JAX_ENABLE_X64="1")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["jit on 4", "pmap on 4"])
def test_ten_steps_equal_those_of_one_device(four_devices, way):
    # Augmentation and drop path follow from each image's index; BatchNorm is global.
    assert four_devices[way]["devices"] == 4
    assert four_devices[way]["difference"] < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("consistency", ["flexmatch", "softmatch"])
@pytest.mark.parametrize("way", ["jit on 4", "pmap on 4"])
def test_with_unlabelled_images_too(four_devices, way, consistency):
    # Under pmap the devices exchange what the method's state takes from their images.
    found = four_devices[f"{way}, {consistency}"]
    assert found["difference"] < 1e-9
    assert found["remembered"] > 10


@pytest.mark.slow
@pytest.mark.parametrize("way", ["jit on 4", "pmap on 4"])
def test_steps_with_a_teacher_and_in_parts_equal_those_of_one_device(four_devices, way):
    found = four_devices[f"{way}, taught, in parts"]
    assert found["difference"] < 1e-9
    assert found["collectives"] == ["all-reduce"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["jit on 4", "pmap on 4"])
def test_no_device_gathers_the_batch(four_devices, way):
    assert "all-reduce" in four_devices[way]["collectives"]
    assert "all-gather" not in four_devices[way]["collectives"]


@pytest.mark.slow
def test_local_statistics_are_each_devices_own(four_devices):
    assert four_devices["local on 4"]["difference"] > 1e-3


@pytest.mark.slow
def test_evaluation_counts_every_image_once_on_any_number_of_devices(four_devices):
    for found in four_devices["evaluations"]:
        assert found["images"] == 359
        assert found["figures"] == pytest.approx(
            four_devices["evaluations"][0]["figures"], rel=1e-9
        )
