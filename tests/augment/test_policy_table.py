from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax.augment.policy_table import OPERATIONS, apply_operations
from tests.support.policy_figures import PATH, our_name, our_strength

APPLY = jax.jit(apply_operations, static_argnames="interpolation")


@pytest.fixture(scope="module")
def reference():
    with np.load(PATH) as stored:
        return dict(stored)


def cases(reference, interpolation):
    """Operation, strength and result of each stored case."""
    for key, expected in reference.items():
        if not key.endswith("/" + interpolation):
            continue
        space, theirs, magnitude, sign, _ = key.split("/")
        name = our_name(theirs)
        table = reference.get(f"strengths/{space}/{theirs}", np.zeros(1))
        strength = our_strength(name, table[int(magnitude)] * int(sign))
        yield key, OPERATIONS.index(name), strength, expected / np.float32(255)


@pytest.fixture(scope="module")
def differences(reference):
    """By case: the difference of each pixel from torchvision's."""
    image = reference["image"].astype(np.float32) / 255
    found = {}
    for interpolation in ("bilinear", "nearest"):
        keys, *columns = zip(*cases(reference, interpolation), strict=True)
        operation, strength, expected = map(np.array, columns)
        images = jnp.broadcast_to(image[None], (len(keys), *image.shape))
        drawn = operation[:, None], strength[:, None].astype(np.float32)
        changed = APPLY(images, *drawn, interpolation=interpolation)
        difference = np.abs(changed - expected)
        found |= dict(zip(keys, difference, strict=True))
    return found


@pytest.mark.parametrize("name", OPERATIONS[:-2])
def test_an_operation_is_torchvisions(differences, name):
    found = {k: d for k, d in differences.items() if our_name(k.split("/")[1]) == name}
    assert found
    for key, difference in found.items():
        # torchvision rounds to whole levels, also the image that these blend with.
        levels = 2 if name in ("color", "contrast", "sharpness") else 1
        within = difference <= 1.001 * levels / 255
        if key.endswith("nearest"):  # Halfway between two pixels, rounding decides.
            assert within.mean() > 0.98, key
        else:
            assert within.all(), key


@pytest.mark.slow
def test_the_operations_that_torchvision_lacks_by_hand():
    images = jnp.broadcast_to(jnp.array([0.2, 0.6, 0.6]), (2, 6, 5, 3))
    operation = jnp.array([[OPERATIONS.index(n)] for n in ("cutout", "solarize_add")])
    strength = jnp.array([[2.0], [0.3]])
    place = jnp.array([[[0.99, 0.0]], [[0.0, 0.0]]])  # The last row, the first column.
    cut, added = apply_operations(images, operation, strength, place, fill=0.5)
    expected = images[0].at[3:, :2].set(0.5)
    np.testing.assert_allclose(cut, expected)
    np.testing.assert_allclose(added, images[1].at[..., 0].set(0.5))
    middle = apply_operations(images, operation, strength, fill=0.5)[0]
    np.testing.assert_allclose(middle, images[0].at[1:5, :4].set(0.5))


@pytest.mark.slow
def test_operations_are_applied_in_sequence():
    images = jax.random.uniform(jax.random.key(0), (2, 6, 5, 3))
    invert, solarize = map(OPERATIONS.index, ("invert", "solarize"))
    operation = jnp.array([[invert, solarize], [solarize, invert]])
    a, b = APPLY(images, operation, jnp.array([[0.0, 0.5], [0.5, 0.0]]))
    np.testing.assert_allclose(
        a, jnp.where(1 - images[0] >= 0.5, images[0], 1 - images[0]), atol=1e-6
    )
    np.testing.assert_allclose(
        b, 1 - jnp.where(images[1] >= 0.5, 1 - images[1], images[1]), atol=1e-6
    )


def test_pixels_outside_are_the_fill():
    images = jnp.full((1, 4, 4, 3), 0.5)
    operation = jnp.array([[OPERATIONS.index("translate_x")]])
    moved = apply_operations(images, operation, jnp.array([[2.0]]), fill=0.25)
    np.testing.assert_allclose(moved[0, :, :2], 0.25)
    np.testing.assert_allclose(moved[0, :, 2:], 0.5)


@pytest.mark.slow
def test_all_at_once_is_one_by_one(monkeypatch):
    # What other devices than the CPU run.
    images = jax.random.uniform(jax.random.key(0), (len(OPERATIONS), 6, 5, 3))
    drawn = jnp.arange(len(OPERATIONS))[:, None], jnp.full((len(OPERATIONS), 1), 0.3)
    one_by_one = APPLY(images, *drawn)
    choose = jax.lax.platform_dependent

    def as_on_accelerators(*args, cpu, default):
        return choose(*args, default=default)

    monkeypatch.setattr(jax.lax, "platform_dependent", as_on_accelerators)
    at_once = jax.jit(partial(apply_operations))(images, *drawn)
    np.testing.assert_allclose(at_once, one_by_one, atol=1e-6)


@pytest.mark.slow
def test_grey_images_and_bfloat16_pass_through_every_operation():
    images = jax.random.uniform(jax.random.key(0), (len(OPERATIONS), 5, 6, 1))
    drawn = jnp.arange(len(OPERATIONS))[:, None], jnp.full((len(OPERATIONS), 1), 0.3)
    changed = APPLY(images.astype(jnp.bfloat16), *drawn)
    assert changed.dtype == jnp.bfloat16 and changed.shape == images.shape
    assert ((changed >= 0) & (changed <= 1)).all()


def test_policy_operations_of_other_images_are_refused():
    drawn = jnp.zeros((3, 1), int), jnp.zeros((3, 1))
    with pytest.raises(ValueError, match=r"shape \(3, 1\) for 2 images"):
        apply_operations(jnp.zeros((2, 4, 4, 3)), *drawn)


@pytest.mark.slow
def test_operations_are_differentiable():
    images = jax.random.uniform(jax.random.key(0), (3, 6, 5, 3), maxval=0.4)
    invert, brightness = map(OPERATIONS.index, ("invert", "brightness"))
    operation = jnp.array([[0, 0], [brightness, 0], [invert, brightness]])
    strength = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, -0.5]])

    def total(images):
        return APPLY(images, operation, strength).sum()

    slopes = jnp.broadcast_to(
        jnp.array([1, 2, -0.5])[:, None, None, None], (3, 6, 5, 3)
    )
    np.testing.assert_allclose(jax.grad(total)(images), slopes, rtol=1e-6)
    _, along = jax.jvp(total, (images,), (images,))
    np.testing.assert_allclose(along, (slopes * images).sum(), rtol=1e-5)
