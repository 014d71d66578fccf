"""Opening: two traces and a graph for the sizes that suit a model; what does not open stays closed, and is named."""

import contextlib
import inspect
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.model.fresh import tells_how_it_is_made
from tfprune.model.graph import is_graph, nodes_in_order, parts_of, require_graph, takes_graph
from tfprune.model.hooks import maker_of, mask_of
from tfprune.model.inline.building import Building, computes_like_keras
from tfprune.model.inline.fixed import as_in_example, at_one_length
from tfprune.model.inline.inputs import Inputs, inputs_of, sample
from tfprune.model.inline.reasons import CannotOpenError, may_be_the_size, reason_of
from tfprune.model.inline.sizes import BATCH, LENGTHS, SHORT, InputSpec, Pair, Size, groupings, sizes_for
from tfprune.model.inline.tracing import CallTrace, TracedCall, traced
from tfprune.model.tree import children, every_layer, places, weight_keys

TOLERANCE = 1e-5  # of the largest output
TRAINING = ("train_step", "compute_loss")
LARGEST = 60  # of the sizes that are tried for fewer closed layers alone

Known = Callable[[Any], bool]


@dataclass
class Opened:
    """A model's graph, whose layers share their weights with the model.

    Attributes:
        graph: The functional model.
        inputs: What the model takes.
        tables: Weights that layers use by themselves, and the layers of the graph that hold their values.
        closed: Why layers stay closed, by their path in the model.
        training: Paths of the layers that do something else in training, of which the graph keeps the way of inference.
        opened: Paths of the layers that were opened.
        losses: Paths of the layers whose call adds a loss, which the graph does not.
        paths: For each layer or operation of the graph, by id, the path of the layer in the model that it comes from.
        length: Of the sequences, where the model takes no others than of one length that its inputs leave open.
        fixed: Inputs of which the graph takes sizes of the example alone, that the model leaves open.
        unopened: Why nothing was opened, in a sentence, of a graph that is taken as it is.
        unmasked: Whether outputs say which steps are padding in the model, and not in the graph.
        methods: Those by which the model's class trains, which the graph does not have.
    """

    graph: keras.Model
    inputs: Inputs
    tables: list[tuple[Any, Any]] = field(default_factory=list)
    closed: dict[str, str] = field(default_factory=dict)
    training: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    paths: dict[int, str] = field(default_factory=dict)
    length: int | None = None
    fixed: list[InputSpec] = field(default_factory=list)
    unopened: str = ""
    unmasked: bool = False
    methods: list[str] = field(default_factory=list)

    def refresh(self) -> None:
        """Gives the tables the values that the weights have now, and adapted layers theirs; all others share them."""
        for variable, layer in self.tables:
            layer.embeddings.assign(keras.ops.reshape(variable.value, layer.embeddings.shape))
        for layer in (each for each in every_layer(self.graph) if isinstance(each, keras.layers.Normalization)):
            layer.finalize_state()  # derives its constants from weights, which it shares


def known_to_nobody(layer: Any) -> bool:
    """Nothing is known of any layer of the user's."""
    return False


def opens(layer: Any, known: Known = known_to_nobody) -> bool:
    """Whether a layer is one to open: of a class that Keras does not have, and that has no rule of its own."""
    if isinstance(layer, keras.Model):
        return True
    kind = type(layer)
    if kind is keras.layers.SpectralNormalization or _is_a_function(layer):
        return True
    if kind.__module__.startswith("tfprune.") or known(layer):
        return False
    if not computes_like_keras(kind):
        return True
    return bool(children(layer)) and not tells_how_it_is_made(layer)


def _is_a_function(layer: Any) -> bool:
    """Whether a layer is a function of the user's that Keras could not read from a file."""
    if type(layer) is keras.layers.Lambda:
        return True
    function = getattr(layer, "activation", None) if type(layer) is keras.layers.Activation else None
    if function is None or not inspect.isfunction(function) or function.__module__.startswith("keras."):
        return False
    return bool(keras.saving.get_registered_name(function) == function.__name__)


def has_something_to_open(model: Any, known: Known = known_to_nobody) -> bool:
    """Whether a model is no graph of layers that are known, nor one that has been opened."""
    if model in _GRAPHS:
        return False
    layers = [layer for layer in every_layer(model) if layer is not model]
    if any(hasattr(layer, "holds_masks_of") for layer in layers):
        return False
    return not is_graph(model) or any(opens(layer, known) and not is_graph(layer) for layer in layers)


def opened(model: Any, purpose: str, known: Known = known_to_nobody) -> Opened:
    """The graph of a model: the model itself where it is one of layers that are known, else an opened one.

    Args:
        model: What the user gave.
        purpose: What needs a graph, the subject of the message ("Shrinking").
        known: Which layers of the user's stay closed, since something is known about them.

    Raises:
        PruningError: There is no graph to read, and the model cannot be opened.
    """
    if not isinstance(model, keras.Model) or (isinstance(model, keras.Sequential) and not model.built):
        require_graph(model, purpose)
    unopened, closed = "", dict[str, str]()
    if has_something_to_open(model, known):
        try:
            found = open_model(model, known=known)
        except PruningError as error:
            unopened = str(error)
            if not is_graph(model):
                raise PruningError(
                    f"{purpose} needs a functional or Sequential model, or one that opens into such a graph. {error} "
                    "Masks work for it all the same."
                ) from error
        else:
            if found.opened or not is_graph(model):
                return found
            closed = found.closed
    require_graph(model, purpose)
    return Opened(model, inputs_of(model), closed=closed, unopened=unopened)


def open_model(model: keras.Model, data: Any = None, known: Known = known_to_nobody) -> Opened:
    """Opens a model, once; asked again, gives the same graph with the weights of today.

    Args:
        model: A built Keras model.
        data: Example inputs, for a model that does not know them.
        known: Which layers of the user's stay closed, since something is known about them.

    Raises:
        PruningError: The model cannot be opened; names the line of the user's code.
    """
    parts = [model, *every_layer(model), *(parts_of(model) if is_graph(model) else model.variables)]
    marks = [id(part) for part in parts][1:]
    kept = _MADE.setdefault(model, {})
    if data is not None:
        _INPUTS[model] = inputs_of(model, data)
        kept.clear()
    if known not in kept or kept[known][0] != marks:
        kept[known] = marks, _opened(model, _INPUTS.get(model) or inputs_of(model), known)
        _GRAPHS.add(kept[known][1].graph)
    found = kept[known][1]
    found.refresh()
    return found


_MADE: "weakref.WeakKeyDictionary[keras.Model, dict[Known, tuple[list[int], Opened]]]" = weakref.WeakKeyDictionary()
_INPUTS: "weakref.WeakKeyDictionary[keras.Model, Inputs]" = weakref.WeakKeyDictionary()  # as examples showed them
_GRAPHS: "weakref.WeakSet[keras.Model]" = weakref.WeakSet()  # opened as far as they go


def _opened(model: keras.Model, inputs: Inputs, known: Known) -> Opened:
    """The way of choosing sizes that leaves the fewest layers closed."""
    best: Opened | None = None
    errors: list[CannotOpenError] = []
    others: list[Any] = []  # sizes of which fewer are equal, which the model may take all the same
    for groups in groupings(inputs.specs):
        for lengths in LENGTHS:
            sizes = sizes_for(inputs.specs, groups, lengths)
            try:
                found = _with_sizes(model, inputs, sizes, known)
                for other in others:
                    _compare(model, found, other, required=False)
            except CannotOpenError as error:
                errors.append(error)
                if not any(group is not None for keys in groups for group in keys):
                    break
                continue
            if best is None or len(found.closed) < len(best.closed):
                best = found
            if not any(map(may_be_the_size, found.closed.values())) or lengths[0] > LARGEST:
                break
        if best is not None and not best.closed:
            break
        others.append(sizes_for(inputs.specs, groups, SHORT))
    if best is None or (best.closed and inputs.example is not None):
        best = _with_fixed_sizes(model, inputs, known, best)
    return best or _cannot_open(model, inputs, errors[0])


def _with_fixed_sizes(model: keras.Model, inputs: Inputs, known: Known, best: Opened | None) -> Opened | None:
    """The model opened for some sizes alone, where that leaves fewer layers closed than `best`, for any sizes."""
    shown = [[BATCH, *((size, size) for size in shape[1:])] for shape in inputs.example or ()]

    def attempt(fixed: Inputs, sizes: Sequence[Sequence[Pair]]) -> Opened:
        found = _with_sizes(model, fixed, sizes, known)
        if shown and sizes != shown:
            _compare(model, found, shown)
        return found

    found: Opened | None = at_one_length(model, inputs, attempt) if best is None else None
    if found is None and inputs.example is not None:
        with contextlib.suppress(CannotOpenError):
            found = as_in_example(inputs, attempt)
    if found is None or best is None:
        return found or best
    return found if len(found.closed) < len(best.closed) else best


def _cannot_open(model: keras.Model, inputs: Inputs, first: CannotOpenError) -> NoReturn:
    several = sum(size is None for spec in inputs.specs for size in spec.shape[1:]) > 1
    way_out = " Where sizes of its inputs belong together, give an example: tfprune.inline(model, data=inputs)."
    raise PruningError(
        f"'{model.name}' ({type(model).__name__}) cannot be opened into a graph of layers: {first.reason}."
        f"{way_out if several and inputs.example is None else ''}"
    )


def _with_sizes(model: keras.Model, inputs: Inputs, sizes: Sequence[Sequence[Pair]], known: Known) -> Opened:
    """Opens all that opens with these sizes: whatever stops a trace stays closed in the next try."""
    closed: dict[int, tuple[Any, str]] = {}

    def is_open(layer: Any) -> bool:
        return id(layer) not in closed and opens(layer, known)

    while True:
        try:
            return _attempt(model, inputs, sizes, is_open, closed)
        except CannotOpenError as error:
            if error.layer is None or error.layer is model or id(error.layer) in closed:
                first = next(iter(closed.values()), None)
                if first is None:
                    raise
                raise CannotOpenError(
                    f"the layer '{first[0].name}' ({type(first[0]).__name__}) neither opens, since {first[1]}, nor can "
                    f"it stay closed in a graph, since {error.reason}",
                    model,
                ) from error
            closed[id(error.layer)] = (error.layer, error.reason)


def _attempt(
    model: keras.Model,
    inputs: Inputs,
    sizes: Sequence[Sequence[Pair]],
    is_open: Callable[[Any], bool],
    closed: dict[int, tuple[Any, str]],
) -> Opened:
    traces = tuple(_trace(model, inputs, sizes, which, is_open) for which in (0, 1))
    tokens = _tokens(inputs, traces[0])
    if tokens is not None:
        return _attempt(model, tokens, sizes, is_open, closed)
    paths = {id(place.layer): place.path for place in places(model)}
    building = Building(inputs.specs, sizes, (traces[0], traces[1]), weight_keys(model))
    try:
        outputs = building.outputs()
        _name_operations(building, outputs, getattr(model, "output_names", None))
        graph = _class_of(model)(inputs.pack(building.inputs), outputs, name=model.name)
    except CannotOpenError:
        raise
    except Exception as error:
        raise CannotOpenError(reason_of(error)) from error
    found = Opened(graph, inputs, list(building.tables.values()), paths=building.paths)
    found.closed = {paths.get(key, layer.name): reason for key, (layer, reason) in closed.items()}
    found.opened = [paths[id(layer)] for layer in traces[0].opened if id(layer) in paths]
    found.losses = [paths.get(id(layer), layer.name) for layer in traces[0].losses]
    found.training = [paths.get(id(layer), layer.name) for layer in traces[0].asked]
    ends = [x for x in keras.tree.flatten(traces[0].outputs) if x is not None]
    found.unmasked = any(mask_of(x) is not None and mask_of(new) is None for x, new in zip(ends, graph.outputs))
    found.methods = [name for name in TRAINING if getattr(type(model), name) is not getattr(type(graph), name)]
    _compare(model, found, sizes)
    return found


def _class_of(model: keras.Model) -> type[keras.Model]:
    """The class of an opened model: that of a graph of the user's with a train_step of its own stays."""
    listed = isinstance(model, keras.Sequential)
    return type(model) if is_graph(model) and not listed and takes_graph(type(model)) else keras.Model


def _trace(
    model: keras.Model, inputs: Inputs, sizes: Sequence[Sequence[Pair]], which: int, is_open: Callable[[Any], bool]
) -> CallTrace:
    tensors = [
        keras.KerasTensor(tuple(pair[which] for pair in pairs), dtype=spec.dtype, name=spec.name)
        for spec, pairs in zip(inputs.specs, sizes)
    ]
    ranges: dict[int, Size] = {}
    for tensor, pairs in zip(tensors, sizes):
        for axis, pair in enumerate(pairs):
            if axis and pair[0] != pair[1]:
                ranges.setdefault(pair[which], Size(tensor, axis))
    try:
        return traced(model, lambda flat: inputs.call(model, flat), tensors, is_open, ranges)
    except CannotOpenError:
        raise
    except Exception as error:
        raise CannotOpenError(reason_of(error)) from error


def _tokens(inputs: Inputs, trace: CallTrace) -> Inputs | None:
    """The inputs of a subclassed model with those as whole numbers that only tables are read by."""
    if inputs.types_known:
        return None
    dtypes = []
    for spec, tensor in zip(inputs.specs, trace.inputs):
        takers = [
            step for step in trace.steps if any(x is tensor for x in keras.tree.flatten((step.args, step.kwargs)))
        ]
        only_read = takers and all(_reads_rows_of(taker, tensor) for taker in takers)
        dtypes.append("int32" if only_read and spec.dtype.startswith("float") else spec.dtype)
    return inputs.with_dtypes(dtypes) if dtypes != [spec.dtype for spec in inputs.specs] else None


def _reads_rows_of(step: TracedCall, numbers: Any) -> bool:
    """Whether a call takes a tensor for the numbers of rows in a table."""
    takes = type(step.operation).__name__ == "Take" and not any(x is numbers for x in step.args[:1])
    return takes or isinstance(step.operation, keras.layers.Embedding)


def _name_operations(building: Building, outputs: Any, output_names: Sequence[str] | None) -> None:
    """Gives operations names that are the same whenever the model is opened, and outputs those that they had."""
    flat = keras.tree.flatten(outputs)
    if output_names and len(output_names) == len(flat):
        for tensor, name in zip(flat, output_names):
            maker = maker_of(tensor)
            if name not in building.used and not isinstance(maker, keras.layers.InputLayer):
                building.used.add(name)
                maker.__dict__["name"] = name
                building.named[id(maker)] = ""
    for node in nodes_in_order(building.inputs, flat):
        operation = node.operation
        path = building.named.get(id(operation), type(operation).__name__.lower())
        if not isinstance(operation, keras.Layer) and path:
            operation.name = building.name(path)


def _compare(model: keras.Model, found: Opened, sizes: Sequence[Sequence[Pair]], required: bool = True) -> None:
    """Raises unless the graph gives what the model gives, for both sets of sizes, where the model can be run on them.

    Raises:
        CannotOpenError: It does not, or neither set can be run though that is required.
    """
    specs: list[InputSpec] = found.inputs.specs
    graph_inputs = Inputs(specs, found.inputs.structure)
    stopped: list[Exception] = []
    for which in (0, 1):
        generator = np.random.default_rng(which)
        flat = [sample(spec, [pair[which] for pair in pairs], generator) for spec, pairs in zip(specs, sizes)]
        try:
            expected = _answers(model, found.inputs, flat)
        except Exception as error:  # such a size is none for this model, such as a sequence longer than its table
            stopped.append(error)
            continue
        try:
            given = _answers(found.graph, graph_inputs, flat)
        except Exception as error:
            raise CannotOpenError(f"the opened model cannot be run: {' '.join(str(error).split())[:300]}") from error
        apart = max(map(_apart, expected, given), default=0.0)
        if apart > TOLERANCE:
            again = _answers(model, found.inputs, flat)
            if max(map(_apart, expected, again)) <= TOLERANCE:
                raise CannotOpenError(
                    f"the opened model would give something else, by {apart:.2g} of the scale of its outputs"
                )
    if len(stopped) == 2 and required:
        raise CannotOpenError(f"the model cannot be run: {' '.join(str(stopped[0]).split())[:300]}") from stopped[0]


def _answers(model: Any, inputs: Inputs, flat: Sequence[Any]) -> list[np.ndarray]:
    with keras.StatelessScope():  # no seed, no statistic moves on
        outputs = [x for x in keras.tree.flatten(inputs.call(model, flat, training=False)) if x is not None]
    return [np.asarray(x).astype("float64") for x in outputs]


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of two outputs in units of the scale of the first."""
    if one.shape != other.shape:
        return np.inf
    finite = np.isfinite(one)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return np.inf
    scale = float(np.abs(one[finite]).max(initial=0.0)) or 1.0
    return float(np.abs(one[finite] - other[finite]).max(initial=0.0)) / scale
