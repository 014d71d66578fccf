"""Subcommands that prune: demo, summary, prune, shrink."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

import tfprune
from tfprune.command.command import (
    IMPORT,
    JSON,
    REPORT,
    UsageError,
    as_usage,
    checked_output,
    command,
    count,
    number,
    one_of,
    read_model,
    read_samples,
    reads,
    show,
    switch,
    text,
    words_of,
    writes,
)
from tfprune.errors import PruningError
from tfprune.model import files
from tfprune.model.files import REPORT_KINDS

if TYPE_CHECKING:
    import keras

DEMO_SETS = ["digits", "fashion_mnist"]


@command(
    "tfprune demo [--dataset digits] [--output FOLDER]",
    "tfprune demo --output demo",
    files=(0, 0),
    options=(
        one_of("dataset", "digits", DEMO_SETS, "Data set: " + " or ".join(DEMO_SETS)),
        number("sparsity", 0.9, "Share of zeros in [0, 1)."),
        JSON,
        text("output", None, "Folder for the models and the report; made when missing."),
    ),
)
def _demo(words: list[str], values: flags.FlagValues) -> None:
    """Trains a small network, prunes it to 90 % zeros, converts it to int8, and shows what it cost."""
    with as_usage():
        tfprune.Percentile(values.sparsity)
        folder = _folder(values.output)
    from tfprune.command.demo import run_demo

    result = run_demo(values.dataset, values.sparsity)
    if folder is not None:
        result.save(folder)
    show(result, values)
    kept = "Nothing was kept; --output FOLDER keeps models and report."
    if folder is not None:
        kept = f"Written: {folder} (models and report)"
    print(kept, file=sys.stderr if values.json else sys.stdout)


def _folder(path: str | None) -> Path | None:
    if path is None:
        return None
    folder = Path(path)
    if folder.is_file():
        raise PruningError(f"--output={path} is a file; give a folder.")
    if not folder.parent.is_dir():
        raise PruningError(f"--output={path}: there is no folder '{folder.parent}'. Make it first.")
    if not os.access(folder if folder.is_dir() else folder.parent, os.W_OK):
        raise PruningError(f"--output={path} is not writable.")
    return folder


@command(
    "tfprune summary MODEL.keras",
    "tfprune summary demo/pruned.keras",
    options=(
        *REPORT,
        IMPORT,
    ),
)
def _summary(words: list[str], values: flags.FlagValues) -> None:
    """Shows parameters, zeros and multiply-accumulates of every layer."""
    output = checked_output(values, REPORT_KINDS)
    show(tfprune.summary(read_model(words[0], values)), values, output)


CHANNELS = (
    number("channels", None, "Share of channels to remove in [0, 1)."),
    count("round_to", 1, "Channels kept are a multiple of it.", lower_bound=1),
    text("criterion", None, "How important a weight (magnitude) or a channel (l2) is."),
    words_of("layers", None, "Names of the layers to prune, with commas; all if not given."),
    words_of("unit", None, "With --channels what may go: head, width, channel. With --threshold: absolute or std."),
)


def _structured(values: flags.FlagValues) -> tfprune.Structured:
    return tfprune.Structured(
        values.channels,
        criterion=values.criterion or "l2",
        round_to=values.round_to,
        layers=values.layers,
        unit=values.unit,
    )


@command(
    "tfprune prune MODEL.keras --sparsity 0.8 --output PRUNED.keras",
    "tfprune prune demo/dense.keras --sparsity 0.8 --output pruned.keras",
    "tfprune prune demo/dense.keras --pattern 2:4 --epochs 2 --data digits --output pruned.keras",
    "tfprune prune demo/dense.keras --sparsity 0.8 --reconstruct --data digits --output pruned.keras",
    options=(
        number("sparsity", None, "Share of zeros in [0, 1); prunes by percentile."),
        number("threshold", None, "Remove weights scored up to this; instead of --sparsity."),
        *CHANNELS,
        text("pattern", "element", "Where zeros may fall: element, 4x1 (blocks), 2:4."),
        text("allocation", "lamp", "lamp, uniform, global, erk or hierarchical; with --sparsity."),
        count("epochs", 0, "Prune while training so many epochs on --data; 0 prunes at once.", lower_bound=0),
        count("batch_size", 32, "Samples per training step.", lower_bound=1),
        switch("reconstruct", False, "Pruning at once, let what is kept make up for what goes; reads --data."),
        *reads("For --epochs, --reconstruct, and a criterion that reads data."),
        *writes("Where to write the pruned .keras file."),
    ),
    required=("output",),
)
def _prune(words: list[str], values: flags.FlagValues) -> None:
    """Sets the least important weights to zero, at once or while training."""
    output = checked_output(values, (".keras",))
    with as_usage():
        method = _method(values)
    if values.epochs and values.data is None:
        raise UsageError("--epochs needs training data. Write --data train.npz, with arrays x and y.")
    if values.reconstruct and (values.data is None or values.epochs):
        raise UsageError("--reconstruct repairs what is pruned at once. Write it with --data and without --epochs.")
    model = read_model(words[0], values)
    if values.epochs:
        _train(model, method, values, words[0])
    else:
        model = tfprune.prune(model, method, _data(values, model), reconstruct=values.reconstruct)
    pruned = tfprune.strip_masks(model)
    files.save_model(pruned, output)  # type: ignore[arg-type]  # --output is required
    show(tfprune.summary(pruned), values, written=output)


def _data(values: flags.FlagValues, model: keras.Model) -> Any:
    """The data of `--data` in the form that `fit` takes, None where it is not given."""
    if values.data is None:
        return None
    samples = read_samples(values, "train", model)
    return samples.inputs if samples.targets is None else (samples.inputs, samples.targets)


def _method(values: flags.FlagValues) -> Any:
    pattern = values.pattern
    given = [name for name in ("sparsity", "threshold", "channels") if values[name].value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(f'--{name}' for name in given)} are different methods; give one of them.")
    if not given and ":" not in pattern:  # N:M says itself how much
        raise UsageError("how much to prune is missing. Write --sparsity 0.8, --threshold 0.05, or --channels 0.5.")
    if values.channels is not None:
        return _structured(values)
    shared = {
        "criterion": values.criterion or "magnitude",
        "pattern": pattern,
        "layers": values.layers,
    }
    if values.threshold is not None:
        return tfprune.Threshold(values.threshold, unit=",".join(values.unit or ["absolute"]), **shared)
    return tfprune.Percentile(values.sparsity, allocation=values.allocation, **shared)


def _train(model: keras.Model, method: Any, values: flags.FlagValues, path: str) -> None:
    samples = read_samples(values, "train", model)
    if samples.targets is None:
        raise UsageError(f"--data={values['data'].value} holds no labels; training needs an array y.")
    if not model.compiled:
        raise PruningError(
            f"'{path}' was saved without optimizer and loss, so it cannot be trained here. Compile it before saving, "
            "or leave out --epochs to prune at once."
        )
    verbose = 0 if values.json else 1 if sys.stdout.isatty() else 2
    model.fit(
        samples.inputs,
        samples.targets,
        epochs=values.epochs,
        batch_size=values.batch_size,
        callbacks=[tfprune.PruningCallback(method)],
        verbose=verbose,
    )


@command(
    "tfprune shrink MODEL.keras --channels 0.5 --output SMALL.keras",
    "tfprune shrink demo/dense.keras --channels 0.5 --output small.keras",
    options=(
        *CHANNELS,
        *writes("Where to write the smaller .keras file."),
    ),
    required=("output",),
)
def _shrink(words: list[str], values: flags.FlagValues) -> None:
    """Removes channels: with --channels the least important ones, without it those that are zero already."""
    output = checked_output(values, (".keras",))
    with as_usage():
        method = None if values.channels is None else _structured(values)
    model = read_model(words[0], values)
    plan = tfprune.plan_shrink(model, method)
    small = tfprune.shrink(model, None if method is None else plan)  # without a plan it warns where nothing goes
    files.save_model(small, output)  # type: ignore[arg-type]  # --output is required
    show(plan, values, written=output)
