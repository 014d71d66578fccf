"""Low rank: a large layer as two smaller ones, the ranks chosen so that every layer loses alike."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from tfprune.deciding.amounts import is_share
from tfprune.errors import PruningError, listing
from tfprune.model.activations import observed
from tfprune.model.copying import compile_like, scope_of
from tfprune.model.data import batches
from tfprune.model.fresh import fresh_layer
from tfprune.model.graph import Call, flow, model_like
from tfprune.model.inline import inlined
from tfprune.model.layers import LinearForm, facts_of
from tfprune.model.prunable import every_weight_and_kernel
from tfprune.model.state import carry_state
from tfprune.model.tree import as_array, check_model
from tfprune.progress import stage
from tfprune.report import Column, Panel, Report, draw_bars, saved
from tfprune.training.masks import held_masks

KINDS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
HALVINGS = 40


@dataclass(frozen=True)
class Split:
    """One layer and the two that it became.

    Args:
        layer: Its path in the model.
        shape: Of its kernel.
        rank: Outputs of the first of the two; None for a layer that stays whole.
        before: Entries of its kernel.
        after: Entries of both kernels.
        error: Root mean square of the change of its output over that of the output, in [0, 1].
    """

    layer: str
    shape: tuple[int, ...]
    rank: int | None
    before: int
    after: int
    error: float


@dataclass(frozen=True, repr=False)
class Factorization(Report):
    """The ranks that `factorize` chose, and the error behind each layer.

    Args:
        splits: One for each layer that could be split, in the order of the model.
        samples: How many samples the errors come from; 0 where they are those of the kernels alone.
    """

    title: ClassVar[str] = "Layers split in two"
    columns: ClassVar[Sequence[Column]] = (
        Column("layer", "layer"),
        Column("shape", "kernel"),
        Column("rank", "rank", ",d"),
        Column("before", "entries before", ",d"),
        Column("after", "after", ",d"),
        Column("error", "error", ".2%"),
    )

    splits: tuple[Split, ...]
    samples: int

    def rows(self) -> list[dict[str, Any]]:
        return [{**vars(split), "shape": "x".join(map(str, split.shape))} for split in self.splits]

    def totals(self) -> dict[str, Any]:
        return {key: sum(getattr(split, key) for split in self.splits) for key in ("before", "after")}

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the entries of each kernel before and after, beside the error behind the layer."""
        entries = {key: [getattr(split, key) for split in self.splits] for key in ("before", "after")}
        panels = [Panel("entries of the kernel", ",d", entries, stacked=False)]
        panels.append(Panel("error over the output", ".2%", {"": [split.error for split in self.splits]}))
        return saved(draw_bars(self.title, [split.layer for split in self.splits], panels), path)

    def notes(self) -> list[str]:
        of = f"the outputs for {self.samples:,} samples" if self.samples else "the kernels, without data"
        return [
            f"Errors are of {of}. Layers without a rank stay whole. Two small layers may be slower than one: measure."
        ]


class _LargeLayer:
    """A layer that may be split, with the energy of its outputs along each of their principal directions."""

    def __init__(self, path: str, layer: Any, form: LinearForm):
        self.path, self.layer, self.form = path, layer, form
        self.sum, self.squares, self.count = 0.0, 0.0, 0  # of the rows that its kernel is multiplied with

    def add(self, inputs: Any) -> None:
        """Takes in the input of one call."""
        rows = as_array(self.form.rows(inputs))[0].astype(np.float64)
        self.sum, self.squares = self.sum + rows.sum(0), self.squares + rows.T @ rows
        self.count += len(rows)

    def decompose(self) -> None:
        """Finds the directions, the strongest first (Zhang et al., "Accelerating very deep convolutional networks for
        classification and detection", 2015); without data all inputs count alike.
        """
        self.matrix = self.form.to_matrix(as_array(self.form.kernel))[0].astype(np.float64)
        features, outputs = self.matrix.shape
        self.mean = np.zeros(outputs)
        moment = np.eye(features) if not self.count else self.squares / self.count
        if self.count and self.layer.use_bias:  # a bias takes up the mean
            middle = self.sum / self.count
            moment, self.mean = moment - np.outer(middle, middle), middle @ self.matrix
        energy, directions = np.linalg.eigh(self.matrix.T @ moment @ self.matrix)
        energy, self.directions = np.maximum(energy[::-1], 0.0), directions[:, ::-1]
        # Error that each rank leaves, from none to all.
        left = np.append(np.cumsum(energy[::-1])[::-1], 0.0)
        self.errors = np.sqrt(left / max(left[0], np.finfo(float).tiny))
        self.price = features + outputs  # entries a rank
        self.size = self.matrix.size

    def rank(self, error: float) -> int:
        """The least rank of 1 or more that leaves no more than this error."""
        return max(1, int(np.argmax(self.errors <= error)))

    def entries(self, rank: int) -> int:
        """Entries of the kernels at a rank: whole where two layers would not be smaller."""
        return min(self.size, rank * self.price)

    def split(self, rank: int | None) -> Split:
        """What stands in the report; a rank of None leaves the layer whole."""
        after, error = (self.size, 0.0) if rank is None else (self.entries(rank), float(self.errors[rank]))
        return Split(self.path, tuple(self.layer.kernel.shape), rank, self.size, after, error)

    def made(self, rank: int) -> list[tuple[keras.Layer, list[np.ndarray]]]:
        """The two layers, each with its weights: the first gives the strongest directions, the second mixes them."""
        config, layer = self.layer.get_config(), self.layer
        width = facts_of(layer).width
        first = {**config, width: rank, "use_bias": False, "activation": "linear", "name": f"{layer.name}_factor"}
        first["bias_regularizer"] = first["activity_regularizer"] = None
        second = dict(config)
        if not isinstance(layer, keras.layers.Dense):
            ones = (1,) * (len(layer.kernel.shape) - 2)
            second.update(kernel_size=ones, strides=ones, dilation_rate=ones, padding="valid")
        kept = self.directions[:, :rank]
        reduced = (self.matrix @ kept).reshape(*layer.kernel.shape[:-1], rank)
        mixed = kept.T.reshape(*(1,) * (len(layer.kernel.shape) - 2), rank, -1)
        weights = [mixed]
        if layer.use_bias:
            weights.append(as_array(layer.bias) + self.mean - self.mean @ kept @ kept.T)
        return [(fresh_layer(layer, first), [reduced]), (fresh_layer(layer, second), weights)]


def factorize(
    model: keras.Model,
    amount: float | Mapping[str, float],
    data: Any = None,
    return_report: bool = False,
) -> Any:
    """A new model whose large dense and convolution layers are two smaller ones each, with nearly the same outputs.

    A kernel is split along the principal directions of its layer's outputs: a layer of as many outputs as directions
    are kept, then a dense layer or 1x1 convolution of the old name, with the bias and the activation. All layers get
    the rank at which they lose the same share of their outputs; where two layers would not be smaller, one stays.
    Single zeros of a kernel that is split are gone: prune after, not before.

    Args:
        model: A built Keras 3 model; it is left as it is. Subclassed models and layers of layers are opened.
        amount: The share of the entries of these kernels that goes, in [0, 1); or layer name -> share.
        data: Some hundreds of inputs, no labels, in any form that `prune` takes. Defaults to None: the kernels alone
            decide, which costs more accuracy.
        return_report: Whether to return `(model, report)`: rank, entries and error of every layer. Defaults to False.

    Raises:
        PruningError: No layer can be split, more is asked than rank 1 leaves, a name is not there, or masks are held.

    Example:
        plain = tfprune.strip_masks(model)
        smaller, report = tfprune.factorize(plain, 0.5, data=images[:500], return_report=True)
        print(report)
    """
    check_model(model, "factorize")
    if held_masks(every_weight_and_kernel(model)):
        raise PruningError(f"'{model.name}' holds masks, which two layers cannot keep. Write strip_masks(model) first.")
    graph = inlined(model, "Splitting layers")
    candidates = _candidates(graph)
    shares = _shares(amount, candidates, model)
    with stage("Splitting layers", total=len(candidates)) as bar:
        samples = _listen(graph, candidates, data) if data is not None else 0
        for candidate in candidates.values():
            candidate.decompose()
            bar.advance()
        ranks = _ranks(candidates, shares)
        made = _rebuilt(graph, {key: candidates[key].made(rank) for key, rank in ranks.items()})
    if model.compiled:
        compile_like(model, made)
    splits = [each.split(ranks.get(key)) for key, each in candidates.items()]
    return (made, Factorization(tuple(splits), samples)) if return_report else made


def _candidates(graph: keras.Model) -> dict[int, _LargeLayer]:
    """The layers that can be split, by id."""
    found: dict[int, _LargeLayer] = {}

    def visit(call: Call) -> Sequence[Any]:
        layer = call.operation
        plain = type(layer) in KINDS and getattr(layer, "groups", 1) == 1 and not getattr(layer, "lora_enabled", False)
        plain = plain and getattr(layer, "quantization_mode", None) is None
        make_form = facts_of(layer).forms.get("kernel") if plain else None
        if make_form is not None and getattr(layer, "data_format", None) != "channels_first":
            found.setdefault(id(layer), _LargeLayer(call.path, layer, make_form(layer)))
        return call.outputs

    flow(graph, list(graph.inputs), visit)
    return found


def _shares(amount: Any, candidates: Mapping[int, _LargeLayer], model: keras.Model) -> list[tuple[float, list[int]]]:
    """The share that goes, and the layers that it is for together."""
    if not candidates:
        raise PruningError(f"'{model.name}' has no dense or convolution layer that can be split.")
    if not isinstance(amount, Mapping):
        return [(_share(amount), list(candidates))]
    keys = {candidate.path: key for key, candidate in candidates.items()}
    unknown = [name for name in amount if name not in keys]
    if unknown:
        raise PruningError(f"No layer {listing(unknown)} can be split in '{model.name}'; these can: {listing(keys)}.")
    return [(_share(share), [keys[name]]) for name, share in amount.items()]


def _share(amount: Any) -> float:
    if not is_share(amount):
        raise PruningError(f"amount={amount!r}: give the share of the entries that goes, in [0, 1), such as 0.5.")
    return float(amount)


def _listen(graph: keras.Model, candidates: Mapping[int, _LargeLayer], data: Any) -> int:
    """Adds up what the layers are given; how many samples there were."""
    samples = 0
    by_layer = {id(candidate.layer): candidate for candidate in candidates.values()}

    def record(layer: Any, inputs: Any, outputs: Any) -> None:
        by_layer[id(layer)].add(inputs)

    with observed([candidate.layer for candidate in candidates.values()], record):
        for batch in batches(data, graph, "factorize()"):
            graph(batch.inputs, training=False)
            samples += batch.size
    return samples


def _ranks(candidates: Mapping[int, _LargeLayer], shares: Sequence[tuple[float, list[int]]]) -> dict[int, int]:
    """The rank of each layer that is split."""
    ranks: dict[int, int] = {}
    for share, keys in shares:
        wanted = (1 - share) * sum(candidates[key].size for key in keys)

        def left(error: float, keys: Sequence[int] = keys) -> int:
            return sum(candidates[key].entries(candidates[key].rank(error)) for key in keys)

        if left(1.0) > wanted:
            raise PruningError(
                f"amount={share:g} is out of reach: rank 1 in every layer leaves {left(1.0):,} entries, and "
                f"{wanted:,.0f} are to stay. Write an amount of at most {1 - left(1.0) / (wanted / (1 - share)):.3f}."
            )
        low, high = 0.0, 1.0 if left(0.0) > wanted else 0.0
        for _ in range(HALVINGS if high else 0):
            middle = (low + high) / 2
            low, high = (low, middle) if left(middle) <= wanted else (middle, high)
        for key in keys:
            rank = candidates[key].rank(high)
            if candidates[key].entries(rank) < candidates[key].size:
                ranks[key] = rank
    return ranks


def _rebuilt(graph: keras.Model, pairs: Mapping[int, list[tuple[keras.Layer, list[np.ndarray]]]]) -> keras.Model:
    """The graph anew, with two layers in the place of some."""
    fresh: dict[int, tuple[Any, Any]] = {}  # by id of the old one: both

    def visit(call: Call) -> list[Any]:
        old = call.operation
        if id(old) in pairs:
            (first, _), (second, _) = pairs[id(old)]
            return [second(first(*call.args, **call.kwargs))]
        if id(old) not in fresh:
            fresh[id(old)] = old, fresh_layer(old)
        return keras.tree.flatten(fresh[id(old)][1](*call.args, **call.kwargs))

    with scope_of(graph):
        inputs = [keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name) for x in graph.inputs]
        outputs = flow(graph, inputs, visit)
        made = model_like(graph, inputs, outputs)
    for layers in pairs.values():
        for layer, weights in layers:
            layer.set_weights(weights)
    for old, new in fresh.values():
        if isinstance(old, keras.Layer):
            carry_state(old, new)
    return made
