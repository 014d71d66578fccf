import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfprune.deciding import selection
from tfprune.deciding.selection import kth_smallest, smallest

# Few distinct values make many ties; minus infinity marks what is pruned already.
values = st.one_of(
    st.sampled_from([-np.inf, 0.0, 0.25, 1.0, 2.0]), st.floats(0, 4, width=16), st.floats(width=32, allow_nan=False)
)
arrays = hnp.arrays(np.float32, hnp.array_shapes(max_dims=5, max_side=4), elements=values)


def by_full_sort(scores, count):
    """The same choice by one stable sort of everything: value first, then array, then flat index."""
    order = np.argsort(np.concatenate([array.ravel() for array in scores]), kind="stable")
    flat = np.zeros(order.size, bool)
    flat[order[:count]] = True
    parts = np.split(flat, np.cumsum([array.size for array in scores])[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, scores)]


def same(found, expected):
    return all(a.shape == b.shape and a.dtype == bool and (a == b).all() for a, b in zip(found, expected))


@given(st.lists(arrays, min_size=1, max_size=4), st.data())
def test_chooses_what_a_full_stable_sort_chooses(scores, data):
    count = data.draw(st.integers(0, sum(array.size for array in scores)))
    assert same(smallest(scores, count), by_full_sort(scores, count))


@given(st.lists(arrays, min_size=1, max_size=4), st.data())
def test_sampling_changes_nothing(scores, data):
    # So small a sample brackets and misleads in turn; all roads have to lead to the same entry.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "SAMPLE", data.draw(st.sampled_from([1, 2, 5, 16])))
        count = data.draw(st.integers(0, sum(array.size for array in scores)))
        assert same(smallest(scores, count), by_full_sort(scores, count))


@given(arrays, st.data())
def test_any_memory_order_gives_the_same_choice(array, data):
    count = data.draw(st.integers(0, array.size))
    expected = by_full_sort([array], count)
    assert same(smallest([np.asfortranarray(array)], count), expected)
    assert same(smallest([np.repeat(array, 2, axis=-1)[..., ::2]], count), expected)


@pytest.mark.parametrize("kind", ["normal", "half precision", "constant", "mostly pruned", "sorted", "two clusters"])
@pytest.mark.parametrize("share", [0.0001, 0.25, 0.5, 0.8, 0.9999])
def test_large_arrays_go_through_the_sample_and_stay_exact(kind, share):
    generator = np.random.default_rng(0)
    size = 5 * selection.SAMPLE
    array = np.abs(generator.normal(size=size).astype(np.float32))
    if kind == "half precision":
        array = array.astype(np.float16).astype(np.float32)
    elif kind == "constant":
        array[:] = 0.5
    elif kind == "mostly pruned":
        array[generator.random(size) < 0.8] = -np.inf
    elif kind == "sorted":
        array.sort()
    elif kind == "two clusters":
        array[::5] += 1e6  # in step with the sample, which therefore misleads
    scores = [array[:65536].reshape(-1, 8), array[65536:]]
    count = round(share * size)
    found = smallest(scores, count)
    assert sum(int(mark.sum()) for mark in found) == count
    assert same(found, by_full_sort(scores, count))


@given(st.lists(arrays, min_size=1, max_size=3), st.data())
def test_kth_smallest_is_that_of_the_sorted_whole(scores, data):
    whole = np.sort(np.concatenate([array.ravel() for array in scores]))
    rank = data.draw(st.integers(1, whole.size))
    assert kth_smallest(scores, rank) == whole[rank - 1]


def test_ties_go_to_the_first_array_then_to_the_lowest_index():
    one, two = np.full((2, 2), 0.5), np.array([0.5, 0.25])
    assert [mark.astype(int).tolist() for mark in smallest([one, two], 4)] == [[[1, 1], [1, 0]], [0, 1]]


def test_none_and_all():
    array = np.arange(3.0)
    assert [mark.tolist() for mark in smallest([array, array], 0)] == [[False] * 3] * 2
    assert [mark.tolist() for mark in smallest([array, array], 6)] == [[True] * 3] * 2
    assert smallest([], 0) == []


def test_empty_arrays_take_no_part():
    marks = smallest([np.zeros((0, 3)), np.array([2.0, 1.0])], 1)
    assert [mark.tolist() for mark in marks] == [[], [False, True]]
