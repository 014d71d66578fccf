"""The subcommands: what each takes, and which public functions it calls. There is no logic of pruning here."""

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from absl import flags

import tfprune
from tfprune import datasets, files
from tfprune.errors import PruningError, listing, nearest
from tfprune.files import REPORT_KINDS, Samples
from tfprune.lite.micro import run_micro
from tfprune.lite.operator_times import time_operators
from tfprune.lite.phone import is_phone_output, phone_lines
from tfprune.report import Report


class UsageError(Exception):
    """A command line that cannot be carried out as written."""


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Args:
        name: Its word.
        usage: The line that shows how it is written.
        effect: What it does, in one line.
        examples: Lines that run as they are after `tfprune demo --output demo`.
        files: The fewest and the most files that it takes.
        define: Adds its flags.
        run: Does the work with the files and the flags.
        required: Flags that must be given.
        details: More lines for its help.
    """

    name: str
    usage: str
    effect: str
    examples: tuple[str, ...]
    files: tuple[int, int]
    define: Callable[[flags.FlagValues], None]
    run: Callable[[list[str], flags.FlagValues], None]
    required: tuple[str, ...] = ()
    details: str = ""


DATA_HELP = (
    f"Inputs and labels: a .npz file (arrays x and y, or x_train ... y_test, or inputs by name), a .npy file, "
    f"or one of {', '.join(datasets.NAMES)} (scaled to [0, 1])."
)


# What several subcommands share.


def _define_report(values: flags.FlagValues) -> None:
    flags.DEFINE_bool("json", False, "Print JSON in place of the table.", flag_values=values)
    flags.DEFINE_string(
        "output", None, f"Also write the report to a file: {', '.join(REPORT_KINDS)}.", flag_values=values
    )


def _define_import(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "import", None, "Module to import first, which registers layers of your own.", flag_values=values
    )


def _define_data(values: flags.FlagValues, use: str) -> None:
    flags.DEFINE_string("data", None, f"{use} {DATA_HELP}", flag_values=values)
    flags.DEFINE_integer("samples", None, "Use only so many samples, the first.", lower_bound=1, flag_values=values)


@contextlib.contextmanager
def _as_usage() -> Iterator[None]:
    """Turns what is wrong with the values of flags and files into wrong usage."""
    try:
        yield
    except PruningError as error:
        raise UsageError(str(error)) from error


def _checked_output(values: flags.FlagValues, kinds: tuple[str, ...]) -> Path | None:
    """The path to write to, checked before any work is done."""
    with _as_usage():
        return None if values["output"].value is None else files.output_path(values["output"].value, kinds)


def _model(path: str, values: flags.FlagValues) -> keras.Model:
    with _as_usage():
        files.existing_file(path)
    module = values["import"].value
    if module is not None:
        sys.path.insert(0, str(Path.cwd()))
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UsageError(f"--import={module}: {error}. Give the name of a module in this folder.") from error
    return files.load_model(path)


def _lite(path: str) -> tfprune.LiteModel:
    with _as_usage():
        files.existing_file(path)
    return tfprune.LiteModel.load(path)


def _samples(values: flags.FlagValues, split: str, model: keras.Model) -> Samples:
    """The data of `--data`; a named set in the shape that the model takes."""
    source = values["data"].value
    if not Path(source).suffix:
        if source not in datasets.NAMES:
            known = nearest(source, datasets.NAMES)
            raise UsageError(f"--data={source} is no data set. {known} A file ends with .npz or .npy.")
        images, labels = datasets.load(source).split(split)
        inputs = model.inputs if getattr(model, "inputs", None) else []
        images = datasets.shaped(images, tuple(inputs[0].shape)) if len(inputs) == 1 else images
        samples = Samples(images, labels)
    else:
        with _as_usage():
            files.existing_file(source)
        samples = files.load_samples(source, split)
    return samples.part(slice(values["samples"].value))


def _show(report: Report, values: flags.FlagValues, output: Path | None = None) -> None:
    if output is not None:
        files.save_report(report, output)
    if values["json"].value:
        print(report.to_json())
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(report)
    else:
        print(report)


# The subcommands, in the order of their use.


def _define_demo(values: flags.FlagValues) -> None:
    from tfprune.demo import DATASETS

    flags.DEFINE_enum("dataset", "digits", list(DATASETS), "Data set: " + " or ".join(DATASETS), flag_values=values)
    flags.DEFINE_float("sparsity", 0.9, "Share of zeros in [0, 1).", flag_values=values)
    flags.DEFINE_bool("json", False, "Print JSON in place of the table.", flag_values=values)
    flags.DEFINE_string("output", None, "Folder for the models and the report; made when missing.", flag_values=values)


def _demo(words: list[str], values: flags.FlagValues) -> None:
    from tfprune.demo import run_demo

    with _as_usage():
        tfprune.Percentile(values["sparsity"].value)
        folder = _folder(values["output"].value)
    result = run_demo(values["dataset"].value, values["sparsity"].value)
    if folder is not None:
        result.save(folder)
    _show(result, values)
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
    _define_report(values)
    _define_import(values)


def _summary(words: list[str], values: flags.FlagValues) -> None:
    output = _checked_output(values, REPORT_KINDS)
    _show(tfprune.summary(_model(words[0], values)), values, output)


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
    _define_data(values, "For --epochs, --reconstruct, and a criterion that reads data.")
    flags.DEFINE_string("output", None, "Where to write the pruned .keras file.", flag_values=values)
    flags.DEFINE_bool("json", False, "Print JSON in place of the table.", flag_values=values)
    _define_import(values)


def _prune(words: list[str], values: flags.FlagValues) -> None:
    output = _checked_output(values, (".keras",))
    with _as_usage():
        method = _method(values)
    if values["epochs"].value and values["data"].value is None:
        raise UsageError("--epochs needs training data. Write --data train.npz, with arrays x and y.")
    if values["reconstruct"].value and (values["data"].value is None or values["epochs"].value):
        raise UsageError("--reconstruct repairs what is pruned at once. Write it with --data and without --epochs.")
    model = _model(words[0], values)
    if values["epochs"].value:
        _train(model, method, values, words[0])
    else:
        model = tfprune.prune(model, method, _data(values, model), reconstruct=values["reconstruct"].value)
    pruned = tfprune.strip_masks(model)
    files.save_model(pruned, output)  # type: ignore[arg-type]  # --output is required
    _show(tfprune.summary(pruned), values)


def _data(values: flags.FlagValues, model: keras.Model) -> Any:
    """The data of `--data` in the form that `fit` takes, None where it is not given."""
    if values["data"].value is None:
        return None
    samples = _samples(values, "train", model)
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
    samples = _samples(values, "train", model)
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
    flags.DEFINE_string("output", None, "Where to write the smaller .keras file.", flag_values=values)
    flags.DEFINE_bool("json", False, "Print JSON in place of the table.", flag_values=values)
    _define_import(values)


def _shrink(words: list[str], values: flags.FlagValues) -> None:
    output = _checked_output(values, (".keras",))
    with _as_usage():
        method = None if values["channels"].value is None else _structured(values)
    model = _model(words[0], values)
    plan = tfprune.plan_shrink(model, method)
    small = tfprune.shrink(model, None if method is None else plan)  # without a plan it warns where nothing goes
    files.save_model(small, output)  # type: ignore[arg-type]  # --output is required
    _show(plan, values)


def _define_convert(values: flags.FlagValues) -> None:
    flags.DEFINE_enum(
        "quantization",
        "float32",
        ["float32", "float16", "dynamic", "int8", "int16x8"],
        "Numbers in the file; int8 and int16x8 need --data.",
        flag_values=values,
    )
    flags.DEFINE_enum("io", "int8", ["int8", "float32"], "Inputs and outputs of an integer model.", flag_values=values)
    flags.DEFINE_bool("sparse", False, "Store zeros sparsely; float32 and float16 only.", flag_values=values)
    flags.DEFINE_list(
        "float_layers", None, "Names of layers that stay in float in an int8 file, with commas.", flag_values=values
    )
    _define_data(values, "Typical inputs; a few hundred are enough.")
    flags.DEFINE_string("output", None, "Where to write the .tflite file.", flag_values=values)
    flags.DEFINE_bool("json", False, "Print JSON in place of the table.", flag_values=values)
    _define_import(values)


def _convert(words: list[str], values: flags.FlagValues) -> None:
    output = _checked_output(values, (".tflite",))
    quantization = values["quantization"].value
    if quantization in ("int8", "int16x8") and values["data"].value is None:
        raise UsageError(
            f"--quantization={quantization} needs typical inputs. Write --data train.npz, with an array x."
        )
    model = _model(words[0], values)
    samples = None if values["data"].value is None else _samples(values, "train", model).inputs
    lite = tfprune.convert(
        model,
        quantization=quantization,
        representative_data=samples,
        io=values["io"].value,
        sparse=values["sparse"].value,
        float_layers=values["float_layers"].value or (),
    )
    lite.save(output)  # type: ignore[arg-type]  # --output is required
    _show(lite.inspect(), values)


def _define_pattern(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "pattern", None, "Fail where a kernel breaks this N:M pattern, such as 2:4.", flag_values=values
    )
    flags.DEFINE_list("layers", None, "Parts of names of the kernels that --pattern asks.", flag_values=values)


def _define_inspect(values: flags.FlagValues) -> None:
    _define_pattern(values)
    _define_report(values)


def _inspect(words: list[str], values: flags.FlagValues) -> None:
    output = _checked_output(values, REPORT_KINDS)
    result = _lite(words[0]).inspect()
    pattern = values["pattern"].value
    broken = []
    if pattern is not None:
        with _as_usage():
            broken = result.breaking(pattern, values["layers"].value)
    _show(result, values, output)
    if broken:
        raise PruningError(f"not {pattern}: {listing(broken)}.")


def _define_verify(values: flags.FlagValues) -> None:
    _define_data(values, "Inputs to compare on, with labels for the accuracies.")
    flags.DEFINE_float(
        "min_agreement", 0.99, "Fail below this share of equal top-1 answers.", 0.0, 1.0, flag_values=values
    )
    for name, what in (("min_accuracy", "accuracy"), ("min_f1", "F1")):
        flags.DEFINE_float(name, None, f"Fail below this {what} of the .tflite.", 0.0, 1.0, flag_values=values)
    for name, what in (("max_difference", "absolute difference"), ("max_relative_error", "relative error")):
        flags.DEFINE_float(name, None, f"Fail above this {what} of any output.", lower_bound=0.0, flag_values=values)
    flags.DEFINE_bool("integers", False, "Fail where an operator computes in floating point.", flag_values=values)
    flags.DEFINE_bool("by_layer", False, "Show the error behind every layer too.", flag_values=values)
    _define_report(values)
    _define_import(values)


def _verify(words: list[str], values: flags.FlagValues) -> None:
    output = _checked_output(values, REPORT_KINDS)
    model, lite = _model(words[0], values), _lite(words[1])
    samples = _samples(values, "test", model)
    result = tfprune.verify(model, lite, samples.inputs, labels=samples.labels, layers=values["by_layer"].value)
    _show(result, values, output)
    names = ("min_agreement", "min_accuracy", "min_f1", "max_difference", "max_relative_error", "integers")
    bounds = {name: values[name].value for name in names}
    if result.agreement is None and not values["min_agreement"].present:  # a regression has no top-1
        bounds["min_agreement"] = None
    broken = result.broken(**bounds)
    if broken:
        raise PruningError(
            "; ".join(broken) + ". Convert with more typical --data, with --float_layers, or with --quantization "
            "int16x8 or dynamic."
        )


def _define_benchmark(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("runs", 100, "Timed runs of each model.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("threads", 1, "Threads of the interpreter.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("xnnpack", True, "Use XNNPACK kernels; --noxnnpack times the plain ones.", flag_values=values)
    flags.DEFINE_bool("memory", False, "Measure the memory of a process that runs each, too.", flag_values=values)
    flags.DEFINE_bool("operators", False, "Time each operator of one file in place of whole files.", flag_values=values)
    flags.DEFINE_bool("micro", False, "Run one file as on a microcontroller: arena, answers.", flag_values=values)
    flags.DEFINE_bool("phone", False, "Print the lines that measure the files on an Android phone.", flag_values=values)
    _define_report(values)


def _benchmark(words: list[str], values: flags.FlagValues) -> None:
    output = _checked_output(values, REPORT_KINDS)
    stems = [Path(word).stem for word in words]
    names = stems if len(set(stems)) == len(stems) else words
    models = {name: word if is_phone_output(word) else _lite(word) for name, word in zip(names, words)}
    how = {name: values[name].value for name in ("runs", "threads", "xnnpack")}
    if values["phone"].value:
        print("\n\n".join(phone_lines(word, **how) for word in words))
    elif values["operators"].value or values["micro"].value:
        if len(words) != 1:
            flag = "operators" if values["operators"].value else "micro"
            raise UsageError(f"--{flag} takes one file, and {len(words)} came.")
        (model,) = models.values()
        _show(run_micro(model) if values["micro"].value else time_operators(model, **how), values, output)
    else:
        _show(tfprune.benchmark(models, memory=values["memory"].value, **how), values, output)


def _define_sensitivity(values: flags.FlagValues) -> None:
    flags.DEFINE_list("levels", None, "Shares to remove, rising; 0.1,0.2,...,0.9 if not given.", flag_values=values)
    flags.DEFINE_string("criterion", "magnitude", "How important a weight or a channel is.", flag_values=values)
    flags.DEFINE_string("pattern", "element", "What goes: element, 4x1 (blocks), channel.", flag_values=values)
    flags.DEFINE_string(
        "metric", None, "A metric of the compiled model, or loss; the first metric if not given.", flag_values=values
    )
    flags.DEFINE_list("layers", None, "Names of the layers, with commas; all if not given.", flag_values=values)
    _define_data(values, "Inputs and labels to measure on.")
    _define_report(values)
    _define_import(values)


def _sensitivity(words: list[str], values: flags.FlagValues) -> None:
    output = _checked_output(values, REPORT_KINDS)
    model = _model(words[0], values)
    samples = _samples(values, "test", model)
    if samples.labels is None:
        raise UsageError(f"--data={values['data'].value} holds no labels; the metric needs an array y.")
    chosen = {name: values[name].value for name in ("criterion", "pattern", "metric", "layers")}
    with _as_usage():
        if values["levels"].value is not None:
            chosen["levels"] = [_level(word) for word in values["levels"].value]
    result = tfprune.sensitivity(model, (samples.inputs, samples.labels), **chosen)
    _show(result, values, output)


def _level(word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise PruningError(f"--levels: {word!r} is no number. Write --levels 0.5,0.8,0.9.") from error


def _define_search(values: flags.FlagValues) -> None:
    flags.DEFINE_list("objectives", ["accuracy", "macs"], "What counts, with commas.", flag_values=values)
    flags.DEFINE_enum("genome", "channels", ["channels", "layers", "weights"], "What is removed.", flag_values=values)
    flags.DEFINE_list("budget", [], "Costs to keep to, as shares: macs=0.5,bytes=0.3.", flag_values=values)
    flags.DEFINE_integer("population", 32, "Candidates in a generation.", lower_bound=4, flag_values=values)
    flags.DEFINE_integer("generations", 20, "Generations after the first.", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of everything random.", lower_bound=0, flag_values=values)
    flags.DEFINE_string("journal", None, "File to go on from when the search is killed.", flag_values=values)
    flags.DEFINE_string("report", None, f"Where to write the front: {', '.join(REPORT_KINDS)}.", flag_values=values)
    _define_data(values, "For validation; best not what was trained on.")
    flags.DEFINE_string("output", None, "Where to write the best candidate's .keras file.", flag_values=values)
    flags.DEFINE_bool("json", False, "Print JSON in place of the table.", flag_values=values)
    _define_import(values)


def _search(words: list[str], values: flags.FlagValues) -> None:
    output = _checked_output(values, (".keras",))
    with _as_usage():
        report = None if values["report"].value is None else files.output_path(values["report"].value, REPORT_KINDS)
        budget = _shares("budget", values["budget"].value)
    model = _model(words[0], values)
    samples = _labelled(values, model, "searching")
    names = ("genome", "population", "generations", "seed", "journal")
    result = tfprune.genetic_search(
        model,
        (samples.inputs, samples.labels),
        values["objectives"].value,
        budget=budget,
        **{name: values[name].value for name in names},
    )
    if output is not None:
        zeroed = values["genome"].value == "weights"
        best = tfprune.strip_masks(result.apply()) if zeroed else tfprune.shrink(model, result.plan())
        files.save_model(best, output)
    if report is not None:
        files.save_report(result, report)
    _show(result, values)


def _define_compress(values: flags.FlagValues) -> None:
    flags.DEFINE_float("max_drop", 0.01, "Accuracy that may be lost; 0.01 is one point.", flag_values=values)
    flags.DEFINE_string(
        "target", "smallest", "smallest, or a share to reach: macs=0.3, bytes=0.25, latency=0.5.", flag_values=values
    )
    flags.DEFINE_integer("epochs", 3, "Of each fine-tuning.", lower_bound=1, flag_values=values)
    flags.DEFINE_float(
        "validation", 0.1, "Share of --data, the last, by which steps are judged.", 0.01, 0.9, flag_values=values
    )
    flags.DEFINE_string("folder", None, "Keeps every step; a run that was stopped goes on there.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of everything random.", lower_bound=0, flag_values=values)
    _define_data(values, "To train on.")
    flags.DEFINE_string("output", None, "Where to write the int8 .tflite file.", flag_values=values)
    flags.DEFINE_bool("json", False, "Print JSON in place of the table.", flag_values=values)
    _define_import(values)


def _compress(words: list[str], values: flags.FlagValues) -> None:
    output = _checked_output(values, (".tflite",))
    with _as_usage():
        target = values["target"].value
        target = target if target == "smallest" else _shares("target", [target])
    model = _model(words[0], values)
    samples = _labelled(values, model, "compressing")
    count = round(len(samples.labels) * (1 - values["validation"].value))  # type: ignore[arg-type]
    train, val = samples.part(slice(count)), samples.part(slice(count, None))
    names = ("max_drop", "folder", "epochs", "seed")
    result = tfprune.compress(
        model, tuple(train), tuple(val), target=target, **{name: values[name].value for name in names}
    )
    _show(result, values)
    if not result.within_bound:
        raise PruningError(
            f"{100 * result.drop:.2f} points of accuracy are lost, more than --max_drop={values['max_drop'].value}; "
            "no file was written. Allow more, or train longer with --epochs."
        )
    result.lite.save(output)  # type: ignore[arg-type]  # --output is required


def _labelled(values: flags.FlagValues, model: keras.Model, purpose: str) -> Samples:
    samples = _samples(values, "train", model)
    if samples.labels is None:
        raise UsageError(f"--data={values['data'].value} holds no labels; {purpose} needs an array y.")
    return samples


def _shares(name: str, words: list[str]) -> dict[str, float]:
    """Words like `macs=0.5` as a mapping."""
    shares = {}
    for word in words:
        key, _, number = word.partition("=")
        try:
            shares[key] = float(number)
        except ValueError as error:
            raise PruningError(f"--{name}={word} is no share of a cost; write --{name} macs=0.5.") from error
    return shares


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
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
        Command(
            "convert",
            "tfprune convert MODEL.keras --quantization int8 --data TRAIN.npz --output MODEL.tflite",
            "Makes a .tflite file of a Keras model.",
            ("tfprune convert demo/pruned.keras --quantization int8 --data digits --output pruned.tflite",),
            (1, 1),
            _define_convert,
            _convert,
            required=("output",),
        ),
        Command(
            "inspect",
            "tfprune inspect MODEL.tflite",
            "Shows operators, types, bytes and zeros of a .tflite file.",
            ("tfprune inspect demo/pruned.tflite",),
            (1, 1),
            _define_inspect,
            _inspect,
        ),
        Command(
            "verify",
            "tfprune verify MODEL.keras MODEL.tflite --data TEST.npz",
            "Compares the answers of a Keras model and its .tflite file; fails when they differ.",
            (
                "tfprune verify demo/pruned.keras demo/pruned.tflite --data digits",
                "tfprune verify demo/pruned.keras demo/pruned.tflite --data digits --min_f1 0.9 --integers --by_layer",
            ),
            (2, 2),
            _define_verify,
            _verify,
            required=("data",),
        ),
        Command(
            "sensitivity",
            "tfprune sensitivity MODEL.keras --data TEST.npz",
            "Prunes each weight alone to several levels and shows what each costs.",
            ("tfprune sensitivity demo/dense.keras --data digits --levels 0.5,0.8,0.9",),
            (1, 1),
            _define_sensitivity,
            _sensitivity,
            required=("data",),
        ),
        Command(
            "benchmark",
            "tfprune benchmark MODEL.tflite [OTHER.tflite ... PHONE.txt ...]",
            "Measures bytes and milliseconds of .tflite files on this machine, in turns.",
            (
                "tfprune benchmark demo/dense.tflite demo/pruned.tflite",
                "tfprune benchmark demo/pruned.tflite --operators",
                "tfprune benchmark demo/pruned.tflite --phone",
            ),
            (1, 99),
            _define_benchmark,
            _benchmark,
        ),
        Command(
            "search",
            "tfprune search MODEL.keras --data VAL.npz [--output SMALL.keras]",
            "Searches by evolution for the channels or weights to remove, and shows the best compromises.",
            ("tfprune search demo/dense.keras --data digits --generations 5 --report front.png --output small.keras",),
            (1, 1),
            _define_search,
            _search,
            required=("data",),
        ),
        Command(
            "compress",
            "tfprune compress MODEL.keras --data TRAIN.npz --output MODEL.tflite",
            "Makes the smallest int8 file that loses no more accuracy than allowed: channels, weights, quantization.",
            ("tfprune compress demo/dense.keras --data digits --folder steps --output small.tflite",),
            (1, 1),
            _define_compress,
            _compress,
            required=("data", "output"),
        ),
    )
}
