"""Scores that are read piece by piece lead to the masks of one plain sort of everything."""

import tracemalloc

import keras
import numpy as np
import pytest
from battery import PATTERNS, decide, prunable, units_of

from tfprune.deciding import allocation, criteria, patterns, pieces, selection
from tfprune.deciding.criterion import Context
from tfprune.deciding.method import BoundWeightMethod
from tfprune.deciding.methods import Percentile, Threshold
from tfprune.deciding.patterns import NofM
from tfprune.deciding.scores import Scores
from tfprune.deciding.structured import Structured
from tfprune.errors import PruningError

AMOUNT = 0.6
VALUES = {
    "normal": lambda random, shape: random.normal(size=shape),
    "ties": lambda random, shape: random.integers(-3, 4, shape) / 4,
    "all equal": lambda random, shape: np.full(shape, -0.5),
    "mostly zero": lambda random, shape: random.normal(size=shape) * (random.random(shape) < 0.2),
    "all zero": lambda random, shape: np.zeros(shape),
    "rising": lambda random, shape: np.linspace(-1, 1, int(np.prod(shape))).reshape(shape),
    "in step with the sample": lambda random, shape: np.where(np.arange(np.prod(shape)) % 8, 1.0, 9.0).reshape(shape),
}
SHAPES = {
    "few": {"a": (2, 3), "b": (1, 4)},
    "some": {"a": (30, 40), "b": (3, 3, 5, 7), "c": (9, 2)},
    "many": {"a": (190, 210), "b": (7, 9), "c": (300, 70)},
}
values = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
shapes = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
earlier = pytest.mark.parametrize("earlier", [False, True], ids=["first", "later"])
dtypes = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])


@pytest.fixture(autouse=True)
def small_samples(monkeypatch):
    """Several pieces, and samples that bracket, in weights of these sizes."""
    monkeypatch.setattr(selection, "SAMPLE", 1 << 10)
    monkeypatch.setattr(allocation, "LAMP_SAMPLE", 1 << 10)
    monkeypatch.setattr(pieces, "PIECE", 1 << 12)


def weights_and_masks(values, shapes, earlier, dtype):
    random = np.random.default_rng(1)
    weights = {key: values(random, shape).astype(dtype) for key, shape in shapes.items()}
    kept = {key: random.random(shape) < 0.7 for key, shape in shapes.items()} if earlier else None
    return weights, kept


def scores_of(weights, kept):
    """The score of every entry, minus infinity where it is gone."""
    sizes = {key: np.abs(np.asarray(weight, np.result_type(weight, np.float32))) for key, weight in weights.items()}
    return {key: np.where(kept[key], size, -np.inf) if kept else size for key, size in sizes.items()}


def without_the_first(ranked, count):
    """Masks without the `count` entries that come first in a stable sort over all weights in turn."""
    order = np.argsort(np.concatenate([array.ravel() for array in ranked.values()]), kind="stable")
    flat = np.ones(order.size, bool)
    flat[order[:count]] = False
    parts = np.split(flat, np.cumsum([array.size for array in ranked.values()])[:-1])
    return {key: part.reshape(array.shape) for (key, array), part in zip(ranked.items(), parts)}


def adapted(scores):
    """The layer-adaptive score of every entry, in the order of the plain one."""
    flat = scores.ravel()
    order = np.argsort(flat, kind="stable")
    squares = np.square(np.maximum(flat[order], 0.0), dtype=np.float64)
    beyond = np.cumsum(squares[::-1])[::-1]
    ordered = np.maximum.accumulate(np.divide(squares, beyond, out=np.zeros(squares.shape), where=beyond > 0))
    found = np.empty(flat.size)
    found[order] = np.where(np.isneginf(flat[order]), -np.inf, ordered)
    return found.reshape(scores.shape)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for key in expected:
        assert (found[key] == expected[key]).all(), key


@values
@shapes
@earlier
@dtypes
@pytest.mark.parametrize("name", ["uniform", "global", "lamp"])
def test_masks_are_those_of_a_plain_sort(name, values, shapes, earlier, dtype):
    weights, kept = weights_and_masks(values, shapes, earlier, dtype)
    scores = scores_of(weights, kept)
    if name == "uniform":
        expected = {
            key: without_the_first({key: array}, round(AMOUNT * array.size))[key] for key, array in scores.items()
        }
    else:
        ranked = {key: adapted(array) for key, array in scores.items()} if name == "lamp" else scores
        counts = without_the_first(ranked, round(AMOUNT * sum(array.size for array in scores.values())))
        # Within a weight the order is that of the scores, whose ties the sums may not have.
        expected = {
            key: without_the_first({key: array}, int((~counts[key]).sum()))[key] for key, array in scores.items()
        }
    assert_same(decide(Percentile(AMOUNT, allocation=name), weights, AMOUNT, kept, dtype=dtype), expected)


@values
@earlier
@dtypes
def test_a_threshold_keeps_what_is_above_it_and_not_gone(values, earlier, dtype):
    weights, kept = weights_and_masks(values, SHAPES["many"], earlier, dtype)
    expected = {key: array > 0.5 for key, array in scores_of(weights, kept).items()}
    assert_same(decide(Threshold(0.5), weights, 0.5, kept, dtype=dtype), expected)


@pytest.mark.parametrize("values", [VALUES["normal"], VALUES["ties"]], ids=["normal", "ties"])
@earlier
@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("shape", [(30, 41), (3, 3, 5, 6), (2, 70, 3), (7, 9, 20)], ids=str)
@pytest.mark.parametrize("input_axis", [-2, -1, 0])
@pytest.mark.parametrize("pattern", [p for p in PATTERNS.values() if isinstance(p, NofM)], ids=repr)
def test_groups_are_thinned_as_one_by_one(pattern, input_axis, shape, share, values, earlier, monkeypatch):
    monkeypatch.setattr(patterns, "PIECE", 1 << 6)
    weights, kept = weights_and_masks(values, {"a": shape}, earlier, "float32")
    own = np.abs(np.asarray(weights["a"], np.result_type(weights["a"], np.float32))).ravel()
    there = kept["a"].ravel() if kept else np.ones(own.size, bool)
    ranks = np.where(there, own, -np.inf)
    units = units_of(shape, pattern, input_axis)

    def thinned(unit, by):
        # Of equal ones the last stay, so the first in a stable sort go.
        gone = np.argsort(by[unit], kind="stable")[: max(0, len(unit) - pattern.keep)]
        return [unit[place] for place in sorted(gone)]

    losses = [sum((own[entry] for entry in thinned(unit, own)), own.dtype.type(0)) for unit in units]
    if earlier:
        losses = [-np.inf if there[unit].sum() <= pattern.keep else loss for unit, loss in zip(units, losses)]
    expected = np.ones(own.size, bool)
    for number in np.argsort(losses, kind="stable")[: round(share * len(units))]:
        expected[thinned(units[number], ranks)] = False
    amount = share * pattern.full
    found = decide(Percentile(pattern=pattern), weights, amount, kept, input_axis)
    assert_same(found, {"a": expected.reshape(shape)})


@pytest.mark.parametrize("criterion", ["l1", "l2"])
@pytest.mark.parametrize("width", [2, 3, 70])
def test_channels_are_scored_as_the_whole_weight_is(criterion, width):
    dense = keras.layers.Dense(width, name="dense")
    model = keras.Sequential([keras.Input((400,)), dense, keras.layers.Dense(2, name="last")])
    bound = Structured(0.0, criterion=criterion).bind(model)
    entries = bound.method.criterion(np.asarray(dense.kernel), Context())
    expected = np.moveaxis(entries, 1, 0)[np.arange(width)].reshape(width, -1).sum(axis=1)
    expected = bound.method.criterion.total(np.zeros(width) + expected)
    assert (bound.scores()["dense"] == expected).all()


def test_the_memory_of_an_update_is_the_masks_and_a_few_scores(monkeypatch):
    monkeypatch.undo()  # samples as large as they are
    shape, count = (1000, 1000), 4
    weights = {str(number): np.random.default_rng(number).normal(size=shape) for number in range(count)}
    for name in ("uniform", "global", "lamp"):
        bound = BoundWeightMethod(Percentile(AMOUNT, allocation=name), prunable(weights, -2, "float32"))
        bound.decide(AMOUNT)
        tracemalloc.start()
        try:
            bound.decide(AMOUNT)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        # The variables are TensorFlow's memory, which is not traced.
        assert peak < 2.5 * count * np.prod(shape), name


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("amount", [0.0, 0.5])
@pytest.mark.parametrize("name", ["uniform", "global", "lamp"])
def test_what_is_not_finite_is_refused_wherever_it_is(name, amount, bad):
    weights = {"a": np.ones((150, 70)), "b": np.ones((150, 70))}
    weights["b"][149, 68] = bad
    with pytest.raises(PruningError, match="The weight 'b' has 1 NaN or infinite entries"):
        decide(Percentile(amount, allocation=name), weights, amount)


def test_scores_of_entries_take_no_memory_of_their_own():
    weight = np.array([[-3.0, 1.0], [0.0, 2.0]], np.float32)
    scores = criteria.scores(criteria.Magnitude(), weight, Context("a"), np.array([[True, False], [True, True]]))
    assert scores.values is weight
    assert scores.array().tolist() == [[3.0, -np.inf], [0.0, 2.0]]
    assert scores.present().array().tolist() == [[3.0, 1.0], [0.0, 2.0]]


def test_scores_without_any_are_empty():
    split = Scores(np.zeros((0, 3), np.float32)).split(0.0, 1.0)
    assert split.marks.shape == (0, 3) and split.inside.size == 0 and split.not_above == 0


def test_a_function_sees_zeros_or_minus_infinity_for_what_is_gone():
    seen = []

    def share_of(scores, share):
        seen.append(scores["a"].tolist())
        return {"a": share}

    kept = {"a": np.array([[True, False], [True, True]])}
    for gone in (0.0, 5.0):
        decide(Percentile(0.5, allocation=share_of), {"a": np.array([[3.0, gone], [1.0, 2.0]])}, 0.5, kept)
    assert seen == [[[3.0, 0.0], [1.0, 2.0]], [[3.0, -np.inf], [1.0, 2.0]]]


@pytest.mark.parametrize("size", [5, 8192, 20_001, pieces.PIECE + 9_000])
@pytest.mark.parametrize("brackets", [(0.0, 0.5), (0.5, 0.6), (-0.5, -0.2), (-0.5, 0.0)])
def test_squares_are_of_what_is_above_zero_not_below_the_bracket_and_not_gone(size, brackets):
    random = np.random.default_rng(size)
    values, kept = random.normal(size=size).astype(np.float32), random.random(size) < 0.6
    for gone in (None, kept):
        counted = (values >= np.float32(brackets[1])) & (values > 0) & (True if gone is None else gone)
        split = Scores(values, gone).split(*map(np.float32, brackets), with_squares=True)
        expected = np.square(values[counted], dtype=np.float64).sum()
        assert split.squares == pytest.approx(expected, rel=1e-12, abs=1e-9)
