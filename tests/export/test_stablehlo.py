"""A StableHLO file computes what the model does, on each platform by its own means."""

import datetime
import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_flax
from cnn_flax.export import ExportError, to_stablehlo
from cnn_flax.export.stablehlo import readable_until
from tests.support.small_models import SMALLEST, cut_down, random_variables

SIZE = 64


def small(name):
    model = cut_down(name)
    return model, random_variables(model, 1, SIZE, SIZE, 3), cnn_flax.model_info(name)


def images(n, dtype=np.float32):
    rng = np.random.default_rng(1)
    if dtype == np.uint8:
        return rng.integers(0, 256, (n, SIZE, SIZE, 3), dtype)
    return rng.standard_normal((n, SIZE, SIZE, 3)).astype(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST.values(), ids=SMALLEST)
def test_the_round_trip_is_exact(name):
    model, variables, info = small(name)
    program = to_stablehlo(model, variables, info, image_size=SIZE)
    assert program.platforms == ("cpu", "cuda", "tpu")
    again = jax.export.deserialize(program.serialize())
    compiled = jax.jit(lambda x: model.apply(variables, x))
    x = images(3)
    np.testing.assert_array_equal(again.call(x), compiled(x))


def test_a_file_needs_jax_alone(tmp_path):
    model, variables, info = small("resnet18")
    program = to_stablehlo(
        model, variables, info, image_size=SIZE, platforms=["cpu"], batch_size=1
    )
    (tmp_path / "net").write_bytes(program.serialize())
    np.save(tmp_path / "images.npy", images(1))
    code = (
        "import json, sys, jax, numpy as np\n"
        "program = jax.export.deserialize(bytearray(open('net', 'rb').read()))\n"
        "logits = program.call(np.load('images.npy'))\n"
        "assert not {'flax', 'cnn_flax'} & set(sys.modules)\n"
        "print(json.dumps(logits.tolist()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    expected = model.apply(variables, images(1))
    np.testing.assert_allclose(json.loads(done.stdout), expected, rtol=1e-5, atol=1e-5)


def test_other_platforms_get_no_formulation_of_a_cpu():
    # A depthwise net: a CPU sums products of slices instead of convolving.
    model, variables, info = small("mobilenet_v2")

    def depthwise_and_slices(*platforms):
        program = to_stablehlo(
            model, variables, info, image_size=SIZE, batch_size=2, platforms=platforms
        )
        text = program.mlir_module()
        found = re.findall(r"feature_group_count = (\d+)", text)
        return sum(int(n) > 1 for n in found), "stablehlo.slice" in text

    assert depthwise_and_slices("tpu") == (3, False)
    assert depthwise_and_slices("cpu") == (0, True)
    both = depthwise_and_slices("cpu", "cuda")
    assert both[0] > 0 and both[1]


def test_a_symbolic_batch_leaves_no_gather_in_the_program():
    model, variables, info = small("resnet18")
    program = to_stablehlo(model, variables, info, image_size=SIZE, platforms=["cuda"])
    assert "stablehlo.gather" not in program.mlir_module()


def test_normalization_inside_is_that_of_the_weights():
    model, variables, info = small("resnet18")
    program = to_stablehlo(
        *(model, variables, info),
        inside="normalization",
        image_size=SIZE,
        platforms=["cpu"],
    )
    levels = images(2, np.uint8)
    x = (levels / np.float32(255) - np.float32(info.mean)) / np.float32(info.std)
    expected = model.apply(variables, x.astype(np.float32))
    np.testing.assert_allclose(program.call(levels), expected, rtol=1e-4, atol=1e-4)


def test_a_bfloat16_model_computes_in_bfloat16():
    info = cnn_flax.model_info("resnet18")
    model, variables, _ = small("resnet18")
    narrow = model.copy(dtype=jnp.bfloat16)
    program = to_stablehlo(
        narrow, variables, info, image_size=SIZE, platforms=["tpu"], batch_size=1
    )
    text = program.mlir_module()
    kinds = re.findall(r"stablehlo\.convolution.*-> tensor<[\dx]*(\w+)>", text)
    assert set(kinds) == {"bf16"}
    assert program.out_avals[0].dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(inside="all"), "inside is one of nothing, normalization, resizing"),
        (dict(batch_size=0), "batch_size is a positive number, got 0"),
        (
            dict(platforms=["gpu"]),
            "platforms are some of cpu, cuda, tpu, rocm; got gpu",
        ),
        (dict(inside="resizing", image_size=32), "resize images to 224 px"),
        (dict(channels=4), "3 values, and the images have 4 channels"),
    ],
)
def test_wrong_options_are_refused(options, message):
    model, variables, info = small("resnet18")
    with pytest.raises(ExportError, match=message):
        to_stablehlo(model, variables, info, **options)


def test_a_file_is_readable_for_half_a_year():
    last = readable_until(datetime.date(2026, 12, 1))
    assert last == datetime.date(2027, 5, 30)
