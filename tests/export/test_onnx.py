"""ONNX Runtime computes a model's logits from the ONNX file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_flax
from cnn_flax.export import ExportError, to_onnx
from tests.support.small_models import SMALLEST, cut_down, random_variables

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

# The cheapest of each family, and those with other blocks: grouped convolutions, masks
# of deformable ones, "SAME" padding with gates.
OTHERS = ("resnext50_32x4d", "resnet50_dcnv2", "tf_efficientnet_b0")
NAMES = [
    name if name == "resnet18" else pytest.param(name, marks=pytest.mark.slow)
    for name in (*SMALLEST.values(), *OTHERS)
]


def session(model):
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.mark.parametrize("name", NAMES)
def test_the_runtime_gives_our_logits(name):
    size = 64
    model = cut_down(name)
    variables = random_variables(model, 1, size, size, 3)
    info = cnn_flax.model_info(name)
    run = session(to_onnx(model, variables, info, image_size=size))
    for n in (1, 3):  # The batch is symbolic.
        x = np.random.default_rng(n).standard_normal((n, size, size, 3))
        x = x.astype(np.float32)
        (logits,) = run.run(["logits"], {"images": x})
        expected = jax.jit(model.apply)(variables, x)
        largest = np.abs(expected).max()
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * largest)


def small():
    model = cut_down("resnet18")
    return model, random_variables(model, 1, 64, 64, 3)


def test_levels_of_any_size_go_in():
    model, variables = small()
    entry = cnn_flax.model_info("resnet18").weights[0]
    run = session(to_onnx(model, variables, entry, inside="resizing"))
    assert run.get_inputs()[0].shape == ["batch", "height", "width", 3]
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    (logits,) = run.run(None, {"images": pixels[None]})
    prepared = cnn_flax.preprocess(entry)(pixels)[None]
    expected = jax.jit(model.apply)(variables, prepared)
    # Few of the pixels differ by a level.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3)


def test_maps_stay_with_their_channels_first():
    model, variables = small()
    info = cnn_flax.model_info("resnet18")
    graph = to_onnx(model, variables, info, image_size=64, batch_size=2).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("Transpose") == 1  # Of the images.
    assert "Sqrt" not in operators  # BatchNorm is folded.
    shape = graph.input[0].type.tensor_type.shape
    assert [d.dim_value for d in shape.dim] == [2, 64, 64, 3]


def test_metadata_is_in_the_file():
    model, variables = small()
    graph = to_onnx(
        *(model, variables, cnn_flax.model_info("resnet18")),
        image_size=64,
        metadata={"model": "resnet18"},
    )
    assert session(graph).get_modelmeta().custom_metadata_map == {"model": "resnet18"}


def test_bfloat16_is_refused():
    model, variables = small()
    info = cnn_flax.model_info("resnet18")
    with pytest.raises(ExportError, match="float32, and the model is of bfloat16"):
        to_onnx(model.copy(dtype=jnp.bfloat16), variables, info)


def test_an_operation_without_a_rule_is_named():
    class Sine(cnn_flax.layers.Conv):
        def __call__(self, x, *, train=False):
            return jnp.sin(super().__call__(x))

    model = Sine(3, (1, 1))
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    info = cnn_flax.model_info("resnet18")
    with pytest.raises(ExportError, match="no rule for JAX's operation 'sin'"):
        to_onnx(model, variables, info, image_size=8)
