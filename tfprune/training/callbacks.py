"""Callbacks: decide masks while a model trains, and log its sparsity."""

import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfprune.deciding import methods
from tfprune.deciding.method import BoundMethod, WeightMethod
from tfprune.deciding.methods import Percentile, Threshold
from tfprune.deciding.structured import Structured
from tfprune.errors import PruningError, listing, path_of
from tfprune.model.prunable import every_weight
from tfprune.model.tree import snapshot, wrapped_layers
from tfprune.training.mask_callback import MaskCallback
from tfprune.training.masks import constraint_of
from tfprune.training.trained import frozen_kernels
from tfprune.training.wrapper import PrunedLayer


def refuse_wrapped(model: keras.Model) -> None:
    """Raises for a model whose layers hold masks of their own."""
    if wrapped_layers(model):
        raise PruningError(
            f"'{model.name}' is wrapped: its layers hold their own masks and method. "
            "Write callbacks=[tfprune.UpdateMasks()] instead."
        )


class PruningCallback(MaskCallback):
    """Prunes a plain model while `fit` trains it, by any method.

    The masks go on holding after training, in further `fit` calls too; `strip_masks(model)` ends it. A second run with
    this callback goes up from the masks that are held. A stripped or loaded model holds none: its zeros are values,
    which `apply_masks(model, get_masks(model))` turns into masks again.

    Args:
        method: `Percentile(0.8)`, `Threshold(0.05)`, ..., its config, or a sparsity.

    Raises:
        PruningError: When `fit` begins: nothing to prune, a schedule that does not fit the run, a wrapped model.

    Example:
        model.fit(x, y, epochs=3, callbacks=[tfprune.PruningCallback(tfprune.Percentile(0.9))])
        plain = tfprune.strip_masks(model)
    """

    def __init__(self, method: Any):
        super().__init__()
        self.method = methods.get(method)

    def bound_methods(self) -> list[BoundMethod]:
        refuse_wrapped(self.pruned)
        return [self.method.bind(self.pruned)]


class ThresholdPruning(PruningCallback):
    """`PruningCallback(Threshold(...))`: takes the arguments of `Threshold`.

    Example:
        model.fit(x, y, epochs=3, callbacks=[tfprune.ThresholdPruning(0.5, unit="std")])
    """

    def __init__(
        self,
        amount: Any,
        criterion: Any = "magnitude",
        pattern: Any = "element",
        layers: Any = None,
        unit: str = "absolute",
    ):
        super().__init__(Threshold(amount, criterion, pattern, layers, unit))


class PercentilePruning(PruningCallback):
    """`PruningCallback(Percentile(...))`: takes the arguments of `Percentile`.

    Example:
        model.fit(x, y, epochs=3, callbacks=[tfprune.PercentilePruning(0.9)])
    """

    def __init__(
        self,
        amount: Any = None,
        criterion: Any = "magnitude",
        pattern: Any = "element",
        allocation: Any = "lamp",
        layers: Any = None,
    ):
        super().__init__(Percentile(amount, criterion, pattern, allocation, layers))


class StructuredPruning(PruningCallback):
    """`PruningCallback(Structured(...))`: takes the arguments of `Structured`.

    Example:
        model.fit(x, y, epochs=3, callbacks=[tfprune.StructuredPruning(0.5)])
        small = tfprune.shrink(tfprune.strip_masks(model))
    """

    def __init__(
        self,
        amount: Any,
        criterion: Any = "l2",
        allocation: Any = "global",
        budget: str = "channels",
        round_to: int = 1,
        min_channels: int = 1,
        layers: Any = None,
        unit: Any = None,
    ):
        super().__init__(Structured(amount, criterion, allocation, budget, round_to, min_channels, layers, unit))


class UpdateMasks(MaskCallback):
    """Decides the masks of a wrapped model while `fit` trains it; the methods are those of its layers.

    Raises:
        PruningError: When `fit` begins: the model has no `PrunedLayer`, or a schedule does not fit the run.
    """

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        for layer in wrapped_layers(self.model):
            layer.updating = True

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        for layer in wrapped_layers(self.model):
            layer.updating = False

    def bound_methods(self) -> list[BoundMethod]:
        by_method: dict[str, list[PrunedLayer]] = {}
        for layer in wrapped_layers(self.pruned):
            by_method.setdefault(repr(layer.method.get_config()), []).append(layer)
        if not by_method:
            raise PruningError(
                f"'{self.pruned.name}' has no PrunedLayer, so there are no masks to update. Write "
                "model = tfprune.wrap(model, tfprune.Percentile(0.8)), or use PercentilePruning(0.8) without wrapping."
            )
        for layers in by_method.values():
            self.left_alone += frozen_kernels(self.pruned, layers[0].method.layers)  # not wrapped, by `wrap`
        return [self._bound(layers) for layers in by_method.values()]

    def _bound(self, layers: list[PrunedLayer]) -> BoundMethod:
        """The method of these layers over exactly the weights that carry their masks."""
        masked = {id(mask) for layer in layers for mask in layer.masks.values()}
        keys = [
            weight.key
            for weight in every_weight(self.pruned)
            if (held := constraint_of(weight.variable)) is not None and id(held.mask) in masked
        ]
        method, asked = layers[0].method, layers[0].method.layers
        if isinstance(method, WeightMethod) and not isinstance(method.layers, Mapping):
            method = method.with_arguments(layers=keys)
        bound = method.bind(self.pruned)
        bound.weights = [weight for weight in bound.weights if weight.key in keys]
        left = sorted(set(keys) - {weight.key for weight in bound.weights})
        if left:
            raise PruningError(
                f"The wrapped layers carry masks for {listing(left)}, to which layers={layers[0].method.layers!r} of "
                "their method gives no amount. Name them there, or leave them out of masked=."
            )
        left_alone = set(self._leave(bound, asked))
        for weight in every_weight(self.pruned):
            held = constraint_of(weight.variable)
            if weight.key in left_alone and held is not None and held.decided is not None:
                held.decided.assign(True)  # nothing is to come for it
        return bound


LARGEST_IMAGE = 65_536  # entries of a weight whose zeros are shown


class SparsityLogger(keras.callbacks.Callback):
    """Writes the sparsity of every pruned weight to TensorBoard, at the end of each epoch.

    Scalars are `sparsity/<layer>/<weight>` and `sparsity/total`, counted from the weights themselves.

    Args:
        log_dir: Folder for the event files; made when missing.
        histograms: Whether to write, too, how the values of each weight lie that are not zero, as `weights/...`.
            Defaults to False: files grow by kilobytes for each weight and epoch.
        masks: Whether to write, too, images of where each weight of up to 65,536 entries is zero, as `zeros/...`: its
            outputs to the right, zeros black. Defaults to False.

    Example:
        model.fit(x, y, callbacks=[tfprune.PercentilePruning(0.9), tfprune.SparsityLogger("logs")])
    """

    def __init__(self, log_dir: str | os.PathLike[str], *, histograms: bool = False, masks: bool = False):
        super().__init__()
        self.histograms, self.masks = histograms, masks
        folder = path_of("SparsityLogger: log_dir", log_dir, "logs")
        self.log_dir = os.fspath(folder)
        if folder.is_file():
            raise PruningError(f"SparsityLogger: log_dir='{log_dir}' is a file; give a folder, such as 'logs'.")
        self._writer: Any = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self.log_dir)
        zeros = entries = 0
        with self._writer.as_default(step=epoch):
            for weight in every_weight(self.model):
                if not weight.is_kernel and constraint_of(weight.variable) is None:
                    continue
                array = snapshot(weight.variable)
                gone = array.size - int(np.count_nonzero(array))
                zeros, entries = zeros + gone, entries + array.size
                tf.summary.scalar(f"sparsity/{weight.key}", gone / array.size)
                if self.histograms:
                    tf.summary.histogram(f"weights/{weight.key}", array[array != 0])
                if self.masks and array.size <= LARGEST_IMAGE:
                    kept = (array != 0).reshape(1, -1, array.shape[-1] if array.ndim > 1 else array.size, 1)
                    tf.summary.image(f"zeros/{weight.key}", kept.astype(np.float32))
            tf.summary.scalar("sparsity/total", zeros / entries if entries else 0.0)
        self._writer.flush()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
