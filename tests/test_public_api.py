"""The names and arguments that users' code relies on."""

import inspect

import keras
import pytest

import tfprune
from tfprune.deciding.criteria import Criterion
from tfprune.deciding.methods import Method
from tfprune.deciding.patterns import Pattern
from tfprune.deciding.schedules import Schedule

# Stage -> names. A new public name is added here and to the contents page of the package.
NAMES = {
    "schedules": ["Constant", "Linear", "Polynomial", "Cosine", "Exponential", "OneShot", "Piecewise", "ACDC"],
    "patterns": ["Element", "Block", "NofM", "Template"],
    "methods": ["Threshold", "Percentile", "Structured", "StructuredDepth"],
    "training": [
        "PruningCallback",
        "ThresholdPruning",
        "PercentilePruning",
        "StructuredPruning",
        "PrunedLayer",
        "wrap",
        "UpdateMasks",
        "SparsityLogger",
        "IterativePruning",
        "DynamicSurgery",
        "RigL",
        "ProximalSparsity",
        "distill",
    ],
    "one-shot": ["prune", "prune_hybrid", "factorize", "method_for"],
    "after": ["strip_masks", "get_masks", "apply_masks"],
    "open": ["inline"],
    "channels": ["channel_groups", "plan_shrink", "ShrinkPlan", "shrink", "certify"],
    "deploy": [
        "plan_sparse",
        "SparsePlan",
        "quantize_aware",
        "convert",
        "LiteModel",
        "verify",
        "layer_errors",
        "benchmark",
    ],
    "judge": ["summary", "sensitivity", "report"],
    "search": ["genetic_search", "SearchResult", "compress", "Compression"],
    "interop": ["from_tfmot"],
    "errors": ["PruningError", "ConversionError"],
    "package": ["__version__"],
}
ALL = [name for names in NAMES.values() for name in names]

# The arguments in their order, as documented, with the defaults that matter.
ARGUMENTS = {
    "Constant": "(value, begin, end, every)",
    "Linear": "(initial, final, begin, end, every)",
    "Polynomial": "(initial, final, power=3, begin, end, every)",
    "Cosine": "(initial, final, begin, end, every)",
    "Exponential": "(initial, final, begin, end, every)",
    "OneShot": "(value, at, begin, end, every)",
    "Piecewise": "(amounts, begin, end, every)",
    "ACDC": "(final, phases=4, begin, end, every)",
    "Threshold": "(amount, criterion='magnitude', pattern='element', layers=None, unit='absolute')",
    "Percentile": "(amount, criterion='magnitude', pattern='element', allocation='lamp', layers=None)",
    "Structured": "(amount, criterion='l2', allocation='global', budget='channels', round_to=1, min_channels=1,"
    " layers=None, unit=None)",
    "StructuredDepth": "(amount, layers=None)",
    "Block": "(height, width)",
    "NofM": "(keep, group)",
    "prune": "(model, method, data=None, reconstruct=None, return_report=False)",
    "prune_hybrid": "(model, channels, weights, data=None, reconstruct=None)",
    "method_for": "(model, method, parameters=None, macs=None, gzip_bytes=None, sparse_bytes=None, data=None)",
    "Template": "(templates)",
    "IterativePruning": "(method, rounds=5, rewind=None, learning_rate=None)",
    "DynamicSurgery": "(amount, margin=0.1)",
    "RigL": "(sparsity, fraction=0.3, initial=None, allocation='erk', layers=None, begin=0.0, end=0.75, every)",
    "ProximalSparsity": "(method, strength=0.02, end=0.75)",
    "factorize": "(model, amount, data=None)",
    "strip_masks": "(model)",
    "get_masks": "(model)",
    "apply_masks": "(model, masks)",
    "wrap": "(model, method)",
    "SparsityLogger": "(log_dir)",
    "inline": "(model, data=None)",
    "channel_groups": "(model)",
    "plan_shrink": "(model, method=None, data=None)",
    "shrink": "(model, plan=None)",
    "certify": "(masked, shrunk, data=None)",
    "quantize_aware": "(model)",
    "convert": "(model, quantization='float32', representative_data=None, io='int8', sparse=False)",
    "plan_sparse": "(model, runtime='litert', quantization='float32')",
    "verify": "(model, lite, data, labels=None)",
    "layer_errors": "(model, lite, data)",
    "benchmark": "(models, runs, threads=1)",
    "summary": "(model)",
    "report": "(model, baseline=None, lite=None, data=None, out='report.html')",
    "compress": "(model, train, val, max_drop=0.01, target='smallest')",
    "genetic_search": "(model, data, objectives, genome='channels', population, generations,"
    " selection, crossover, mutation, seed, journal=None, workers=1)",
}


def test_the_contents_page_lists_these_names_and_no_others():
    assert sorted(tfprune.__all__) == sorted(ALL)
    assert len(set(ALL)) == len(ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_name_is_there(name):
    assert hasattr(tfprune, name)
    if name != "__version__":
        assert name in tfprune.__doc__


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_stay_in_their_order(name):
    parameters = inspect.signature(getattr(tfprune, name)).parameters
    documented = [part.strip().partition("=") for part in ARGUMENTS[name].strip("()").split(",")]
    present = list(parameters)
    places = [present.index(argument) for argument, _, _ in documented]
    assert places == sorted(places)
    for argument, _, default in documented:
        if default:
            assert repr(parameters[argument].default) == default


@pytest.mark.parametrize("name", NAMES["schedules"])
def test_schedules_take_begin_end_and_every_by_name(name):
    kind = getattr(tfprune, name)
    first = {"Constant": (0.5,), "OneShot": (0.5,), "Piecewise": ({0: 0.5},), "ACDC": (0.5, 1)}.get(name, (0.0, 0.5))
    schedule = kind(*first, begin=0, end=10, every=5)
    assert isinstance(schedule, Schedule) and schedule.bind(11).steps() == [0, 5, 10]


def kinds(base):
    for kind in base.__subclasses__():
        yield from kinds(kind)
        if kind.__module__.startswith("tfprune."):
            yield kind


def test_everything_that_is_saved_is_registered_under_a_name_of_its_own():
    registered = {
        kind: keras.saving.get_registered_name(kind)
        for base in (Schedule, Criterion, Pattern, Method)
        for kind in kinds(base)
        if kind.__name__ not in ("Ramp", "WeightMethod", "DataCriterion")  # bases of others
    }
    assert len(registered) >= 20
    for kind, name in registered.items():
        assert name.startswith("tfprune>") and keras.saving.get_registered_object(name) is kind
