"""Shrinking: a plan carried out as a new, smaller, plain Keras model."""

import functools
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.channels.branches import Bypass
from tfprune.channels.grouping import require_plain
from tfprune.channels.groups import ChannelGroups
from tfprune.channels.plan import ShrinkPlan, plan_shrink
from tfprune.channels.rules import Resized, find, has_rule
from tfprune.channels.sizes import Sizes
from tfprune.channels.slots import carry_slots
from tfprune.channels.trace import Role
from tfprune.errors import PruningError
from tfprune.model.copying import compile_like, remade, scope_of
from tfprune.model.fresh import config_of, fresh_operation
from tfprune.model.graph import is_graph, nodes_in_order, takes_graph, tensors_given
from tfprune.model.hooks import forget_calls, maker_of
from tfprune.model.in_files import let_layers_be_read
from tfprune.model.inline import losses_of, opened
from tfprune.model.scores import scores_as_long_as_keys
from tfprune.model.state import carry_state, holds_more, side_by_side


def shrink(model: Any, plan: ShrinkPlan | None = None, *, optimizer: bool = False) -> keras.Model:
    """Builds the smaller model: the channels that a plan removes are gone from every weight.

    The result is a plain Keras model that needs nothing of tfprune: same input and output names, trainable flags,
    regularizers and compile settings, and the weights that are left. The model that is given stays as it is, and
    nothing is shared with it.

    Args:
        model: Functional or Sequential, with plain layers (after `strip_masks`).
        plan: From `plan_shrink`. Default: every channel that is dead already; none: an equal copy, with a warning.
        optimizer: Whether the state of the optimizer comes along (momenta, step count), so that training goes on
            without a jump. By default the new model's optimizer starts afresh.

    Raises:
        PruningError: the model's graph cannot be read, its layers are wrapped, the plan was made for another model or
            would empty a layer, or a layer cannot be made anew from its configuration.

    Example:
        small = tfprune.shrink(tfprune.strip_masks(model))
        small.save("small.keras")
    """
    require_plain(model)
    found = opened(model, "Shrinking", has_rule)
    graph = found.graph
    for note in losses_of(found):
        warnings.warn(f"tfprune: {note}", stacklevel=2)
    if plan is None:
        plan = plan_shrink(model)
        if not plan.removes:
            warnings.warn(
                f"'{model.name}' has no dead channel: the result is an equal copy. To choose channels, give a plan: "
                "shrink(model, plan_shrink(model, Structured(0.5))).",
                stacklevel=2,
            )
    if not isinstance(plan, ShrinkPlan):
        raise PruningError(f"shrink takes a ShrinkPlan, not {type(plan).__name__}; make one with plan_shrink(model).")
    groups = plan.traced(model)
    bypass = Bypass(groups, plan.branches)
    rebuild = Rebuild(groups, Sizes(groups, groups.require_some_left(plan)), bypass)
    with scope_of(model):
        small = rebuild.model(graph)
        rebuild.set_weights()
        rebuild.fold_constants(plan.folds)
        _copy_flags(graph, small, rebuild.copies)
        let_layers_be_read(small)
        if small.dtype_policy != model.dtype_policy:
            small.dtype_policy = model.dtype_policy  # compile() scales the loss by it
        if model.compiled:
            compile_like(model, small)
        if optimizer:
            carry_slots(model, small, rebuild.sizes, bypass.weights)
    return small


class Rebuild:
    """Copies of layers with new sizes, called as the old ones were."""

    def __init__(self, groups: ChannelGroups, sizes: Sizes, bypass: Bypass):
        self.groups, self.trace, self.sizes, self.bypass = groups, groups.trace, sizes, bypass
        self.copies: dict[int, Any] = {}  # by id of the old layer
        self.originals: dict[int, Any] = {}
        self.resized: dict[int, Resized] = {}
        self.widened: Counter[str] = Counter()  # outputs that zeros were put back to, by the name of what made them

    # Layers and models

    @scores_as_long_as_keys()
    def model(self, model: Any, arriving: Sequence[Any] | None = None) -> Any:
        """A copy of a model, nested models in it included; `arriving` are the new tensors that it is called on."""
        inputs = [self._input(tensor, index, arriving) for index, tensor in enumerate(model.inputs)]
        if isinstance(model, keras.Sequential) and not self._needs_operations(model, arriving is None):
            copy = self._sequential(model, inputs[0])
        else:
            copy = self._functional(model, inputs, arriving)
        self._remember(model, copy)
        return copy

    def _input(self, tensor: Any, index: int, arriving: Sequence[Any] | None) -> Any:
        layer = maker_of(tensor)
        config = layer.get_config()
        if arriving is not None:
            # Open sizes stay open: a nested model may be called on images of several sizes.
            sizes = zip(tensor.shape, arriving[index].shape)
            config["batch_shape"] = [None if old is None else new for old, new in sizes]
        return type(layer).from_config(config).output

    def _functional(self, model: Any, inputs: Sequence[Any], arriving: Sequence[Any] | None) -> Any:
        values = {id(old): new for old, new in zip(model.inputs, inputs)}
        for node in self.bypass.nodes(model.inputs, model.outputs):
            stream = self.bypass.stream(node)
            if stream is not None:
                passed = self.bypass.passed(node, values[id(stream)], model.outputs)
                values[id(node.output_tensors[0])] = passed
                continue

            def fill(x: Any) -> Any:
                return values[id(x)] if isinstance(x, keras.KerasTensor) else x

            args = keras.tree.map_structure(fill, node.arguments.args)
            kwargs = keras.tree.map_structure(fill, node.arguments.kwargs)
            results = keras.tree.flatten(self._call(node, args, kwargs))
            values.update((id(old), new) for old, new in zip(node.output_tensors, results))

        if arriving is None:
            given = {id(old): (old, channels) for old, channels in zip(model.outputs, self.trace.outputs)}
            for old, channels in given.values():  # each once, though a model may give one several times
                values[id(old)] = self._whole(old, values[id(old)], channels)

        def new(old: Any) -> Any:
            return values[id(old)]

        listed = isinstance(model, keras.Sequential)  # one that was never called knows its ends as lists only
        ends = (model.inputs[0], model.outputs[0]) if listed else (model.input, model.output)
        structures = [keras.tree.map_structure(new, end) for end in ends]
        # A subclass that takes inputs and outputs, with its own train_step, stays what it is.
        cls = keras.Model if listed else self._class_of(model, keras.Model)
        return cls(*structures, name=model.name)

    def _needs_operations(self, model: Any, outermost: bool) -> bool:
        """Whether zeros have to be put where channels are gone, which a list of layers has no place for."""
        nodes = nodes_in_order(model.inputs, model.outputs)
        entries = [(node, find(node.operation)) for node in nodes if id(node) in self.trace.calls]
        outputs = [(channels, a) for channels in self.trace.outputs for a in range(channels.rank)] if outermost else []
        return any(e is not None and e.replay is not None and self._changes(node) for node, e in entries) or any(
            self.sizes.kept(channels, axis) is not None for channels, axis in outputs
        )

    def _whole(self, old: Any, tensor: Any, channels: Any) -> Any:
        """An output with zeros where its channels are gone, under the name that it had."""
        for axis in range(channels.rank):
            kept = self.sizes.kept(channels, axis)
            if kept is None:
                continue
            places = np.where(kept, np.cumsum(kept) - 1, kept.sum()).astype("int32")
            widths = [(0, int(other == axis)) for other in range(channels.rank)]
            maker = maker_of(old)
            self.copies.get(id(maker), maker_of(tensor)).name = f"{maker.name}_narrow"
            tensor = keras.ops.take(keras.ops.pad(tensor, widths), places, axis=axis)
            again = self.widened[maker.name]  # a layer that was called twice may give two of the outputs
            self.widened[maker.name] += 1
            maker_of(tensor).name = f"{maker.name}_{again}" if again else maker.name
        return tensor

    def _sequential(self, model: Any, inputs: Any) -> Any:
        by_layer = {id(node.operation): node for node in nodes_in_order(model.inputs, model.outputs)}
        layers, value = [inputs], inputs
        for layer in model.layers:
            node = by_layer[id(layer)]
            layers.append(self._guarded(node, functools.partial(self.copy, node, keras.tree.flatten(value))))
            value = self._guarded(node, functools.partial(layers[-1], value))
            self._check_shapes(node, keras.tree.flatten(value))
            forget_calls(layers[-1])  # the whole calls it again; one that grew by layers would call all at each
        return self._class_of(model, keras.Sequential)(layers, name=model.name)

    def _class_of(self, model: Any, plain: type) -> type:
        if takes_graph(type(model)):
            return type(model)
        warnings.warn(
            f"'{model.name}' is of class {type(model).__name__}, whose __init__ makes its layers itself: the smaller "
            f"model is a plain keras.{plain.__name__}, without the methods of that class (such as train_step).",
            stacklevel=6,
        )
        return plain

    def _call(self, node: Any, args: Any, kwargs: Any) -> Any:
        operation = node.operation
        if isinstance(operation, keras.Layer):
            results = self._guarded(node, lambda: self._recall(node, args, kwargs))
        else:
            results = self._guarded(node, lambda: self._replay(operation, node, args, kwargs))
        self._check_shapes(node, keras.tree.flatten(results))
        return results

    def _recall(self, node: Any, args: Any, kwargs: Any) -> Any:
        copy, entry = self.copy(node, keras.tree.flatten((args, kwargs))), find(node.operation)
        if entry is None or entry.replay is None or not self._changes(node):
            return copy(*args, **kwargs)
        return entry.replay(copy, args, kwargs, self.sizes.resized_for(node))

    def _changes(self, node: Any) -> bool:
        """Whether a call takes or gives tensors that lose entries."""
        call = self.trace.calls[id(node)]
        around = [*call.inputs, *call.outputs]
        return any(self.sizes.kept(channels, axis) is not None for channels in around for axis in range(channels.rank))

    def _guarded(self, node: Any, step: Callable[[], Any]) -> Any:
        """Runs one step of the building; an error names the layer."""
        try:
            return step()
        except PruningError:
            raise
        except Exception as error:
            raise PruningError(
                f"Layer '{self._path(node)}' ({type(node.operation).__name__}) does not fit its neighbours after "
                f"shrinking: {_one_line(error)} Correct its channel rule or its resize."
            ) from error

    def _path(self, node: Any) -> str:
        visit = self.trace.calls.get(id(node))
        return visit.path if visit is not None else str(node.operation.name)

    def _replay(self, operation: Any, node: Any, args: Any, kwargs: Any) -> Any:
        entry = find(operation)
        if entry is not None and entry.replay is not None:
            results = entry.replay(operation, args, kwargs, self.sizes.resized_for(node))
        else:
            results = fresh_operation(operation)(*args, **kwargs)
        _rename(results, (args, kwargs), operation.name)
        return results

    def copy(self, node: Any, arguments: Sequence[Any]) -> Any:
        """The copy of the called layer with its new sizes, made once; `arguments` are those of its new call."""
        layer = node.operation
        if id(layer) in self.copies:
            return self.copies[id(layer)]
        if is_graph(layer):
            old = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
            new = {id(tensor): x for tensor, x in zip(old, arguments)}
            return self.model(layer, [new[id(tensor)] for tensor in tensors_given(node)])
        entry = find(layer)
        resized = self.resized[id(layer)] = self.sizes.resized_for(node)
        try:
            config = _cleaned(config_of(layer), loses := self._loses(layer))
            if entry is not None and entry.resize is not None:
                entry.resize(layer, config, resized)
            copy = remade(layer, config, same_sizes=not loses and resized.outputs == resized.old_outputs)
        except Exception as error:
            raise PruningError(
                f"Layer '{layer.name}' ({type(layer).__name__}) cannot be made anew from its configuration: "
                f"{_one_line(error)} "
                "Give its class a get_config() that returns every argument of __init__."
            ) from error
        self._remember(layer, copy)
        return copy

    def _loses(self, layer: Any) -> bool:
        return any(self.sizes.size(variable) != tuple(variable.shape) for variable in layer.weights)

    def _remember(self, old: Any, new: Any) -> None:
        self.copies[id(old)] = new
        self.originals[id(old)] = old

    def _check_shapes(self, node: Any, results: Sequence[Any]) -> None:
        if id(node) not in self.trace.calls:
            return
        for index, (channels, result) in enumerate(zip(self.trace.calls[id(node)].outputs, results)):
            expected = self.sizes.shape(channels)
            if any(a is not None and b is not None and a != b for a, b in zip(expected, result.shape)):
                raise PruningError(
                    f"Layer '{self._path(node)}' ({type(node.operation).__name__}) gives shape {tuple(result.shape)} "
                    f"at output {index} after shrinking, but its channel rule says {expected}. Correct the rule or its "
                    "resize."
                )

    # Weights

    def pairs(self) -> list[tuple[Any, Any]]:
        """Old and new variables side by side."""
        pairs = []
        for key, old in self.originals.items():
            if isinstance(old, keras.Model):
                continue
            new = self.copies[key]
            if len(old.variables) != len(new.variables):
                raise PruningError(
                    f"The copy of layer '{old.name}' ({type(old).__name__}) has {len(new.variables)} weights instead "
                    f"of {len(old.variables)}; does get_config() return every argument of __init__?"
                )
            pairs += list(zip(old.variables, new.variables))
        return pairs

    def set_weights(self) -> None:
        """Gives every new variable the entries of the old one that stay."""
        for old, new in self.pairs():
            value = self.sizes.cut(old, keras.ops.convert_to_numpy(old) if self.sizes.touches(old) else old.value)
            if tuple(value.shape) != tuple(new.shape):
                raise PruningError(
                    f"Weight '{self.groups.key_of.get(id(old), old.path)}' has shape {tuple(new.shape)} after "
                    f"shrinking, but {tuple(value.shape)} by its channel rule. Correct the rule or its resize."
                )
            new.assign(value)
        for key, old in self.originals.items():
            if isinstance(old, keras.Model):
                continue
            copy, entry = self.copies[key], find(old)
            if isinstance(old, keras.Layer) and holds_more(old) and not self._goes_by_channel(old):
                carry_state(old, copy)
            if entry is not None and entry.adjust is not None:
                entry.adjust(old, copy, self.resized[key])
            for _, part in side_by_side(old, copy) if isinstance(old, keras.Layer) else ():
                if isinstance(part, keras.layers.Normalization):
                    part.finalize_state()  # derives its constants from the weights that are left

    def _goes_by_channel(self, layer: keras.Layer) -> bool:
        """Whether what a layer holds beside its weights may have the size of channels that are gone."""
        if hasattr(layer, "finalize_state"):
            return isinstance(layer, keras.layers.Normalization)  # tables go by values
        resized = self.resized[id(layer)]
        return self._loses(layer) or resized.outputs != resized.old_outputs

    def fold_constants(self, names: Sequence[str]) -> None:
        """Moves what removed constant channels gave to the layers that listened into the biases of those layers."""
        if not names:
            return
        chosen = np.zeros(self.trace.size, bool)
        for name in names:
            chosen[self.groups[name].roots] = True
        new_variables = {id(old): new for old, new in self.pairs()}
        for use in self.trace.uses:
            lost = self.sizes.lost(use.line.labels) & chosen[self.trace.partition.root[use.line.labels]]
            if use.role is not Role.INPUT or not use.foldable or not lost.any():
                continue
            kernel = np.moveaxis(keras.ops.convert_to_numpy(use.variable), use.axis, 0)[lost]
            constant = np.where(np.isfinite(use.line.now[lost]), use.line.now[lost], 0.0)
            given = np.tensordot(constant, kernel, 1)
            given = given.reshape(-1, given.shape[-1]).sum(0)  # over the places of a convolution's kernel
            bias = new_variables.get(id(use.operation.bias))  # none where its branch is gone
            if bias is not None:
                bias.assign_add(self.sizes.cut(use.operation.bias, given).astype(bias.dtype))


def _rename(results: Any, given: Any, name: str) -> None:
    """Gives the operation that makes `results` its old name, and those before it names that no other has."""
    known = {id(x) for x in keras.tree.flatten(given)}
    outputs = [x for x in keras.tree.flatten(results) if id(x) not in known]
    nodes = nodes_in_order([x for x in keras.tree.flatten(given) if id(x) in known], outputs)
    for count, node in enumerate(nodes, start=1):
        node.operation.name = name if count == len(nodes) else f"{name}_step_{count}"


def _cleaned(config: Any, resized: bool) -> Any:
    """A configuration without what holds for the old sizes only.

    Those are the shapes that Keras would build inner layers for, and tables that weights are initialised from; the
    weights are set afterwards anyway.
    """
    if isinstance(config, list):
        return [_cleaned(value, resized) for value in config]
    if not isinstance(config, dict):
        return config
    if resized and config.get("class_name") == "Constant" and not isinstance(config["config"]["value"], (int, float)):
        return "zeros"
    return {key: _cleaned(value, resized) for key, value in config.items() if key != "build_config"}


def _one_line(error: Exception) -> str:
    """What an error says, without addresses in memory; of a KeyError, which says a key only, the kind."""
    text = type(error).__name__ if isinstance(error, KeyError) else " ".join(str(error).split())
    return re.sub(r"(object )?at 0x[0-9a-f]+", "object", text)


def _copy_flags(old: Any, new: Any, copies: dict[int, Any]) -> None:
    """Gives layers and models their trainable flags, from the outside in: a model's flag sets those of its layers."""
    if new.trainable != old.trainable:
        new.trainable = old.trainable
    for layer in getattr(old, "layers", []):
        if id(layer) in copies:
            _copy_flags(layer, copies[id(layer)], copies)
