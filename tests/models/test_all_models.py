"""What holds for every registered model.

All of them are traced, without computing, at the size that they are trained at. Tests
that compute use small nets: every model is reduced to a few narrow blocks, and of
models that are then equal (resnet18 and resnet34) one runs. One model per family is
quick, the others are slow.
"""

import contextlib
import copy
import json
import pickle
from functools import cached_property, partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util
from flax.nnx import bridge
from jax import export
from jax.flatten_util import ravel_pytree

import cnn_flax
from cnn_flax.models import googlenet
from tests.support import parameter_names
from tests.support.figures import REFERENCE
from tests.support.model_checks import relative_norm
from tests.support.small_models import (
    COUNTS,
    MODELS,
    SMALLEST,
    STRUCTURES,
    cut_down,
    forward,
    one_quick_per_family,
    random_variables,
)

# Every model, traced.

# Channels and stride of each feature, channels of `pre_logits`: from the papers'
# tables, those of EfficientNet from the layers of timm 1.0.31's nets.
FEATURES = {
    name: group["features"]
    for group in json.loads((REFERENCE / "features.json").read_text())
    for name in group["models"]
}
# Maps whose size is not the images' size divided by the stride, rounded up: these nets
# pad less than half a kernel.
SIZES = {
    "alexnet": {
        "conv1": 55,
        "pool1": 27,
        "conv2": 27,
        "pool2": 13,
        "conv5": 13,
        "pool5": 6,
    },
    "lab_resnet34": {"stem": 55, "stage1": 55},
}
SIZES["alexnet_lrn"] = SIZES["alexnet"]
RECORDED_NAMES = parameter_names.recorded()


@pytest.fixture(scope="module", params=one_quick_per_family(MODELS))
def traced(request) -> Any:
    """Name; shapes of logits and variables (with features) for two images."""
    name = request.param
    size = cnn_flax.model_info(name).image_size
    init = cnn_flax.create_model(name).init_with_output
    # Like `init`, which leaves the features out.
    logits, variables = jax.eval_shape(
        lambda key, images: init(key, images, mutable=True),
        jax.random.key(0),
        jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32),
    )
    return name, logits, variables


def test_parameter_count_is_the_published_one(traced):
    name, _, variables = traced
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == COUNTS[name]


def test_names_of_parameters_and_statistics_are_those_in_the_file(traced):
    name, _, variables = traced
    names = set(parameter_names.paths(parameter_names.tree_of(variables)))
    recorded = RECORDED_NAMES.get(name, set())
    assert names == recorded, (
        f"The names of {name} differ from tests/reference/parameter_names.json: new "
        f"are {sorted(names - recorded)}, missing are {sorted(recorded - names)}. Our "
        "checkpoints are read by these names; if they must change, write the file "
        f"again with `{parameter_names.COMMAND}`."
    )


def test_features_leave_with_the_declared_channels_and_strides(traced):
    name, _, variables = traced
    size = cnn_flax.model_info(name).image_size
    shapes = {k: v.shape for k, (v,) in variables["intermediates"].items()}
    declared = {}
    for feature, (channels, *stride) in FEATURES[name].items():
        maps = [SIZES.get(name, {}).get(feature, -(-size // s)) for s in stride]
        declared[feature] = (2, *maps, *maps, channels)
    heads = {
        k: v for k, v in shapes.items() if k.endswith("_logits") and k not in declared
    }
    assert shapes == {**declared, **heads}


def test_logits_and_variables_are_float32(traced):
    _, logits, variables = traced
    chex.assert_shape(logits, (2, 1000))
    chex.assert_type([logits, *jax.tree.leaves(variables)], jnp.float32)


@pytest.mark.parametrize("name", SMALLEST.values(), ids=SMALLEST)
def test_model_info_counts_the_parameters(name):
    assert cnn_flax.model_info(name).parameters == COUNTS[name]


def test_the_files_list_exactly_the_registered_models():
    names = set(cnn_flax.list_models())
    assert names == set(COUNTS) == set(FEATURES) == set(RECORDED_NAMES)


# Built only.


@pytest.mark.parametrize("name", cnn_flax.list_models())
def test_a_model_is_equal_however_it_was_built(name):
    model = cnn_flax.create_model(name)
    for survivor in (
        cnn_flax.create_model(name),
        copy.copy(model),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ):
        assert survivor == model
        assert hash(survivor) == hash(model)
    overridden = cnn_flax.create_model(name, num_classes=7, dtype=jnp.bfloat16)
    assert overridden != model
    assert pickle.loads(pickle.dumps(overridden)) == overridden


@pytest.mark.parametrize("name", ["legacy_seresnet18", "efficientnet_b0"])
def test_an_equal_model_is_not_traced_again(name):
    traces = []

    @partial(jax.jit, static_argnums=0)
    def classes(model):
        traces.append(model)
        return jnp.asarray(model.num_classes)

    for _ in range(2):
        classes(cnn_flax.create_model(name))
    classes(copy.deepcopy(cnn_flax.create_model(name)))
    assert len(traces) == 1


# Computed: one small net of each structure.


# The smallest of each family.
FAMILIES = sorted(SMALLEST.values())


class Net:
    """A small net, two images, and the results; each is computed once."""

    def __init__(self, name):
        self.name = name
        self.model = cut_down(name)
        self.images = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
        self.variables = random_variables(self.model, *self.images.shape)

    @cached_property
    def evaluated(self):
        """Logits, features, statistics, under jit."""
        return forward(self.model, self.variables, self.images)

    @cached_property
    def features(self):
        """Shapes of the features by name, without computing them."""
        return jax.eval_shape(
            lambda v, x: forward(self.model, v, x), self.variables, self.images
        )[1]

    @cached_property
    def folded(self):
        """The variables with folded norms."""
        fold = partial(cnn_flax.fold_batch_norm, self.model)
        return jax.jit(lambda variables: fold(variables)[1])(self.variables)

    @cached_property
    def trained(self):
        """Loss, statistics and gradients of a pass in training."""
        return jax.jit(partial(self.gradients, train=True))(self.variables, self.images)

    @cached_property
    def differentiated(self):
        """Gradients of a pass in evaluation."""
        gradients = jax.jit(partial(self.gradients, train=False))
        return gradients(self.variables, self.images)[2]

    def gradients(self, variables, images, train):
        """Loss, statistics and gradients of a pass."""

        def loss_fn(params):
            logits, features, new = forward(
                self.model, {**variables, "params": params}, images, train
            )
            labels = jnp.arange(images.shape[0])
            outputs = [logits]
            outputs += [features[k] for k in features if k.startswith("aux")]
            cross_entropy = cnn_flax.losses.cross_entropy
            return sum(cross_entropy(x, labels) for x in outputs), new

        (loss, new), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            variables["params"]
        )
        return loss, new, gradients


@contextlib.contextmanager
def few_inceptions():
    """Cuts GoogLeNet down, which has no fields for its table."""
    with pytest.MonkeyPatch.context() as patch:
        few = dict.fromkeys(("3b", "4a", "4d", "4e", "5b"), (8,) * 6)
        patch.setattr(googlenet, "_INCEPTIONS", few)
        yield


@pytest.fixture(scope="module", params=one_quick_per_family(STRUCTURES.values()))
def net(request) -> Any:
    with few_inceptions():
        yield Net(request.param)


def flat(tree) -> Any:
    return traverse_util.flatten_dict(tree, sep="/")


@pytest.mark.slow
def test_output_is_finite_in_float32_and_bfloat16(net):
    logits, features, _ = net.evaluated
    low, low_features, _ = forward(
        net.model.clone(dtype=jnp.bfloat16), net.variables, net.images
    )
    for x in (logits, low):
        chex.assert_shape(x, (2, 5))
        chex.assert_type(x, jnp.float32)
    chex.assert_tree_all_finite((logits, low, features, low_features))
    for name, x in low_features.items():
        assert x.dtype == (jnp.float32 if name == "pre_logits" else jnp.bfloat16), name
    # bfloat16 has 8 bits: 0.4 % per operation.
    assert relative_norm(low, logits) < 0.1


@pytest.mark.slow
def test_a_gradient_reaches_every_parameter(net):
    loss, _, gradients = net.trained
    chex.assert_tree_all_finite((loss, gradients))
    faint = faint_gradients(gradients)
    if faint:
        # In training, BatchNorm subtracts the mean, and with it any bias before it. In
        # evaluation it does not, but then there are no auxiliary heads.
        chex.assert_tree_all_finite(net.differentiated)
        faint &= faint_gradients(net.differentiated)
    assert not faint


def faint_gradients(gradients):
    """Names of the parameters whose gradient is zero, up to rounding."""
    largest = {k: float(jnp.abs(g).max()) for k, g in flat(gradients).items()}
    top = max(largest.values())
    return {name for name, gradient in largest.items() if gradient <= 1e-6 * top}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", FAMILIES)
@few_inceptions()
def test_forward_mode_and_hessian_vector_products(name, float64):
    model = cut_down(name).clone(dtype=jnp.float64)
    images = jax.random.normal(jax.random.key(0), (2, 64, 64, 3), jnp.float64)
    variables = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float64), random_variables(model, *images.shape)
    )
    params = variables.pop("params")

    def loss(params):
        logits, *_ = forward(model, {"params": params, **variables}, images, True)
        return cnn_flax.losses.cross_entropy(logits, jnp.arange(2))

    @jax.jit
    def derivatives(direction):
        _, slope = jax.jvp(loss, (params,), (direction,))
        gradient, product = jax.jvp(jax.grad(loss), (params,), (direction,))
        return slope, gradient, product

    def draw(seed):
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda p: p * rng.standard_normal(p.shape), params)

    def dot(*trees):
        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, *trees)))

    first, second = draw(1), draw(2)
    slope, gradient, product = derivatives(first)
    np.testing.assert_allclose(slope, dot(gradient, first), rtol=1e-8)
    # The Hessian is symmetric.
    other = derivatives(second)[2]
    np.testing.assert_allclose(dot(product, second), dot(other, first), rtol=1e-7)


@pytest.mark.slow
def test_training_changes_all_statistics_and_evaluation_none(net):
    before = net.variables.get("batch_stats", {})
    chex.assert_trees_all_equal(net.evaluated[2], before)
    _, after, _ = net.trained
    chex.assert_trees_all_equal_shapes_and_dtypes(after, before)
    after = flat(after)
    for name, statistic in flat(before).items():
        assert not np.array_equal(statistic, after[name]), name


@pytest.mark.slow
def test_jit_equals_eager(net):
    eager = net.model.apply(net.variables, net.images)
    assert relative_norm(net.evaluated[0], eager) < 1e-5


def test_a_second_input_size_works(net):
    images = jax.ShapeDtypeStruct((1, 96, 72, 3), jnp.float32)
    # A parameter that depends on the size would be rejected.
    logits, features, _ = jax.eval_shape(
        lambda v, x: forward(net.model, v, x), net.variables, images
    )
    chex.assert_shape(logits, (1, 5))
    assert set(features) == set(net.features)


def test_classes_and_channels_are_free(net):
    channels = net.features["pre_logits"].shape[1]
    bare = net.model.clone(num_classes=0)
    images = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
    pooled, variables = jax.eval_shape(bare.init_with_output, jax.random.key(0), images)
    chex.assert_shape(pooled, (1, channels))
    assert "head" not in variables["params"]


def test_float64_runs_in_float64_throughout(net, float64):
    model = net.model.clone(dtype=jnp.float64)
    logits, variables = jax.eval_shape(
        lambda key, x: model.init_with_output(key, x, mutable=True),
        jax.random.key(0),
        jax.ShapeDtypeStruct(net.images.shape, jnp.float64),
    )
    chex.assert_type([logits, *jax.tree.leaves(variables)], jnp.float64)


@pytest.mark.slow
def test_folded_norms_give_the_same_logits(net):
    logits, features, _ = forward(net.model, net.folded, net.images)
    expected, expected_features, _ = net.evaluated
    assert relative_norm(logits, expected) < 1e-5
    for name, feature in expected_features.items():
        assert relative_norm(features[name], feature) < 1e-5, name


def test_an_empty_batch_gives_empty_logits_and_keeps_the_statistics(net):
    empty = net.images[:0]
    assert jax.eval_shape(net.model.apply, net.variables, empty).shape == (0, 5)

    def loss(params):
        variables = {**net.variables, "params": params}
        logits, _, new = forward(net.model, variables, empty, True)
        return logits.sum(), (logits, new)

    shapes, (logits, new) = jax.eval_shape(
        jax.grad(loss, has_aux=True), net.variables["params"]
    )
    chex.assert_shape(logits, (0, 5))
    chex.assert_trees_all_equal_shapes(shapes, net.variables["params"])
    chex.assert_trees_all_equal_shapes(new, net.variables.get("batch_stats", {}))


def exported(function, specification, **options):
    """A function of variables and images of symbolic sizes, exported to bytes."""
    sizes = export.symbolic_shape(specification, **options)
    images = jax.ShapeDtypeStruct(sizes, jnp.float32)
    program = export.export(jax.jit(function), platforms=["cpu", "cuda", "tpu"])
    return lambda variables: export.deserialize(program(variables, images).serialize())


@pytest.mark.parametrize("net", FAMILIES, indirect=True)
@pytest.mark.slow
def test_an_export_with_symbolic_sizes_gives_the_same_logits(net):
    program = exported(
        lambda variables, images: net.model.apply(variables, images),
        "b, h, w, 3",
        constraints=["h >= 64", "w >= 64"],
    )(net.variables)
    logits = program.call(net.variables, net.images)
    assert relative_norm(logits, net.evaluated[0]) < 1e-5


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("net", "sizes", "constraints"),
    [
        *((name, "b, 32*h, 32*w, 3", ["h >= 2", "w >= 2"]) for name in FAMILIES),
        (SMALLEST["resnet"], "b, 64, 64, 3", []),
    ],
    indirect=["net"],
)
def test_an_exported_gradient_with_symbolic_sizes_is_the_same(net, sizes, constraints):
    gradients = partial(net.gradients, train=True)
    program = exported(gradients, sizes, constraints=constraints)(net.variables)
    results = program.call(net.variables, net.images)
    for result, expected in zip(results, net.trained, strict=True):
        vectors = [ravel_pytree(tree)[0] for tree in (result, expected)]
        if vectors[0].size:  # Not every net has statistics.
            assert relative_norm(*vectors) < 1e-4


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "densenet121"])
def test_an_export_asks_for_the_least_size(name):
    model = cut_down(name)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    with pytest.raises(ValueError, match="at least .* px, got h x w; .* constraints"):
        exported(lambda v, x: model.apply(v, x), "b, h, w, 3")(variables)


@pytest.mark.slow
def test_every_norm_after_a_convolution_is_folded(net):
    if "batch_stats" not in net.variables:  # Nothing is to be folded.
        assert flat(net.folded["params"]).keys() == flat(net.variables["params"]).keys()
        return
    scales = [path for path in flat(net.folded["params"]) if path.endswith("scale")]
    # One per layer, one per transition, one at the end.
    sizes = getattr(net.model, "stage_sizes", ())
    is_dense = net.name.startswith("densenet")
    assert len(scales) == (sum(sizes) + len(sizes) if is_dense else 0)
    assert len(flat(net.folded["batch_stats"])) == 2 * len(scales)


@pytest.mark.slow
def test_nnx_gives_the_same_logits(net):
    # Initialising parameters one by one is slow; test_nnx.py does it.
    model = nnx.eval_shape(
        lambda: bridge.ToNNX(net.model, rngs=nnx.Rngs(0)).lazy_init(net.images)
    )
    model.to_nnx__rngs = nnx.Rngs(0)
    for kind, collection in ((nnx.Param, "params"), (nnx.BatchStat, "batch_stats")):
        state = nnx.state(model, kind)
        values = net.variables.get(collection, {})
        chex.assert_trees_all_equal_shapes(nnx.to_pure_dict(state), values)
        nnx.replace_by_pure_dict(state, values)
        nnx.update(model, state)
    logits = nnx.jit(lambda model, images: model(images))(model, net.images)
    assert relative_norm(logits, net.evaluated[0]) < 1e-5


# Computed: each family's smallest model, unchanged. In float32 it is held by its
# reference's logits.


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", SMALLEST.values(), ids=SMALLEST)
def test_output_of_a_whole_model_is_finite_in_bfloat16(name):
    size = cnn_flax.model_info(name).image_size
    model = cnn_flax.create_model(name, dtype=jnp.bfloat16)
    images = jax.random.normal(jax.random.key(0), (1, size, size, 3))
    logits, features, _ = forward(model, random_variables(model, *images.shape), images)
    chex.assert_shape(logits, (1, 1000))
    chex.assert_tree_all_finite((logits, features))
