"""What each layer gives in Keras, and which tensor of the file is the same result."""

import inspect
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.lite.convert.layer_names import layers_at
from tfprune.lite.file.contents import End, results_of
from tfprune.lite.file.lite_model import LiteModel, invoke
from tfprune.model.graph import Call, flow
from tfprune.model.tree import as_array


@dataclass(frozen=True)
class LayerError:
    """How far the file is from Keras behind one layer.

    Args:
        layer: The layer's path in the Keras model.
        kind: Its class.
        dtype: What the file holds the result in, `"int8"`.
        error: Root mean square of the differences over that of Keras' values; 0 is exact.
        added: How much larger `error` is than behind the layers that this one takes its inputs from.
        largest_difference: Largest absolute difference of any value.
        tensor: Name of the tensor in the file.
        value: What the metric is where this result is the file's and all behind it is Keras'; None without a metric.
    """

    layer: str
    kind: str
    dtype: str
    error: float
    added: float
    largest_difference: float
    tensor: str
    value: float | None = None


def compare_layers(
    model: keras.Model,
    lite: LiteModel,
    order: Sequence[int],
    samples: Iterable[Sequence[np.ndarray]],
    kept: dict[str, np.ndarray] | None = None,
) -> tuple[list[LayerError], list[str], int]:
    """Runs samples through a Keras model and its file, and compares the results of every layer.

    Args:
        model: The Keras model, functional or Sequential.
        lite: The file made of it.
        order: For each input of the file, the number of the model's input that goes there.
        samples: Inputs in the order of the model, each with a batch axis of one.
        kept: Where to put what the file gave behind each layer, by its path. Defaults to None: nowhere.

    Returns:
        The error behind each layer that has a result of its own in the file, the paths of those that have none, and
        the number of samples.
    """
    results = named_results(model, lite)
    runner: Any = None
    layers: dict[str, MatchedLayer] = {}
    count = 0
    for sample in samples:
        given = [sample[index] for index in order]
        if not count:
            runner = lite.prepared([array.shape for array in given], xnnpack=False, keep_all=True)
        lite.fill(runner, given)
        invoke(runner)
        calls = run_calls(model, sample)
        if not count:
            layers = matched(calls, results)
        for call in calls:
            layers[call.path].compare(call.value, runner, kept is not None)
        count += 1
    behind: dict[str, float] = {}  # the error at the end of each path; what is fused hands on that of its inputs
    rows, fused = [], []
    for path, layer in layers.items():
        before = max((behind.get(source, 0.0) for source in layer.call.sources), default=0.0)
        behind[path] = layer.error() if layer.results else before
        if not layer.results:
            if layer.call.kind != "FakeQuantize":  # which rounds for the layer before it and computes nothing
                fused.append(path)
            continue
        end = layer.results[layer.best()]
        if kept is not None:
            kept[path] = np.concatenate(layer.values[layer.best()])
        largest = layer.largest[layer.best()]
        rows.append(
            LayerError(path, layer.call.kind, end.dtype, behind[path], behind[path] - before, largest, end.name)
        )
    return rows, fused, count


def worst_layers(layers: Iterable[LayerError], count: int) -> list[str]:
    """The paths of the layers that add most to the error, the worst first."""
    return [found.layer for found in sorted(layers, key=lambda found: -found.added)[:count]]


class Called(NamedTuple):
    """One call of a layer: its path, the layer's name and class, the paths that it takes from, and what it gave."""

    path: str
    name: str
    kind: str
    sources: list[str]
    value: np.ndarray


def run_calls(model: keras.Model, sample: Sequence[np.ndarray]) -> list[Called]:
    """Runs a model call by call; a layer that is called again gets a number behind its path."""
    calls: list[Called] = []
    made_by: dict[int, str] = {}
    alive: list[Any] = []  # so that no other tensor gets the same id
    counts: Counter[str] = Counter()

    def visit(call: Call) -> list[Any]:
        accepts = "training" in inspect.signature(call.operation.call).parameters
        outputs = call.operation(*call.args, **{**call.kwargs, **({"training": False} if accepts else {})})
        flat = keras.tree.flatten(outputs)
        counts[call.path] += 1
        path = call.path if counts[call.path] == 1 else f"{call.path} ({counts[call.path]})"
        taken = [made_by.get(id(x)) for x in keras.tree.flatten((call.args, call.kwargs))]
        sources = [source for source in dict.fromkeys(taken) if source is not None]
        made_by.update((id(tensor), path) for tensor in flat)
        alive.extend(flat)
        kind = type(call.operation).__name__
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(flat[0].dtype)):
            calls.append(Called(path, call.operation.name, kind, sources, as_array(flat[0])))
        return flat

    flow(model, [keras.ops.convert_to_tensor(array) for array in sample], visit)
    return calls


def named_results(model: keras.Model, lite: LiteModel) -> list[tuple[End, set[str]]]:
    """The computed tensors of a file, each with the names of the layers that the converter has joined in it."""
    computed = results_of(lite.file)
    joined = layers_at(model, [end.name for end in computed])
    ends = {end.tensor: end.name for end in lite.outputs}  # these have lost the names that the converter gave them
    return [(end, {ends[end.tensor]} if end.tensor in ends else joined[end.name]) for end in computed]


def matched(calls: Sequence[Called], results: Sequence[tuple[End, set[str]]]) -> dict[str, "MatchedLayer"]:
    """The calls by path with the tensors that may be their results: of layers joined in one, it is the last one's."""
    layers = {call.path: MatchedLayer(call) for call in calls}
    for end, names in results:
        fitting = [call for call in calls if call.name in names and call.value.shape[1:] == end.shape[1:]]
        for call in fitting:
            if call.name == fitting[-1].name:  # all calls of it, if it is called several times
                layers[call.path].add(end)
    return layers


class MatchedLayer:
    """Adds up the differences between a layer and each of the file's tensors that may be its result."""

    def __init__(self, call: Called):
        self.call = call
        self.results: list[End] = []
        self.squares: list[float] = []
        self.largest: list[float] = []
        self.values: list[list[np.ndarray]] = []
        self.power = 0.0

    def add(self, end: End) -> None:
        """Takes a tensor of the file as one that may be the result."""
        self.results.append(end)
        self.squares.append(0.0)
        self.largest.append(0.0)
        self.values.append([])

    def compare(self, value: np.ndarray, runner: Any, keep: bool = False) -> None:
        """Adds the differences of one sample, which the interpreter has run, from Keras' value."""
        self.power += float(np.sum(np.square(value, dtype=np.float64)))
        for index, end in enumerate(self.results):
            given = end.dequantized(runner.get_tensor(end.tensor))
            if keep:
                self.values[index].append(np.array(given, np.float32))
            difference = given.astype(np.float64) - value
            self.squares[index] += float(np.sum(np.square(difference)))
            self.largest[index] = max(self.largest[index], float(np.abs(difference).max(initial=0.0)))

    def best(self) -> int:
        """Which of the tensors is nearest."""
        return int(np.argmin(self.squares))

    def error(self) -> float:
        """Root mean square of the nearest one's differences over that of Keras' values."""
        return float(np.sqrt(min(self.squares) / self.power)) if self.power else 0.0
