"""Subcommands that decide: sensitivity, search, compress."""

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
from tfprune.model.files import REPORT_KINDS, Samples


def _define_sensitivity(values: flags.FlagValues) -> None:
    flags.DEFINE_list("levels", None, "Shares to remove, rising; 0.1,0.2,...,0.9 if not given.", flag_values=values)
    flags.DEFINE_string("criterion", "magnitude", "How important a weight or a channel is.", flag_values=values)
    flags.DEFINE_string("pattern", "element", "What goes: element, 4x1 (blocks), channel.", flag_values=values)
    flags.DEFINE_string(
        "metric", None, "A metric of the compiled model, or loss; the first metric if not given.", flag_values=values
    )
    flags.DEFINE_list("layers", None, "Names of the layers, with commas; all if not given.", flag_values=values)
    define_data(values, "Inputs and labels to measure on.")
    define_report(values)
    define_import(values)


def _sensitivity(words: list[str], values: flags.FlagValues) -> None:
    output = checked_output(values, REPORT_KINDS)
    model = read_model(words[0], values)
    samples = read_samples(values, "test", model)
    if samples.labels is None:
        raise UsageError(f"--data={values['data'].value} holds no labels; the metric needs an array y.")
    chosen = {name: values[name].value for name in ("criterion", "pattern", "metric", "layers")}
    with as_usage():
        if values["levels"].value is not None:
            chosen["levels"] = [_level(word) for word in values["levels"].value]
    result = tfprune.sensitivity(model, (samples.inputs, samples.labels), **chosen)
    show(result, values, output)


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
    define_data(values, "For validation; best not what was trained on.")
    define_file(values, "Where to write the best candidate's .keras file.")


def _search(words: list[str], values: flags.FlagValues) -> None:
    output = checked_output(values, (".keras",))
    with as_usage():
        report = None if values["report"].value is None else files.output_path(values["report"].value, REPORT_KINDS)
        budget = _shares("budget", values["budget"].value)
    model = read_model(words[0], values)
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
    show(result, values)


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
    define_data(values, "To train on.")
    define_file(values, "Where to write the int8 .tflite file.")


def _compress(words: list[str], values: flags.FlagValues) -> None:
    output = checked_output(values, (".tflite",))
    with as_usage():
        target = values["target"].value
        target = target if target == "smallest" else _shares("target", [target])
    model = read_model(words[0], values)
    samples = _labelled(values, model, "compressing")
    count = round(len(samples.labels) * (1 - values["validation"].value))  # type: ignore[arg-type]
    train, val = samples.part(slice(count)), samples.part(slice(count, None))
    names = ("max_drop", "folder", "epochs", "seed")
    result = tfprune.compress(
        model, tuple(train), tuple(val), target=target, **{name: values[name].value for name in names}
    )
    show(result, values)
    if not result.within_bound:
        raise PruningError(
            f"{100 * result.drop:.2f} points of accuracy are lost, more than --max_drop={values['max_drop'].value}; "
            "no file was written. Allow more, or train longer with --epochs."
        )
    result.lite.save(output)  # type: ignore[arg-type]  # --output is required


def _labelled(values: flags.FlagValues, model: keras.Model, purpose: str) -> Samples:
    samples = read_samples(values, "train", model)
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


COMMANDS = (
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
