from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.random import fold_in

from cnn_flax import augment
from cnn_flax.augment import fusion_registry, homography
from cnn_flax.augment.fusion_registry import read_operation
from tests.support.devices import on_four_devices
from tests.support.image_figures import IMAGE

IMAGES = jnp.stack([IMAGE, IMAGE[::-1], 1 - IMAGE, IMAGE**2])
KEY = jax.random.key(11)


def one_by_one(operations, key, images):
    """Applies the operations one by one, without fusing."""
    for index, operation in enumerate(operations):
        read = read_operation(operation)
        arguments = read.arguments(fold_in(key, index), images)
        images = read.function(images, **arguments)
    return images


def both(operations, images=IMAGES):
    @jax.jit
    def run(key, images):
        together = augment.compose(operations)(key, images)[0]
        return together, one_by_one(operations, key, images)

    return run(KEY, images)


def gathers(operations):
    run = jax.jit(lambda key, images: augment.compose(operations)(key, images)[0])
    return run.lower(KEY, IMAGES).as_text().count("stablehlo.gather")


def test_fused_flips_and_crops_equal_separate_ones():
    chain = [
        augment.random_horizontal_flip,
        partial(augment.random_crop, size=(30, 31), padding=4),
        augment.random_vertical_flip,
        partial(augment.crop, top=2, left=1, height=20, width=29),
    ]
    together, alone = both(chain)
    np.testing.assert_array_equal(together, alone)


def test_fused_whole_pixel_moves_and_quarter_turns_equal_separate_ones():
    chain = [
        partial(augment.rotate, degrees=jnp.array([90.0, -90.0, 180.0, 0.0])),
        partial(augment.translate_x, pixels=3),
        augment.horizontal_flip,
    ]
    together, alone = both(chain, IMAGES[:, :, :40])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.slow
def test_one_interpolation_is_close_to_several():
    # A smooth blob in the middle of a dark image: nothing leaves the image, and
    # repeated interpolation blurs little. The curvature is at most 0.03 per squared
    # pixel, and the error of a bilinear read at most a quarter of it, four times.
    y, x = jnp.mgrid[:64, :64] / 64 * 2 - 1
    image = jnp.exp(-8 * (x**2 + 2 * (y - 0.2) ** 2))[None, :, :, None]
    chain = [
        partial(augment.random_rotation, degrees=20),
        partial(augment.random_affine, degrees=5, scale=(0.9, 1.1), shear=5),
        partial(augment.random_shear, x=5, y=5),
        partial(augment.random_perspective, distortion_scale=0.1, p=1.0),
    ]
    together, alone = both(chain, image)
    np.testing.assert_allclose(together, alone, atol=0.03)
    assert not np.allclose(together, image, atol=0.1)


def test_geometric_neighbours_fuse_into_one_gather():
    turn = partial(augment.random_rotation, degrees=20)
    shear = partial(augment.random_shear, x=5)
    one = gathers([turn])
    assert one > 0
    assert gathers([turn, shear, augment.random_horizontal_flip]) == one
    # Another fill, or another operation in between, makes it two.
    other = partial(augment.random_shear, x=5, fill=0.5)
    assert gathers([turn, other]) == 2 * one
    assert gathers([turn, augment.invert, shear]) == 2 * one


def test_a_new_operation_fuses_once_it_is_registered(monkeypatch):
    monkeypatch.setattr(fusion_registry, "FUSIONS", dict(fusion_registry.FUSIONS))

    @fusion_registry.as_homography(lambda size: homography.rotation_matrix(size, 180))
    def half_turn(images):
        return images[:, ::-1, ::-1]

    chain = [partial(augment.translate_x, pixels=3), half_turn]
    together, alone = both(chain)
    np.testing.assert_array_equal(together, alone)
    assert gathers(chain) == gathers(chain[:1])


def test_affine_colours_fuse_into_one_matrix():
    chain = [
        partial(augment.random_brightness, brightness=(0.7, 1.0)),
        partial(augment.adjust_contrast, factor=jnp.array([0.5, 0.9, 0.7, 1.0])),
        partial(augment.random_grayscale, p=0.5),
        augment.invert,
        partial(augment.adjust_saturation, factor=0.4),
    ]
    # No value leaves [0, 1], so that clipping once equals clipping always.
    together, alone = both(chain)
    np.testing.assert_allclose(together, alone, atol=2e-6)


def test_affine_colours_of_grey_images_fuse_into_one_matrix():
    chain = [
        partial(augment.adjust_brightness, factor=0.5),
        partial(augment.adjust_contrast, factor=0.5),
        partial(augment.adjust_saturation, factor=0.3),
    ]
    together, alone = both(chain, IMAGES[..., :1])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_values_are_clipped_once_after_the_colours():
    chain = [
        partial(augment.adjust_brightness, factor=2.0),
        partial(augment.adjust_brightness, factor=0.5),
    ]
    together, alone = both(chain)
    np.testing.assert_allclose(together, IMAGES, atol=1e-6)
    np.testing.assert_allclose(alone, jnp.minimum(IMAGES, 0.5), atol=1e-6)


def test_levels_fuse_into_one_table():
    chain = [
        partial(augment.posterize, bits=jnp.array([3, 4, 6, 8])),
        augment.equalize,
        partial(augment.solarize, threshold=0.5),
        augment.autocontrast,
    ]
    together, alone = both(chain)
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.slow
def test_jitter_equals_its_steps_in_order():
    factors = {"brightness": 0.8, "contrast": 0.7, "saturation": 1.2}
    image = IMAGE * 0.6 + 0.2  # No value leaves [0, 1].
    for order in ((3, 1, 0, 2), (2, 0, 3, 1), (1, 0, 2, 3)):
        expected = image
        for index in order:
            name = ("brightness", "contrast", "saturation", "hue")[index]
            number = factors.get(name, 0.1)
            expected = getattr(augment, f"adjust_{name}")(expected, number)
        found = augment.jitter(image, **factors, hue=0.1, order=order)
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_user_functions_and_labels_pass_through():
    def swap(key, images, labels, by):
        return images[::-1] * by, labels[::-1]

    def add_uniform(key, images):
        return images + jax.random.uniform(key)

    augmentation = augment.compose(
        [partial(swap, by=0.5), lambda images: images + 1, add_uniform]
    )
    images, labels = augmentation(KEY, IMAGES, jnp.arange(4))
    noise = jax.random.uniform(fold_in(KEY, 2))
    np.testing.assert_allclose(images, IMAGES[::-1] * 0.5 + 1 + noise, rtol=1e-6)
    np.testing.assert_array_equal(labels, [3, 2, 1, 0])


def test_an_empty_chain_is_the_identity():
    images, labels = augment.compose([])(KEY, IMAGES)
    assert images is IMAGES and labels is None


def test_fused_operations_check_their_arguments():
    augmentation = augment.compose(
        [partial(augment.adjust_brightness, factor=-1), augment.invert]
    )
    with pytest.raises(ValueError, match="factor must be at least 0, got -1"):
        augmentation(KEY, IMAGES)


def test_other_callables_are_refused():
    for match, operation in [
        ("or key, images, labels; cos does not", jnp.cos),
        ("rotate: missing a required argument: 'degrees'", augment.rotate),
        (
            "rotate: got an unexpected keyword argument 'angle'",
            partial(augment.rotate, degrees=3, angle=3),
        ),
        ("bound by name: rotate has", partial(augment.rotate, 3)),
    ]:
        with pytest.raises(TypeError, match=match):
            augment.compose([operation])


@pytest.fixture(scope="module")
def four_devices():
    """The report of `four_devices.py` on four simulated devices."""
    program = Path(__file__).with_name("four_devices.py")
    return on_four_devices(program)


@pytest.mark.slow
def test_images_are_the_same_on_four_devices(four_devices):
    assert four_devices["devices"] == 4
    # The two programs fuse multiplications and additions differently.
    assert four_devices["difference"] < 1e-5


@pytest.mark.slow
def test_no_device_sends_images_to_another(four_devices):
    assert four_devices["collectives"] == []
