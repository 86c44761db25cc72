"""Losses on logits and features, computed in float32 or wider.

Logits are float arrays `[N, K]`; labels are classes, int `[N]` in `[0, K)`, or
probabilities, float `[N, K]`. A logit of minus infinity rules its class out: where the
target's probability is 0 as well, the class adds nothing to value or gradient. A term
of weight 0 is left out, whatever its value. Losses are means over the images, which are
NaN where there is no image, as in torch.
"""

import jax
import jax.numpy as jnp
import optax

__all__ = [
    "binary_cross_entropy",
    "cross_entropy",
    "decoupled_distillation",
    "distillation",
    "hint",
    "standardized",
]

_LEAST_VARIANCE = 1e-14


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    label_smoothing: float = 0.0,
    class_weights: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Mean cross entropy, `-mean_n sum_k p[n, k] * log softmax(logits)[n, k]`.

    With class weights, the loss of image n is multiplied by the weight of its label, or
    by the mean weight under its probabilities before smoothing. The mean is over N, so
    that parts of a batch can be averaged; torch's divides by the batch's sum of
    weights.

    Args:
      logits: `[N, K]`, any float dtype.
      labels: classes, int `[N]` in `[0, K)`, or probabilities, float `[N, K]`.
      label_smoothing: share of each label that is spread evenly over all classes, in
        [0, 1] (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7).
      class_weights: weight of each class, at least 0, `[K]`; None for 1.

    Returns:
      Scalar, in nats, float32 or wider.

    Raises:
      ValueError: if the shapes do not fit or `label_smoothing` is outside [0, 1].

    Example:
      >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
      >>> print(f"{cnn_flax.losses.cross_entropy(logits, jnp.array([0])):.4f}")  # log 2
      0.6931
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}.")
    _check_labels(logits, labels)
    logits = logits.astype(jnp.promote_types(jnp.float32, logits.dtype))
    if labels.ndim == 1:
        labels = jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    smoothed = optax.smooth_labels(labels, label_smoothing)
    loss = -_expectation(smoothed, jax.nn.log_softmax(logits))
    if class_weights is None:
        return loss.mean()
    weights = jnp.asarray(class_weights, logits.dtype)
    if weights.shape != logits.shape[1:]:
        raise ValueError(
            f"class_weights must be [{logits.shape[1]}], one per class of the logits, "
            f"got {list(weights.shape)}."
        )
    weight = labels @ weights
    return jnp.where(weight > 0, weight * loss, 0).mean()


def binary_cross_entropy(
    logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Mean binary cross entropy, for images with any number of classes each.

    `-mean_nk t[n, k] * log sigmoid(x[n, k]) + (1 - t[n, k]) * log sigmoid(-x[n, k])`,
    torch's `binary_cross_entropy_with_logits`. Smoothing by s replaces t by
    `(1 - s) * t + s / 2`.

    Args:
      logits: x, `[N, K]`, any float dtype.
      labels: t, in [0, 1]: 1 for the classes of an image and 0 for others, `[N, K]`.
      label_smoothing: s, in [0, 1].

    Returns:
      Scalar, in nats, float32 or wider.

    Raises:
      ValueError: if the shapes differ or `label_smoothing` is outside [0, 1].

    Example:
      >>> logits, labels = jnp.zeros((1, 2)), jnp.array([[1, 0]])
      >>> print(f"{cnn_flax.losses.binary_cross_entropy(logits, labels):.4f}")  # log 2
      0.6931
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}.")
    if logits.ndim != 2 or labels.shape != logits.shape:
        raise ValueError(
            "logits and labels must both be [N, K]; got "
            f"{logits.shape} and {labels.shape}."
        )
    logits = logits.astype(jnp.promote_types(jnp.float32, logits.dtype))
    labels = (1 - label_smoothing) * labels + label_smoothing / 2
    # In pairs of a class and its absence, as a class with probability 0 may be ruled
    # out by an infinite logit.
    both = jnp.stack([labels, 1 - labels], -1).astype(logits.dtype)
    log_probs = jnp.stack([logits, -logits], -1)
    return -_expectation(both, jax.nn.log_sigmoid(log_probs)).mean()


def distillation(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array | None = None,
    temperature: float = 4.0,
    alpha: float = 0.9,
    standardize: bool = False,
) -> jax.Array:
    """Knowledge distillation: the teacher's loss and the labels' loss, weighted.

    `alpha * T^2 * KL(p || q) + (1 - alpha) * cross_entropy(student_logits, labels)`,
    with `p = softmax(teacher_logits / T)`, `q = softmax(student_logits / T)` and
    `KL(p || q) = mean_n sum_k p[n, k] * log(p[n, k] / q[n, k])`. `T^2` compensates for
    the KL's gradient, which scales as `1 / T^2` (Hinton et al. 2015,
    https://arxiv.org/abs/1503.02531, section 2). Without labels the loss is
    `T^2 * KL(p || q)`, which `alpha` does not scale.

    Args:
      student_logits: `[N, K]`, any float dtype.
      teacher_logits: `[N, K]`, any float dtype.
      labels: classes, int `[N]` in `[0, K)`, or probabilities, float `[N, K]`.
      temperature: `T`, above 0; the higher, the softer both distributions.
      alpha: weight of the teacher's loss, in [0, 1]; the labels' loss has the rest.
      standardize: whether p and q are of standardized logits; see `standardized`.

    Returns:
      Scalar, in nats, float32 or wider.

    Raises:
      ValueError: if the shapes do not fit, `temperature` is not above 0 or `alpha` is
        outside [0, 1].

    Example:
      >>> student, teacher = jnp.log(jnp.array([[[0.75, 0.25]], [[0.5, 0.5]]]))
      >>> loss = cnn_flax.losses.distillation(student, teacher, temperature=1.0)
      >>> print(f"{loss:.4f}")  # (log(2 / 3) + log 2) / 2
      0.1438
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}.")
    student, teacher = _softened(
        student_logits, teacher_logits, temperature, standardize
    )
    loss = temperature**2 * _divergence(teacher, student)
    if labels is None:
        return loss
    hard = cross_entropy(student_logits, labels)
    return _weighted_sum((alpha, loss), (1 - alpha, hard))


def decoupled_distillation(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
    standardize: bool = False,
) -> jax.Array:
    """Distillation in two parts: on the target class, and among the other classes.

    `T^2 * (alpha * TCKD + beta * NCKD)`: TCKD is `KL(teacher || student)` of the two
    probabilities (target, not target), NCKD that of the other classes' probabilities,
    given that it is one of them; both at temperature `T`, means over N (Zhao et al.
    2022, https://arxiv.org/abs/2203.08679, equation 7). In `distillation`, an image's
    NCKD has the weight that the teacher assigns to the other classes: little where it
    is confident. The cross entropy is not included: add it.

    Args:
      student_logits: `[N, K]`, any float dtype, K at least 2.
      teacher_logits: `[N, K]`, any float dtype.
      labels: the target classes, int `[N]` in `[0, K)`, or probabilities, float
        `[N, K]`, whose most probable class is the target (the first of equal ones).
      temperature: `T`, above 0.
      alpha: weight of TCKD, at least 0.
      beta: weight of NCKD, at least 0.
      standardize: whether the probabilities are of standardized logits; see
        `standardized`.

    Returns:
      Scalar, in nats, float32 or wider.

    Raises:
      ValueError: if the shapes do not fit, there is one class, `temperature` is not
        above 0, or `alpha` or `beta` is negative.
    """
    if min(alpha, beta) < 0:
        raise ValueError(f"alpha and beta must be at least 0, got {alpha} and {beta}.")
    if student_logits.shape[-1] < 2:
        raise ValueError(f"K must be at least 2, got logits {student_logits.shape}.")
    _check_labels(student_logits, labels)
    student, teacher = _softened(
        student_logits, teacher_logits, temperature, standardize
    )
    target = labels if labels.ndim == 1 else labels.argmax(axis=1)
    student_target, student_others = _decoupled(student, target)
    teacher_target, teacher_others = _decoupled(teacher, target)
    # Where the teacher rules out all other classes, it says nothing about them.
    ruled_out = jnp.all(teacher_others == -jnp.inf, axis=1, keepdims=True)
    student_others = jnp.where(ruled_out, 0, student_others)
    teacher_others = jnp.where(ruled_out, 0, teacher_others)
    return temperature**2 * _weighted_sum(
        (alpha, _divergence(teacher_target, student_target)),
        (beta, _divergence(teacher_others, student_others)),
    )


def standardized(logits: jax.Array) -> jax.Array:
    """Logits with mean 0 and standard deviation 1 over the classes of each image.

    A student that learns from standardized logits need not match the range of the
    teacher's, which a smaller net may not reach, but their relations alone: Sun et al.
    2024, "Logit standardization in knowledge distillation",
    https://arxiv.org/abs/2403.01427, algorithm 1. The deviation is that of K classes;
    the authors' program divides by K - 1. A class that is ruled out, by a logit of
    minus infinity, is left as it is, and equal logits become 0.

    Args:
      logits: `[N, K]`, any float dtype.

    Returns:
      `[N, K]`, float32 or wider.
    """
    (logits,) = _wide(logits)
    is_possible = logits > -jnp.inf
    finite = jnp.where(is_possible, logits, 0)
    count = jnp.maximum(is_possible.sum(axis=1, keepdims=True), 1)
    centred = finite - finite.sum(axis=1, keepdims=True) / count
    centred = jnp.where(is_possible, centred, 0)
    variance = (centred**2).sum(axis=1, keepdims=True) / count
    # Added to the variance, as the gradient of its root is infinite at 0.
    scaled = centred * jax.lax.rsqrt(variance + _LEAST_VARIANCE)
    return jnp.where(is_possible, scaled, -jnp.inf)


def hint(student_features: jax.Array, teacher_features: jax.Array) -> jax.Array:
    """Half the mean squared difference of two networks' features.

    `1/2 * mean((teacher - student)^2)` over images, positions and channels: equation 3
    of Romero et al. 2015 (FitNets, https://arxiv.org/abs/1412.6550) divided by the
    number of features. The student's features come from a learned regressor to the
    teacher's channels.

    Args:
      student_features: any shape, such as `[N, H, W, C]`, any float dtype.
      teacher_features: the same shape.

    Returns:
      Scalar, float32 or wider.

    Raises:
      ValueError: if the shapes differ: nothing is resized or broadcast.
    """
    _check_shapes("features", student_features, teacher_features)
    student, teacher = _wide(student_features, teacher_features)
    return optax.losses.l2_loss(student, teacher).mean()


def _divergence(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """`KL(teacher || student)` of logits `[N, K]`, mean over N."""
    teacher, student = jax.nn.log_softmax(teacher), jax.nn.log_softmax(student)
    return _expectation(jnp.exp(teacher), teacher - student).mean()


def _expectation(probabilities: jax.Array, values: jax.Array) -> jax.Array:
    """`sum_k p[n, k] * values[n, k]`, `[N]`, in which 0 times infinity is 0."""
    is_impossible = (probabilities == 0) & ~jnp.isfinite(values)
    return jnp.sum(probabilities * jnp.where(is_impossible, 0, values), axis=-1)


def _weighted_sum(*terms: tuple[float, jax.Array]) -> jax.Array:
    """`sum weight * value`, without the values of weight 0, which may be infinite."""
    return sum((w * value for w, value in terms if w), start=jnp.zeros(()))


def _softened(
    student: jax.Array, teacher: jax.Array, temperature: float, standardize: bool
) -> tuple[jax.Array, jax.Array]:
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}.")
    _check_shapes("logits", student, teacher)
    student, teacher = _wide(student, teacher)
    if standardize:
        student, teacher = standardized(student), standardized(teacher)
    return student / temperature, teacher / temperature


def _decoupled(logits: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits of (target, not target) `[N, 2]` and of the other classes `[N, K - 1]`."""
    classes = logits.shape[1]
    # From the target through the classes after it, around to the one before it.
    order = (target[:, None] + jnp.arange(classes)[None]) % classes
    logits = jnp.take_along_axis(logits, order, axis=1)
    others = logits[:, 1:]
    # The gradient of logsumexp is NaN where all logits are minus infinity.
    ruled_out = jnp.all(others == -jnp.inf, axis=1)
    some = jnp.where(ruled_out[:, None], 0, others)
    rest = jnp.where(ruled_out, -jnp.inf, jax.nn.logsumexp(some, axis=1))
    return jnp.stack([logits[:, 0], rest], axis=1), others


def _wide(*arrays: jax.Array) -> list[jax.Array]:
    dtype = jnp.result_type(jnp.float32, *(array.dtype for array in arrays))
    return [array.astype(dtype) for array in arrays]


def _check_labels(logits: jax.Array, labels: jax.Array) -> None:
    if labels.shape not in (logits.shape, logits.shape[:1]):
        raise ValueError(
            f"Labels are [N] or [N, K] for logits [N, K]; got labels {labels.shape} "
            f"for logits {logits.shape}."
        )


def _check_shapes(what: str, student: jax.Array, teacher: jax.Array) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"Student's and teacher's {what} must have the same shape; got "
            f"{student.shape} and {teacher.shape}."
        )
