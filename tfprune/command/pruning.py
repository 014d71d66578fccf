"""Subcommands that prune: demo, summary, prune, shrink."""

import os
import sys
from pathlib import Path
from typing import Any

import keras
from absl import flags

import tfprune
from tfprune.command.command import (
    Command,
    UsageError,
    as_usage,
    checked_output,
    define_data,
    define_file,
    define_import,
    define_report,
    read_model,
    read_samples,
    show,
)
from tfprune.errors import PruningError
from tfprune.model import files
from tfprune.model.files import REPORT_KINDS


def _define_demo(values: flags.FlagValues) -> None:
    from tfprune.command.demo import DATASETS

    flags.DEFINE_enum("dataset", "digits", list(DATASETS), "Data set: " + " or ".join(DATASETS), flag_values=values)
    flags.DEFINE_float("sparsity", 0.9, "Share of zeros in [0, 1).", flag_values=values)
    flags.DEFINE_bool("json", False, "Print JSON in place of the table.", flag_values=values)
    flags.DEFINE_string("output", None, "Folder for the models and the report; made when missing.", flag_values=values)


def _demo(words: list[str], values: flags.FlagValues) -> None:
    from tfprune.command.demo import run_demo

    with as_usage():
        tfprune.Percentile(values["sparsity"].value)
        folder = _folder(values["output"].value)
    result = run_demo(values["dataset"].value, values["sparsity"].value)
    if folder is not None:
        result.save(folder)
    show(result, values)
    if folder is not None and not values["json"].value:
        print(f"Models and report: {folder}")


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


def _define_summary(values: flags.FlagValues) -> None:
    define_report(values)
    define_import(values)


def _summary(words: list[str], values: flags.FlagValues) -> None:
    output = checked_output(values, REPORT_KINDS)
    show(tfprune.summary(read_model(words[0], values)), values, output)


def _define_channels(values: flags.FlagValues) -> None:
    flags.DEFINE_float("channels", None, "Share of channels to remove in [0, 1).", flag_values=values)
    flags.DEFINE_integer("round_to", 1, "Channels kept are a multiple of it.", lower_bound=1, flag_values=values)
    flags.DEFINE_string(
        "criterion", None, "How important a weight (magnitude) or a channel (l2) is.", flag_values=values
    )
    flags.DEFINE_list(
        "layers", None, "Names of the layers to prune, with commas; all if not given.", flag_values=values
    )


def _structured(values: flags.FlagValues) -> tfprune.Structured:
    return tfprune.Structured(
        values["channels"].value,
        criterion=values["criterion"].value or "l2",
        round_to=values["round_to"].value,
        layers=values["layers"].value,
    )


def _define_prune(values: flags.FlagValues) -> None:
    flags.DEFINE_float("sparsity", None, "Share of zeros in [0, 1); prunes by percentile.", flag_values=values)
    flags.DEFINE_float(
        "threshold", None, "Remove weights scored up to this; instead of --sparsity.", flag_values=values
    )
    _define_channels(values)
    flags.DEFINE_enum("unit", "absolute", ["absolute", "std"], "Unit of --threshold.", flag_values=values)
    flags.DEFINE_string("pattern", "element", "Where zeros may fall: element, 4x1 (blocks), 2:4.", flag_values=values)
    flags.DEFINE_string(
        "allocation", "lamp", "lamp, uniform, global, erk or hierarchical; with --sparsity.", flag_values=values
    )
    flags.DEFINE_integer(
        "epochs",
        0,
        "Prune while training so many epochs on --data; 0 prunes at once.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer("batch_size", 32, "Samples per training step.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool(
        "reconstruct",
        False,
        "Pruning at once, let what is kept make up for what goes; reads --data.",
        flag_values=values,
    )
    define_data(values, "For --epochs, --reconstruct, and a criterion that reads data.")
    define_file(values, "Where to write the pruned .keras file.")


def _prune(words: list[str], values: flags.FlagValues) -> None:
    output = checked_output(values, (".keras",))
    with as_usage():
        method = _method(values)
    if values["epochs"].value and values["data"].value is None:
        raise UsageError("--epochs needs training data. Write --data train.npz, with arrays x and y.")
    if values["reconstruct"].value and (values["data"].value is None or values["epochs"].value):
        raise UsageError("--reconstruct repairs what is pruned at once. Write it with --data and without --epochs.")
    model = read_model(words[0], values)
    if values["epochs"].value:
        _train(model, method, values, words[0])
    else:
        model = tfprune.prune(model, method, _data(values, model), reconstruct=values["reconstruct"].value)
    pruned = tfprune.strip_masks(model)
    files.save_model(pruned, output)  # type: ignore[arg-type]  # --output is required
    show(tfprune.summary(pruned), values)


def _data(values: flags.FlagValues, model: keras.Model) -> Any:
    """The data of `--data` in the form that `fit` takes, None where it is not given."""
    if values["data"].value is None:
        return None
    samples = read_samples(values, "train", model)
    return samples.inputs if samples.labels is None else (samples.inputs, samples.labels)


def _method(values: flags.FlagValues) -> Any:
    pattern = values["pattern"].value
    given = [name for name in ("sparsity", "threshold", "channels") if values[name].value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(f'--{name}' for name in given)} are different methods; give one of them.")
    if not given and ":" not in pattern:  # N:M says itself how much
        raise UsageError("how much to prune is missing. Write --sparsity 0.8, --threshold 0.05, or --channels 0.5.")
    if values["channels"].value is not None:
        return _structured(values)
    shared = {
        "criterion": values["criterion"].value or "magnitude",
        "pattern": pattern,
        "layers": values["layers"].value,
    }
    if values["threshold"].value is not None:
        return tfprune.Threshold(values["threshold"].value, unit=values["unit"].value, **shared)
    return tfprune.Percentile(values["sparsity"].value, allocation=values["allocation"].value, **shared)


def _train(model: keras.Model, method: Any, values: flags.FlagValues, path: str) -> None:
    samples = read_samples(values, "train", model)
    if samples.labels is None:
        raise UsageError(f"--data={values['data'].value} holds no labels; training needs an array y.")
    if not model.compiled:
        raise PruningError(
            f"'{path}' was saved without optimizer and loss, so it cannot be trained here. Compile it before saving, "
            "or leave out --epochs to prune at once."
        )
    verbose = 0 if values["json"].value else 1 if sys.stdout.isatty() else 2
    model.fit(
        samples.inputs,
        samples.labels,
        epochs=values["epochs"].value,
        batch_size=values["batch_size"].value,
        callbacks=[tfprune.PruningCallback(method)],
        verbose=verbose,
    )


def _define_shrink(values: flags.FlagValues) -> None:
    _define_channels(values)
    define_file(values, "Where to write the smaller .keras file.")


def _shrink(words: list[str], values: flags.FlagValues) -> None:
    output = checked_output(values, (".keras",))
    with as_usage():
        method = None if values["channels"].value is None else _structured(values)
    model = read_model(words[0], values)
    plan = tfprune.plan_shrink(model, method)
    small = tfprune.shrink(model, None if method is None else plan)  # without a plan it warns where nothing goes
    files.save_model(small, output)  # type: ignore[arg-type]  # --output is required
    show(plan, values)


COMMANDS = (
    Command(
        "demo",
        "tfprune demo [--dataset digits] [--output FOLDER]",
        "Trains a small network, prunes it to 90 % zeros, converts it to int8, and shows what it cost.",
        ("tfprune demo --output demo",),
        (0, 0),
        _define_demo,
        _demo,
    ),
    Command(
        "summary",
        "tfprune summary MODEL.keras",
        "Shows parameters, zeros and multiply-accumulates of every layer.",
        ("tfprune summary demo/pruned.keras",),
        (1, 1),
        _define_summary,
        _summary,
    ),
    Command(
        "prune",
        "tfprune prune MODEL.keras --sparsity 0.8 --output PRUNED.keras",
        "Sets the least important weights to zero, at once or while training.",
        (
            "tfprune prune demo/dense.keras --sparsity 0.8 --output pruned.keras",
            "tfprune prune demo/dense.keras --pattern 2:4 --epochs 2 --data digits --output pruned.keras",
            "tfprune prune demo/dense.keras --sparsity 0.8 --reconstruct --data digits --output pruned.keras",
        ),
        (1, 1),
        _define_prune,
        _prune,
        required=("output",),
    ),
    Command(
        "shrink",
        "tfprune shrink MODEL.keras --channels 0.5 --output SMALL.keras",
        "Removes channels: with --channels the least important ones, without it those that are zero already.",
        ("tfprune shrink demo/dense.keras --channels 0.5 --output small.keras",),
        (1, 1),
        _define_shrink,
        _shrink,
        required=("output",),
    ),
)
