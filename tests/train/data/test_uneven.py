import numpy as np
import pytest

from train.data import SourceError, balanced, open_source, train_batches
from train.data.source import array_source
from train.data.uneven import long_tailed, long_tailed_shares


def of_sizes(*sizes):
    """A set with that many images per class; each image's pixels are its index."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    names = tuple("abcdefghij"[: len(sizes)])
    return array_source("some", images, labels, names, name=str)


def counts(source):
    return np.bincount(source.labels, minlength=len(source.class_names)).tolist()


def test_sizes_fall_exponentially_to_the_last_class():
    # 100 * 100 ** (-k / 4): 100, 31.6, 10, 3.16, 1.
    assert counts(long_tailed(of_sizes(*[50] * 5), 100.0, 0)) == [50, 16, 5, 2, 1]
    np.testing.assert_allclose(long_tailed_shares(3, 100.0), [1, 0.1, 0.01])
    assert long_tailed_shares(1, 100.0) == 1


def test_a_class_that_is_smaller_than_its_part_is_kept_whole():
    assert counts(long_tailed(of_sizes(2, 40, 40), 4.0, 0)) == [2, 20, 10]


def test_the_seed_chooses_the_images():
    source = of_sizes(20, 20, 20)
    first, again, other = (long_tailed(source, 10.0, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)


def test_the_labels_of_a_long_tailed_set_are_long_tailed_too():
    options = {"imbalance": 10.0, "labels_per_class": 20, "seed": 3}
    labelled = open_source("digits", **options)
    rest = open_source("digits", rest=True, **options)
    whole = open_source("digits", imbalance=10.0, seed=3)
    assert counts(labelled) == [20, 15, 12, 9, 7, 6, 4, 3, 3, 2]
    assert (np.add(counts(labelled), counts(rest)) == counts(whole)).all()
    # The first class has 142 of the largest one's 146 images, the last a tenth of them.
    assert counts(whole)[0] == 142 and counts(whole)[9] == 15


@pytest.mark.parametrize("imbalance", [0.5, np.inf, np.nan])
def test_an_imbalance_out_of_range_is_refused(imbalance):
    with pytest.raises(SourceError, match="some: imbalance .* must be at least 1"):
        long_tailed(of_sizes(3, 3), imbalance, 0)


def drawn(source, epoch, seed=0):
    return balanced(source).order(seed, epoch)


def test_classes_are_drawn_equally_often():
    source = of_sizes(90, 7, 4)  # 101 images: 34, 34 and 33 of each class.
    labels = source.labels[drawn(source, 0)]
    assert sorted(np.bincount(labels)) == [33, 34, 34]
    # In random order.
    assert len(np.unique(labels[:10])) == 3


def test_the_images_of_a_class_are_drawn_equally_often():
    source = of_sizes(90, 7, 4)
    times = np.bincount(drawn(source, 0), minlength=101)
    assert times[:90].max() == 1
    assert set(times[90:97]) <= {4, 5} and set(times[97:]) <= {8, 9}
    # Over many epochs all are used.
    assert np.sum([drawn(source, e) for e in range(12)] == np.arange(90)[:, None, None])


def test_a_stream_resumes_where_it_was():
    source = balanced(of_sizes(9, 2))
    options = {"batch_size": 4, "image_size": 1, "channels": 1, "seed": 5}
    stream = train_batches(source, **options)
    whole = [next(stream)["image"] for _ in range(6)]
    resumed = train_batches(source, start_step=4, **options)
    np.testing.assert_array_equal(whole[4:], [next(resumed)["image"] for _ in range(2)])
    assert not np.array_equal(drawn(source, 0), drawn(source, 1))
    assert not np.array_equal(drawn(source, 0), drawn(source, 0, seed=1))


def test_an_empty_class_is_never_drawn():
    source = of_sizes(5, 0, 5)
    assert np.bincount(source.labels[drawn(source, 0)]).tolist() == [5, 0, 5]
