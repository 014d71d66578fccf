import math
from fractions import Fraction

import numpy as np
import pytest
from battery import ALLOCATIONS, PATTERNS, decide, late_layers_more, removed_units, units_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfprune.deciding import allocation
from tfprune.deciding.methods import Percentile
from tfprune.errors import PruningError

names = pytest.mark.parametrize("name", ALLOCATIONS)
scores = st.lists(
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=st.integers(0, 5)),
    min_size=1,
    max_size=4,
).map(lambda arrays: {f"weight {index}": array for index, array in enumerate(arrays)})


def gone_some(units, data):
    """The scores with some units pruned already."""
    return {
        key: np.where(data.draw(hnp.arrays(bool, array.shape)), -np.inf, array).astype(np.float32)
        for key, array in units.items()
    }


# Laws of the family


@names
@given(units=scores, share=st.floats(0, 0.999), data=st.data())
def test_counts_are_exact(name, units, share, data):
    if data.draw(st.booleans()):
        units = gone_some(units, data)
    marks = allocation.choose(name, units, share)
    total = sum(array.size for array in units.values())
    removed = {key: int(mark.sum()) for key, mark in marks.items()}
    assert {key: mark.shape for key, mark in marks.items()} == {key: array.shape for key, array in units.items()}
    if name == "uniform":
        assert removed == {key: round(share * array.size) for key, array in units.items()}
    else:
        assert sum(removed.values()) == round(share * total)


@names
@given(units=scores, share=st.floats(0, 0.999), data=st.data())
def test_within_a_weight_the_lowest_scores_go_ties_to_the_lowest_index(name, units, share, data):
    units = gone_some(units, data)
    for key, mark in allocation.choose(name, units, share).items():
        order = np.argsort(units[key].ravel(), kind="stable")
        assert set(np.flatnonzero(mark)) == set(order[: int(mark.sum())])


@pytest.mark.parametrize("pattern", [p for p in PATTERNS.values() if p.full == 1.0], ids=repr)
@names
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_units_of_a_pattern_are_counted_exactly_over_all_weights(pattern, name, dtype):
    generator = np.random.default_rng(0)
    shapes = {"conv": (3, 3, 4, 6), "dense": (20, 10), "sequence": (3, 7, 5), "volume": (2, 2, 2, 3, 5)}
    arrays = {key: generator.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    units = {key: len(units_of(shape, pattern, -2)) for key, shape in shapes.items()}
    for amount in (0.3, 0.9):
        masks = decide(Percentile(amount, pattern=pattern, allocation=name), arrays, amount, dtype=dtype)
        removed = {key: removed_units(mask, pattern) for key, mask in masks.items()}
        if name == "uniform":
            assert removed == {key: round(amount * count) for key, count in units.items()}
        else:
            assert sum(removed.values()) == round(amount * sum(units.values()))


@names
def test_the_same_scores_give_the_same_choice(name):
    units = {"a": np.random.default_rng(0).random((30, 20)), "b": np.random.default_rng(1).random((5, 40))}
    once, again = (allocation.choose(name, units, 0.7) for _ in range(2))
    assert all((once[key] == again[key]).all() for key in units)


# Tables worked by hand


def removed(name, units, share):
    marks = allocation.choose(name, {key: np.array(value, float) for key, value in units.items()}, share)
    return {key: mark.astype(int).tolist() for key, mark in marks.items()}


def test_uniform_by_hand():
    # Half of 4 and half of 3, which is 1.5 and rounds to the even 2.
    assert removed("uniform", {"a": [4, 3, 2, 1], "b": [9, 8, 7]}, 0.5) == {"a": [0, 0, 1, 1], "b": [0, 1, 1]}


def test_global_by_hand():
    # 4 of 7 over all: 1, 2, 3, then of the two 4s the one of the first weight.
    assert removed("global", {"a": [4, 3, 2, 1], "b": [4, 8, 7]}, 4 / 7) == {"a": [1, 1, 1, 1], "b": [0, 0, 0]}
    assert removed("global", {"b": [4, 8, 7], "a": [4, 3, 2, 1]}, 4 / 7) == {"b": [1, 0, 0], "a": [0, 1, 1, 1]}


def test_lamp_by_hand():
    # Squares over the sum of those not below.
    # a: 1/(1+4+9) = 0.071, 4/(4+9) = 0.308, 9/9 = 1.   b: 100/(100+400+900) = 0.071, 400/1300 = 0.308, 1.
    # Scale does not matter, so the tenfold weight loses as many; ties go to the first weight.
    units = {"a": [1, 2, 3], "b": [10, 20, 30]}
    assert removed("lamp", units, 1 / 6) == {"a": [1, 0, 0], "b": [0, 0, 0]}
    assert removed("lamp", units, 2 / 6) == {"a": [1, 0, 0], "b": [1, 0, 0]}
    assert removed("lamp", units, 3 / 6) == {"a": [1, 1, 0], "b": [1, 0, 0]}
    # c: 1/50 = 0.02, 49/49 = 1.   d: 4/(4+4+4) = 0.333, 4/8 = 0.5, 1. Equal sizes: the first goes first.
    units = {"c": [7, 1], "d": [2, 2, 2]}
    assert removed("lamp", units, 2 / 5) == {"c": [0, 1], "d": [1, 0, 0]}
    assert removed("lamp", units, 3 / 5) == {"c": [0, 1], "d": [1, 1, 0]}


def test_erk_by_hand():
    # (2, 2): (2+2)/4 = 1 per entry; (10, 10): 20/100 = 0.2 per entry. Keep 52 of 104:
    # scale * (4*1 + 100*0.2) = 52, scale = 2.17, so the small one would be 217 % dense: it stays whole.
    # The large one keeps 48 of 100.
    small, large = np.arange(4.0).reshape(2, 2), np.arange(100.0).reshape(10, 10)
    assert allocation.erdos_renyi_kernel({"a": small, "b": large}, 0.5) == {"a": 0, "b": 52}
    # Keep 10 of 104: scale = 10/24 = 0.4167. The small one keeps 4 * 0.4167 = 1.667, loses 2.333; the large one keeps
    # 100 * 0.2 * 0.4167 = 8.333, loses 91.667. Whole: 2 and 91, and the missing one to the larger remainder.
    assert allocation.erdos_renyi_kernel({"a": small, "b": large}, 94 / 104) == {"a": 2, "b": 92}
    # A kernel counts its window: (3, 3, 2, 2) has (3+3+2+2)/36 = 0.278 per entry.
    # With (6, 6), 12/36 = 0.333: keep 22 of 72: scale * (10 + 12) = 22, scale 1: 10 and 12 kept.
    kernel, dense = np.zeros((3, 3, 2, 2)), np.zeros((6, 6))
    assert allocation.erdos_renyi_kernel({"a": kernel, "b": dense}, 50 / 72) == {"a": 26, "b": 24}


def test_a_mapping_by_hand():
    # 'a' ends at a half of 4, 'b' is not named and takes the overall quarter of 4.
    method = Percentile(0.25, allocation={"a": 0.5})
    masks = decide(method, {"a": np.array([[4, 3], [2, 1.0]]), "b": np.array([[4, 3], [2, 1.0]])}, 0.25)
    assert masks["a"].astype(int).tolist() == [[1, 1], [0, 0]] and masks["b"].astype(int).tolist() == [[1, 1], [1, 0]]
    # Half way there 'a' is at a quarter and 'b' at an eighth of 4, 0.5, which rounds to the even 0.
    masks = decide(method, {"a": np.array([[4, 3], [2, 1.0]]), "b": np.array([[4, 3], [2, 1.0]])}, 0.125)
    assert masks["a"].astype(int).tolist() == [[1, 1], [1, 0]] and masks["b"].all()


def test_a_function_by_hand():
    # It asks for 0.2 of the first and 0.4 of the second: 1 of 4 (0.8 rounds to 1) and 2 of 5.
    units = {"a": [4, 3, 2, 1], "b": [5, 4, 3, 2, 1]}
    assert removed(late_layers_more, units, 0.4) == {"a": [0, 0, 0, 1], "b": [0, 0, 0, 1, 1]}


# Against slow references


def lamp_by_definition(units, share):
    ranked = []
    for place, (key, array) in enumerate(units.items()):
        order = np.argsort(array.ravel(), kind="stable")
        is_gone = np.isinf(array.ravel())
        squares = [Fraction(0) if is_gone[index] else Fraction(float(array.ravel()[index])) ** 2 for index in order]
        for rank, (index, square) in enumerate(zip(order, squares)):
            below = sum(squares[rank:])
            score = square / below if below else Fraction(0)
            ranked.append((-math.inf if is_gone[index] else score, place, rank, key, index))
    chosen = {key: np.zeros(array.size, bool) for key, array in units.items()}
    for _, _, _, key, index in sorted(ranked)[: round(share * len(ranked))]:
        chosen[key][index] = True
    return {key: mark.reshape(units[key].shape) for key, mark in chosen.items()}


@given(units=scores, share=st.floats(0, 0.999))
def test_lamp_follows_its_definition(units, share):
    expected = lamp_by_definition(units, share)
    found = allocation.choose("lamp", units, share)
    assert all((found[key] == expected[key]).all() for key in units)


@given(units=scores, share=st.floats(0, 0.999), data=st.data())
def test_lamp_does_not_depend_on_its_sample(units, share, data):
    # So small a sample brackets the cut and misleads in turn; the counts have to be those of the whole.
    if data.draw(st.booleans()):
        units = gone_some(units, data)
    expected = {key: int(mark.sum()) for key, mark in lamp_by_definition(units, share).items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allocation, "LAMP_SAMPLE", data.draw(st.sampled_from([1, 2, 5])))
        assert allocation.lamp(units, share) == expected


@pytest.mark.parametrize("share", [0.001, 0.3, 0.8, 0.99, 0.9999])
@pytest.mark.parametrize("gone", [0.0, 0.5])
def test_lamp_of_large_weights_follows_its_definition(share, gone):
    generator = np.random.default_rng(0)
    units = {
        "narrow": np.abs(generator.normal(0, 0.01, 3 * allocation.LAMP_SAMPLE)).astype(np.float32),
        "wide": np.abs(generator.standard_cauchy((100, 1000))).astype(np.float32),
        "small": generator.random(50).astype(np.float32),
    }
    for array in units.values():
        array[generator.random(array.shape) < gone] = -np.inf
    ranked = []
    for array in units.values():
        ordered = np.sort(array, axis=None)
        squares = np.where(np.isinf(ordered), 0.0, ordered.astype(np.float64)) ** 2
        ranked.append(np.where(np.isinf(ordered), -np.inf, squares / np.cumsum(squares[::-1])[::-1]))
    cut = np.sort(np.concatenate(ranked))[round(share * sum(array.size for array in units.values())) - 1]
    counts = allocation.lamp(units, share)
    if cut > 0:
        assert list(counts.values()) == [int(np.count_nonzero(each <= cut)) for each in ranked]
    else:
        assert sum(counts.values()) == round(share * sum(array.size for array in units.values()))
        assert all(counts[key] <= np.count_nonzero(np.isinf(array)) for key, array in units.items())


@given(units=scores, share=st.floats(0, 0.999))
def test_lamp_empties_no_weight_while_others_have_two_units_left(units, share):
    units = {key: array + 1 for key, array in units.items()}
    left = {key: array.size - int(mark.sum()) for (key, array), mark in zip(units.items(), _lamp(units, share))}
    if min(left.values()) == 0:
        assert max(left.values()) <= 1


def _lamp(units, share):
    return allocation.choose("lamp", units, share).values()


@given(units=scores, share=st.floats(0, 0.999))
def test_erk_follows_its_definition(units, share):
    sizes = {key: array.size for key, array in units.items()}
    weightings = {key: sum(array.shape) for key, array in units.items()}
    keep = sum(sizes.values()) - round(share * sum(sizes.values()))
    dense = set()
    while True:
        rest = [key for key in units if key not in dense]
        left = keep - sum(sizes[key] for key in dense)
        scale = Fraction(left, sum(weightings[key] for key in rest)) if rest else 0
        over = {key for key in rest if scale * weightings[key] > sizes[key]}
        if not over:
            break
        dense |= over
    counts = allocation.erdos_renyi_kernel(units, share)
    for key in units:
        wanted = sizes[key] if key in dense else scale * weightings[key]
        assert 0 <= counts[key] <= sizes[key]
        assert abs(sizes[key] - counts[key] - wanted) < 1 + 1e-9


@given(units=scores)
def test_lamp_does_not_look_at_scale(units):
    scaled = {key: array * (8.0 if index % 2 else 0.25) for index, (key, array) in enumerate(units.items())}
    plain, other = (allocation.choose("lamp", each, 0.5) for each in (units, scaled))
    assert all((plain[key] == other[key]).all() for key in units)


def test_a_weight_of_zeros_goes_before_all_others_under_lamp():
    assert removed("lamp", {"a": [1, 2], "zeros": [0, 0]}, 0.5) == {"a": [0, 0], "zeros": [1, 1]}


def test_everything_and_nothing():
    units = {"a": np.arange(3.0), "b": np.arange(4.0)}
    for name in ALLOCATIONS:
        assert not any(mark.any() for mark in allocation.choose(name, units, 0.0).values())
        assert all(mark.all() for mark in allocation.choose(name, units, 0.9999).values())


# Errors


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("lamb", r"no allocation 'lamb'. Did you mean 'lamp'\?"),
        ({"dense": 1.0}, r"allocation: 1.0 for 'dense' is no sparsity in \[0, 1\); write 0.8, say"),
        ({"dense": "most"}, r"allocation: 'most' for 'dense' is no sparsity"),
        ({"dense": True}, r"allocation: True for 'dense' is no sparsity"),
        ({"dense": math.nan}, r"allocation: nan for 'dense' is no sparsity"),
        (3, r"3 is no allocation; give one of 'uniform', 'global', 'lamp', 'erk', 'hierarchical', a mapping"),
        (None, r"None is no allocation"),
    ],
)
def test_errors_of_what_is_no_allocation(wrong, message):
    with pytest.raises(PruningError, match=message):
        Percentile(0.5, allocation=wrong)


UNITS = {"a": np.arange(3.0), "b": np.arange(4.0)}


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda units, share: {"a": share}, r"gave no share for 'b'; give one for every key"),
        (lambda units, share: {"a": share, "b": 1.5}, r"gave 1.5 for 'b'; give a share in \[0, 1\]"),
        (lambda units, share: {"a": share, "b": math.nan}, r"gave nan for 'b'"),
        (lambda units, share: share, r"<lambda> gave 0.5; give a mapping of every key to its share"),
    ],
)
def test_errors_of_functions(function, message):
    with pytest.raises(PruningError, match=message):
        allocation.choose(function, UNITS, 0.5)


def test_a_mapping_alone_chooses_nothing():
    with pytest.raises(PruningError, match="A mapping gives amounts by layer name"):
        allocation.choose({"a": 0.5}, UNITS, 0.5)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.2, [0, 0, 60]), (0.5, [0, 55, 95]), (0.9, [80, 95, 95]), (0.97, [97, 97, 97])]
)
def test_the_last_weights_give_first_until_the_share_is_met(share, expected):
    units = {"first": np.arange(100.0), "middle": np.arange(100.0), "last": np.arange(100.0)}
    assert list(allocation.hierarchical(units, share).values()) == expected
