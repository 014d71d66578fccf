"""The members of each family and the laws that hold for all of them; a new member joins a list and is held to them.

The reference below chooses masks the slow way, unit by unit in exact fractions; it shares no code with tfprune.
"""

import itertools
import json
import math
from fractions import Fraction

import hypothesis
import keras
import numpy as np

from tfprune.deciding import criteria, schedules
from tfprune.deciding.criterion import Context
from tfprune.deciding.method import BoundWeightMethod
from tfprune.deciding.methods import Percentile, Threshold
from tfprune.deciding.patterns import Block, Element, NofM
from tfprune.model.prunable import PrunableWeight
from tfprune.model.tree import Place

# The same examples at every run: a failure is seen where it was made, not by the next person.
hypothesis.settings.register_profile("tfprune", deadline=None, derandomize=True, database=None, max_examples=80)
hypothesis.settings.load_profile("tfprune")


@keras.saving.register_keras_serializable(package="tfprune_tests")
def rising(step):
    return min(0.8, step / 100)


@keras.saving.register_keras_serializable(package="tfprune_tests")
def cubed(weight):
    return np.abs(weight) ** 3


@keras.saving.register_keras_serializable(package="tfprune_tests")
def late_layers_more(units, share):
    return {key: share * (0.5 if index == 0 else 1.0) for index, key in enumerate(units)}


@keras.saving.register_keras_serializable(package="tfprune_tests")
def is_not_last(layer):
    return layer.name != "last"


SCHEDULES = {
    "constant": schedules.Constant(0.5),
    "constant from a step on": schedules.Constant(0.5, begin=0.25, end=1.0, every=1),
    "linear": schedules.Linear(0.1, 0.8),
    "linear over the whole run": schedules.Linear(0.0, 0.9, begin=0.0, end=1.0, every=0.3),
    "falling": schedules.Linear(0.9, 0.2),
    "polynomial": schedules.Polynomial(0.0, 0.8),
    "polynomial of power 1.5": schedules.Polynomial(0.2, 0.9, power=1.5, begin=0.1, every=7),
    "cosine": schedules.Cosine(0.0, 0.95),
    "exponential": schedules.Exponential(0.0, 0.99),
    "one shot": schedules.OneShot(0.5),
    "one shot in the middle": schedules.OneShot(0.5, at=0.5),
    "one shot decided anew": schedules.OneShot(0.5, at=0.2, end=0.9),
    "piecewise": schedules.Piecewise({0.0: 0.3, 0.4: 0.6, 0.9: 0.8}),
    "piecewise decided anew": schedules.Piecewise({0.1: 0.3, 0.6: 0.7}, end=1.0, every=0.1),
    "in turns": schedules.ACDC(0.6, phases=2),
    "in turns decided anew": schedules.ACDC(0.5, begin=0.0, end=1.0, every=0.05),
    "function": schedules.ScheduleFunction(rising),
}
CRITERIA = {
    "magnitude": criteria.Magnitude(),
    "l2": criteria.L2(),
    "random": criteria.Random(seed=3),
    "geometric median": criteria.GeometricMedian(),
    "batch-norm scale": criteria.BatchNormScale(),
    "function": criteria.CriterionFunction(cubed),
}
PATTERNS = {
    "element": Element(),
    "block 4x1": Block(4, 1),
    "block 2x3": Block(2, 3),
    "block 1x1": Block(1, 1),
    "block larger than any weight": Block(100, 100),
    "1:2": NofM(1, 2),
    "2:4": NofM(2, 4),
    "1:3": NofM(1, 3),
    "3:8": NofM(3, 8),
}
ALLOCATIONS = ["uniform", "global", "erk", "lamp", "hierarchical"]
METHODS = {
    "threshold": Threshold(0.05),
    "threshold in standard deviations": Threshold(1.5, unit="std", criterion="l2", pattern=Block(2, 2)),
    "threshold ramp": Threshold(schedules.Linear(0.0, 0.1), layers={"first": 0.2}),
    "percentile": Percentile(0.8),
    "percentile ramp": Percentile(schedules.Cosine(0.1, 0.9), criterion=criteria.Random(7), allocation="erk"),
    "percentile of a function": Percentile(rising, criterion=cubed, allocation=late_layers_more, layers=is_not_last),
    "percentile by layer": Percentile(0.8, allocation={"first": 0.5, "last": 0.9}, layers=["first", "last"]),
    "blocks": Percentile(0.5, pattern="4x1", allocation="global", layers=["fir*"]),
    "2:4": Percentile(pattern="2:4"),
    "1:3 ramp": Percentile(schedules.Polynomial(0.0, 2 / 3), pattern=NofM(1, 3), layers=keras.layers.Dense),
}


def through_json(thing):
    """What a `.keras` file does to an object: a config, written as JSON, read and built again."""
    text = json.dumps(keras.saving.serialize_keras_object(thing))
    return keras.saving.deserialize_keras_object(json.loads(text))


def prunable(arrays, input_axis=-2, dtype="float32"):
    """Weights outside of any model, by key."""
    return [
        PrunableWeight(key, keras.Variable(array, dtype=dtype, name=key), Place(key, ()), input_axis, True)
        for key, array in arrays.items()
    ]


def decide(method, arrays, amount, kept=None, input_axis=-2, dtype="float32"):
    """The masks of a method over plain arrays."""
    return BoundWeightMethod(method, prunable(arrays, input_axis, dtype)).decide(amount, kept)


def mask_of(method, weight, amount=None, kept=None, input_axis=-2):
    """The mask of one array, as 0 and 1, for tables worked by hand."""
    amount = method.final if amount is None else amount
    kept = None if kept is None else {"weight": np.array(kept, bool)}
    return decide(method, {"weight": np.array(weight, np.float32)}, amount, kept, input_axis)["weight"].astype(int)


def units_of(shape, pattern, input_axis):
    """Every unit of a weight as a list of its flat indices, in the order of the units."""
    flat = np.arange(math.prod(shape)).reshape(shape)
    if isinstance(pattern, Block):
        leading = itertools.product(*map(range, shape[:-2]))
        corners = itertools.product(range(0, shape[-2], pattern.height), range(0, shape[-1], pattern.width))
        return [
            list(flat[place][row : row + pattern.height, column : column + pattern.width].ravel())
            for place, (row, column) in itertools.product(leading, list(corners))
        ]
    if isinstance(pattern, NofM):
        lines = np.moveaxis(flat, input_axis, -1).reshape(-1, shape[input_axis])
        return [
            list(line[start : start + pattern.group]) for line in lines for start in range(0, len(line), pattern.group)
        ]
    return [[index] for index in flat.ravel()]


def losses(unit, sizes, pattern):
    """The indices that a unit loses when it is chosen: the smallest, the lowest index first among equals."""
    if isinstance(pattern, NofM):
        return sorted(unit, key=lambda index: (sizes[index], index))[: max(0, len(unit) - pattern.keep)]
    return unit


def reference_scores(weight, pattern, input_axis=-2, kept=None):
    """The importance of every unit by size, as exact fractions; minus infinity where the unit is gone already."""
    sizes = [Fraction(float(abs(value))) for value in weight.ravel()]
    present = [True] * weight.size if kept is None else [bool(value) for value in kept.ravel()]
    scores = []
    for unit in units_of(weight.shape, pattern, input_axis):
        left = sum(present[index] for index in unit)
        # Without an earlier removal there is nothing that could be gone, however short the last group is.
        gone = left <= (pattern.keep if isinstance(pattern, NofM) else 0) and not all(present)
        lost = sum((sizes[index] for index in losses(unit, sizes, pattern)), Fraction(0))
        share = lost / len(unit) if isinstance(pattern, Block) else lost
        scores.append(-math.inf if gone else share)
    return scores


def reference_mask(weight, pattern, count, input_axis=-2, kept=None):
    """The mask that removes exactly `count` units: those already gone, then the least important, then the first."""
    scores = reference_scores(weight, pattern, input_axis, kept)
    units = units_of(weight.shape, pattern, input_axis)
    present = [True] * weight.size if kept is None else [bool(value) for value in kept.ravel()]
    sizes = [Fraction(float(abs(value))) if there else -math.inf for value, there in zip(weight.ravel(), present)]
    mask = np.ones(weight.size, bool)
    for index in sorted(range(len(units)), key=lambda index: (scores[index], index))[:count]:
        mask[losses(units[index], sizes, pattern)] = False
    return mask.reshape(weight.shape)


def removed_units(mask, pattern, input_axis=-2):
    """How many units of a weight a mask has removed whole (thinned to `keep`, for an N:M pattern)."""
    flat = mask.ravel()
    return sum(
        not flat[losses(unit, flat, pattern)].any() if losses(unit, flat, pattern) else False
        for unit in units_of(mask.shape, pattern, input_axis)
    )


def scores_of(criterion, weight, key="weight"):
    return criteria.score(criterion, weight, Context(key))
