"""Values that no function can work with: each is named in an error of ours, before anything is changed."""

import keras
import numpy as np
import pytest

import tfprune as t
from tfprune.errors import PruningError, answer_of, listed, number, path_of
from tfprune.model.data import real_array

GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.random((32, 8)).astype(np.float32), GENERATOR.integers(0, 3, 32)


def fail(*_):
    raise ZeroDivisionError("division by zero")


def network():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8,)), keras.layers.Dense(16, "relu", name="a"), keras.layers.Dense(3, "softmax", name="b")]
    model = keras.Sequential(layers, name="small")
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def model():
    """A model that is only looked at."""
    return network()


@pytest.fixture(scope="module")
def lite(model):
    return t.convert(model)


def fit(*callbacks):
    return network().fit(X, Y, verbose=0, batch_size=8, callbacks=list(callbacks))


def scored(function):
    return lambda model, lite: t.prune(model, t.Percentile(0.5, criterion=function))


def scheduled(function):
    return lambda model, lite: fit(t.PercentilePruning(function))


def allocated(function):
    return lambda model, lite: t.prune(model, t.Percentile(0.5, allocation=function))


def checked(**bounds):
    return lambda model, lite: t.verify(model, lite, X).broken(**bounds)


def labelled(labels):
    return lambda model, lite: t.verify(model, lite, X, labels=labels)


CASES = {
    "criterion gives None": (scored(lambda w: None), "criterion <lambda> gave for 'a/kernel' must be real"),
    "criterion gives text": (scored(lambda w: np.full(w.shape, "a")), "must be real numbers, and str32 came"),
    "criterion gives complex": (scored(lambda w: w + 1j), "must be real numbers, and complex64 came"),
    "criterion gives NaN": (scored(lambda w: w * np.nan), "gave 128 NaN or infinite scores for 'a/kernel'"),
    "criterion gives too few": (scored(lambda w: w[:1]), r"gave scores of shape \(1, 16\) for 'a/kernel'"),
    "criterion raises": (scored(fail), "The criterion fail for 'a/kernel' raised ZeroDivisionError: division by zero"),
    "criterion takes nothing": (scored(lambda: 1), "for 'a/kernel' raised TypeError"),
    "schedule gives None": (scheduled(lambda s: None), "The schedule <lambda> at step 0: amount=None is no number"),
    "schedule gives NaN": (scheduled(lambda s: float("nan")), "at step 0: amount=nan is no number of 0 or more"),
    "schedule gives text": (scheduled(lambda s: "a"), "amount='a' is no number"),
    "schedule gives complex": (scheduled(lambda s: 1j), "amount=1j is no number"),
    "schedule gives several": (scheduled(lambda s: np.ones(3)), r"amount=array\(.* is no number"),
    "schedule gives less than 0": (scheduled(lambda s: -1.0), "amount=-1.0 is no number of 0 or more"),
    "schedule raises": (scheduled(fail), "The schedule fail at step 0 raised ZeroDivisionError"),
    "allocation raises": (allocated(fail), "The allocation fail raised ZeroDivisionError"),
    "allocation gives text": (allocated(lambda u, s: dict.fromkeys(u, "x")), "gave 'x' for 'a/kernel'; give a share"),
    "ramp to NaN": (lambda m, lite: t.Polynomial(0.0, float("nan")), "Polynomial: final=nan is no number; write 0.5"),
    "ramp from text": (lambda m, lite: t.Linear("a", 0.5), "Linear: initial='a' is no number"),
    "power": (lambda m, lite: t.Polynomial(0, 0.5, power="x"), "Polynomial: power='x' gives no ramp"),
    "piecewise of a list": (lambda m, lite: t.Piecewise([1]), r"Piecewise: \[1\] is no mapping; write Piecewise\("),
    "piecewise at text": (lambda m, lite: t.Piecewise({"a": 0.5}), "Piecewise: moment='a' is no moment"),
    "piecewise of text": (lambda m, lite: t.Piecewise({0: "x"}), "Piecewise: the amount at 0='x' is no number"),
    "RigL sparsity": (lambda m, lite: t.RigL("0.9"), r"RigL: sparsity='0.9' is no number; write 0.9"),
    "RigL fraction": (lambda m, lite: t.RigL(0.9, fraction=None), r"RigL: fraction=None is not in \[0, 1\]"),
    "surgery margin": (lambda m, lite: t.DynamicSurgery(0.5, margin="x"), "DynamicSurgery: margin='x' is not in"),
    "proximal strength": (lambda m, lite: t.ProximalSparsity(0.5, strength=None), "strength=None is not positive"),
    "masks in a list": (lambda m, lite: t.apply_masks(m, [X]), "masks is list, no mapping; write {'dense/kernel'"),
    "levels alone": (lambda m, lite: t.sensitivity(m, (X, Y), levels=0.5), r"levels=0.5 is no list; write levels="),
    "levels of text": (lambda m, lite: t.sensitivity(m, (X, Y), levels=["a"]), "levels: a level='a' is no number"),
    "budget of channels": (lambda m, lite: t.Structured(0.5, budget=0.5), "there is no budget 0.5"),
    "labels of text": (labelled(np.array(["a"] * 32)), "labels must be real numbers, and str32 came"),
    "labels of objects": (labelled([None] * 32), "labels must be real numbers, and object came"),
    "labels of NaN": (labelled(np.full(32, np.nan)), "labels hold NaN"),
    "labels alone": (labelled(3), "labels are one value for each sample, and a single one came"),
    "labels out of range": (labelled(Y + 10), "lie in 10..12, but it has 3 classes"),
    "inputs of objects": (lambda m, lite: lite(np.full((2, 8), None)), "Input '.*' must be real numbers, and object"),
    "inputs of complex": (lambda m, lite: lite(X + 1j), "must be real numbers, and complex64 came"),
    "ragged inputs": (lambda m, lite: lite([[1], [2, 3]]), "cannot be read as one array"),
    "data as a path": (lambda m, lite: t.verify(m, lite, "x.npy"), "cannot read this: data is str"),
    "empty data": (lambda m, lite: t.benchmark({"a": lite}, data=X[:0]), "given no samples: data is empty"),
    "float layers": (lambda m, lite: t.convert(m, "int8", X, float_layers=3), "float_layers=3 is no list"),
    "log folder": (lambda m, lite: t.SparsityLogger(__file__), "SparsityLogger: log_dir='.*' is a file; give a folder"),
    "log nowhere": (lambda m, lite: t.SparsityLogger(None), "log_dir=None is no path; write 'logs'"),
    "ragged templates": (lambda m, lite: t.Template([[[1, 0], [1]]]), "a template cannot be read as one array"),
    "no templates": (lambda m, lite: t.Template(None), "templates=None is no list"),
    "JSON into a folder": (lambda m, lite: t.summary(m).to_json("/"), "Cannot write '/': it is a folder. Give a file"),
    "JSON nowhere": (lambda m, lite: t.summary(m).to_json("/no/where"), "Cannot write '/no/where': No such file"),
    "a plot of no kind": (lambda m, lite: t.summary(m).plot("/tmp/a.xyz"), "a.xyz': Format 'xyz' is not"),
    "width": (lambda m, lite: t.summary(m).to_text("x"), "width='x' is no number of columns"),
    "sparsities": (lambda m, lite: t.compress(m, (X, Y), (X, Y), sparsities="a"), "sparsities='a' is no list"),
    "folder": (lambda m, lite: t.compress(m, (X, Y), (X, Y), folder=5), "folder=5 is no path; write 'compressed'"),
    "repair with NaN": (
        lambda m, lite: t.prune(m, t.Percentile(0.5), X * np.nan, "least_squares"),
        "reconstruct='least_squares': data holds NaN or infinite values, in batch 0. Take those samples out",
    ),
    "agreement above 1": (checked(min_agreement=2), r"bound of the top-1 agreement=2 is no number in \[0, 1\]"),
    "agreement of text": (checked(min_agreement="x"), "bound of the top-1 agreement='x' is no number"),
    "difference below 0": (checked(max_difference=-1), "bound of the largest difference=-1 is no number of 0 or more"),
    "in evaluate": (
        lambda m, lite: m.evaluate(X, Y, verbose=0, callbacks=[t.PercentilePruning(0.5)]),
        "PercentilePruning prunes in fit and does nothing in evaluate; leave it out there",
    ),
    "in predict": (
        lambda m, lite: m.predict(X, verbose=0, callbacks=[t.RigL(0.5)]),
        "RigL prunes in fit and does nothing",
    ),
    "two on the same weights": (
        lambda m, lite: fit(t.PercentilePruning(0.5, layers="a"), t.RigL(0.9)),
        "PercentilePruning and RigL both prune 'a/kernel' in this fit, .* Give each its own layers=",
    ),
    "objectives": (lambda m, lite: t.genetic_search(m, (X, Y), objectives=3), "objectives=3 is no list"),
    "journal": (lambda m, lite: t.genetic_search(m, (X, Y), journal=5), "journal=5 is no path"),
    "budget": (lambda m, lite: t.genetic_search(m, (X, Y), budget=3), "budget=3 is no mapping of costs to shares"),
    "searched labels": (lambda m, lite: t.genetic_search(m, (X, np.array(["a"] * 32))), "labels must be real numbers"),
    "no model to shrink": (lambda m, lite: t.shrink(None), "Cannot find the channels of NoneType: give a keras.Model"),
    "no model to group": (lambda m, lite: t.channel_groups(3), "Cannot find the channels of int"),
    "no model to certify": (lambda m, lite: t.certify(m, None), "Cannot certify NoneType"),
    "layers by a function": (
        lambda m, lite: t.prune(m, t.Percentile(0.5, layers=fail)),
        "The function given as layers= for 'a' raised ZeroDivisionError",
    ),
    "load": (lambda m, lite: t.LiteModel.load(3), "path=3 is no path; write 'model.tflite'"),
    "save": (lambda m, lite: lite.save(3), "path=3 is no path"),
    "no batches": (
        lambda m, lite: network().fit(X[:0], Y[:0], verbose=0, callbacks=[t.PercentilePruning(0.5)]),
        "This run has no batches: the data are empty, or epochs=0. Give fit some samples",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_value_is_named(case, model, lite):
    call, message = CASES[case]
    with pytest.raises(PruningError, match=message):
        call(model, lite)


def test_a_mask_that_keeps_nothing_is_told():
    with pytest.warns(UserWarning, match="the mask for 'a/kernel' keeps nothing: the whole weight is zero"):
        t.apply_masks(network(), {"a/kernel": np.zeros((8, 16), bool)})


def test_two_callbacks_on_weights_of_their_own_work_and_evaluation_inside_of_fit_is_no_evaluate():
    model = network()
    callbacks = [t.PercentilePruning(0.5, layers="a"), t.PercentilePruning(0.75, layers="b")]
    model.fit(X, Y, verbose=0, batch_size=8, callbacks=callbacks, validation_data=(X, Y))
    zeros = {key: 1 - np.mean(mask) for key, mask in t.get_masks(model).items()}
    assert zeros == {"a/kernel": 0.5, "b/kernel": 0.75}


@pytest.mark.parametrize("value", [2, 0.5, np.float32(0.25), np.int64(3), np.array(1.5), keras.ops.ones(())])
def test_numbers_of_any_library_are_numbers(value):
    assert number("amount", value) == float(value)


@pytest.mark.parametrize("value", ["1", True, None, 1j, float("inf"), float("nan"), [1.0], np.ones(2)])
def test_what_is_no_number(value):
    with pytest.raises(PruningError, match="amount=.* is no number"):
        number("amount", value)


def test_checkers_let_good_values_through():
    assert path_of("path", "a/b", "x").name == "b"
    assert listed("names", ("a", "b"), "x") == ["a", "b"]
    assert answer_of("It", max, 1, 2) == 2
    assert real_array([[True, False]], "It").dtype == bool
    assert real_array(keras.ops.ones((2,), "bfloat16"), "It").shape == (2,)
