import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data import label_choice
from train.data.label_choice import TopClasses, choose
from train.data.pseudo_label_file import select_pseudo_labels
from train.errors import UserError


def exact_choice(classes, log_probs, min_confidence, per_class):
    """How often each image is taken, by sorting."""
    confidences = np.exp(log_probs.astype(np.float64))
    copies = np.zeros(len(classes), int)
    for k in np.unique(classes):
        members = np.flatnonzero((classes == k) & (confidences > min_confidence))
        order = members[np.argsort(-confidences[members], kind="stable")]
        if not per_class:
            copies[order] = 1
        for place in range(per_class if len(order) else 0):  # Dealt out in turns.
            copies[order[place % len(order)]] += 1
    return copies


def chosen(parts, classes, **options):
    """How often each image is taken, shard after shard, and the choice."""
    choice = choose(lambda: iter(parts), classes, **options)
    return np.concatenate([choice.copies(s, t) for s, t in enumerate(parts)]), choice


def split(classes, log_probs, sizes):
    cuts = np.cumsum(sizes)[:-1]
    pairs = zip(np.split(classes, cuts), np.split(log_probs, cuts), strict=True)
    return [TopClasses(c, p) for c, p in pairs]


@st.composite
def label_sets(draw):
    """Shards of few levels, so that most confidences tie, or of all levels."""
    sizes = draw(st.lists(st.integers(0, 12), min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, classes = sum(sizes), draw(st.integers(1, 4))
    levels = draw(st.sampled_from([2, 5, 1000]))
    log_probs = -rng.integers(0, levels, count).astype(np.float16) / np.float16(levels)
    log_probs[rng.random(count) < draw(st.sampled_from([0, 0.2]))] = np.nan
    return split(rng.integers(0, classes, count).astype(np.uint16), log_probs, sizes)


@settings(deadline=None, max_examples=150)
@given(
    label_sets(),
    st.sampled_from([0.0, 0.4, float(np.exp(-0.5)), 0.9]),
    st.integers(0, 9),
)
def test_the_choice_equals_the_one_by_sorting(parts, min_confidence, per_class):
    classes = np.concatenate([top.classes for top in parts])
    log_probs = np.concatenate([top.log_probs for top in parts])
    expected = exact_choice(classes, log_probs, min_confidence, per_class)
    options = {"min_confidence": min_confidence, "per_class": per_class}
    if not expected.sum():
        with pytest.raises(UserError, match="No image has a confidence above"):
            chosen(parts, 4, **options)
        return
    copies, choice = chosen(parts, 4, **options)
    np.testing.assert_array_equal(copies, expected)
    sizes = [len(top.classes) for top in parts]
    sums = [part.sum() for part in np.split(expected, np.cumsum(sizes)[:-1])]
    assert choice.counts.tolist() == sums


def test_more_classes_than_fit_at_once_take_more_passes(monkeypatch):
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 7, 300).astype(np.uint16)
    log_probs = -rng.random(300).astype(np.float16)
    parts = split(classes, log_probs, [100, 0, 200])
    passes = []

    def shards():
        passes.append(1)
        return iter(parts)

    monkeypatch.setattr(label_choice, "_CLASSES_AT_ONCE", 3)
    choice = choose(shards, 7, per_class=20)
    copies = np.concatenate([choice.copies(s, t) for s, t in enumerate(parts)])
    np.testing.assert_array_equal(copies, exact_choice(classes, log_probs, 0.0, 20))
    assert len(passes) == 3 + 1


def test_where_no_class_is_small_the_choice_is_that_of_the_dense_file():
    rng = np.random.default_rng(1)
    log_probs = np.log(rng.dirichlet(np.full(5, 0.3), 400)).astype(np.float16)
    order = np.argsort(-log_probs.astype(np.float32), axis=1, kind="stable")
    classes = order[:, 0].astype(np.uint16)
    best = np.take_along_axis(log_probs, order[:, :1], axis=1)[:, 0]
    assert np.bincount(classes[best > np.log(0.5)]).min() >= 20
    copies, _ = chosen(
        split(classes, best, [150, 250]), 5, min_confidence=0.5, per_class=20
    )
    dense = select_pseudo_labels(
        np.exp(log_probs.astype(np.float32)), min_confidence=0.5, per_class=20
    )
    np.testing.assert_array_equal(np.flatnonzero(copies), dense.indices)
    assert copies.max() == 1
