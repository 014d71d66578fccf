"""Subcommands that decide: sensitivity, search, compress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

import tfprune
from tfprune.command.command import (
    IMPORT,
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
    tell_written,
    text,
    words_of,
    writes,
)
from tfprune.errors import PruningError
from tfprune.model import files
from tfprune.model.files import REPORT_KINDS

if TYPE_CHECKING:
    import keras

    from tfprune.model.data import Batch


@command(
    "tfprune sensitivity MODEL.keras --data TEST.npz",
    "tfprune sensitivity demo/dense.keras --data digits --levels 0.5,0.8,0.9",
    options=(
        words_of("levels", None, "Shares to remove, rising; 0.1,0.2,...,0.9 if not given."),
        text("criterion", "magnitude", "How important a weight or a channel is."),
        text("pattern", "element", "What goes: element, 4x1 (blocks), channel."),
        text("metric", None, "A metric of the compiled model, or loss; the first metric if not given."),
        words_of("layers", None, "Names of the layers, with commas; all if not given."),
        *reads("Inputs and labels to measure on."),
        *REPORT,
        IMPORT,
    ),
    required=("data",),
)
def _sensitivity(words: list[str], values: flags.FlagValues) -> None:
    """Prunes each weight alone to several levels and shows what each costs."""
    output = checked_output(values, REPORT_KINDS)
    model = read_model(words[0], values)
    samples = read_samples(values, "test", model)
    if samples.targets is None:
        raise UsageError(f"--data={values['data'].value} holds no labels; the metric needs an array y.")
    chosen = {name: values[name].value for name in ("criterion", "pattern", "metric", "layers")}
    with as_usage():
        if values.levels is not None:
            chosen["levels"] = [_level(word) for word in values.levels]
    result = tfprune.sensitivity(model, (samples.inputs, samples.targets), **chosen)
    show(result, values, output)


def _level(word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise PruningError(f"--levels: {word!r} is no number. Write --levels 0.5,0.8,0.9.") from error


@command(
    "tfprune search MODEL.keras --data VAL.npz [--output SMALL.keras]",
    "tfprune search demo/dense.keras --data digits --generations 5 --report front.png --output small.keras",
    options=(
        words_of("objectives", ["accuracy", "macs"], "What counts, with commas."),
        one_of("genome", "channels", ["channels", "layers", "weights"], "What is removed."),
        words_of("budget", [], "Costs to keep to, as shares: macs=0.5,bytes=0.3."),
        count("population", 32, "Candidates in a generation.", lower_bound=4),
        count("generations", 20, "Generations after the first.", lower_bound=0),
        count("seed", 0, "Of everything random.", lower_bound=0),
        text("journal", None, "File to go on from when the search is killed, or to choose another candidate from."),
        count(
            "candidate",
            None,
            "Number in the table of the one to write; the best by weighted sum if not given.",
            lower_bound=0,
        ),
        text("report", None, f"Where to write the front: {', '.join(REPORT_KINDS)}."),
        *reads("For validation; best not what was trained on."),
        *writes("Where to write the chosen candidate's .keras file."),
    ),
    required=("data",),
)
def _search(words: list[str], values: flags.FlagValues) -> None:
    """Searches by evolution for the channels or weights to remove, and shows the best compromises."""
    output = checked_output(values, (".keras",))
    with as_usage():
        report = None if values.report is None else files.output_path(values.report, REPORT_KINDS)
        budget = _shares("budget", values.budget)
    model = read_model(words[0], values)
    samples = _labelled(values, model, "searching")
    names = ("genome", "population", "generations", "seed", "journal")
    result = tfprune.genetic_search(
        model,
        (samples.inputs, samples.targets),
        values.objectives,
        budget=budget,
        **{name: values[name].value for name in names},
    )
    chosen, known = values.candidate, [candidate.number for candidate in result.front]
    if chosen is not None and chosen not in known:
        show(result, values, report)
        raise PruningError(f"--candidate={chosen} is not in the front: {', '.join(map(str, known))}. No model written.")
    if output is not None:
        zeroed = values.genome == "weights"
        best = tfprune.strip_masks(result.apply(chosen)) if zeroed else tfprune.shrink(model, result.plan(chosen))
        files.save_model(best, output)
    show(result, values, report, written=output)


@command(
    "tfprune compress MODEL.keras --data TRAIN.npz --output MODEL.tflite",
    "tfprune compress demo/dense.keras --data digits --folder steps --output small.tflite",
    options=(
        text("max_drop", "0.01", "How much worse the metric may become, in its own unit or as a share: 0.01, 5%."),
        text("metric", None, "A metric of the compiled model, or loss, f1, iou; its first metric if not given."),
        one_of("mode", None, ["max", "min"], "Whether a large or a small value is better; told by the metric's name."),
        text("target", "smallest", "smallest, or a share to reach: macs=0.3, bytes=0.25, latency=0.5, arena=0.5."),
        count("epochs", 3, "Of each fine-tuning.", lower_bound=1),
        number("validation", 0.1, "Share of --data, the last, by which steps are judged.", 0.01, 0.9),
        text("folder", None, "Keeps every step; a run that was stopped goes on there."),
        count("seed", 0, "Of everything random.", lower_bound=0),
        *reads("To train on."),
        *writes("Where to write the int8 .tflite file."),
    ),
    required=("data", "output"),
)
def _compress(words: list[str], values: flags.FlagValues) -> None:
    """Makes the smallest int8 file that is no worse than allowed: channels, weights, quantization."""
    output = checked_output(values, (".tflite",))
    with as_usage():
        target = values.target
        target = target if target == "smallest" else _shares("target", [target])
        max_drop = _bound(values.max_drop)
    model = read_model(words[0], values)
    samples = read_samples(values, "train", model)
    count = round(samples.size * (1 - values.validation))
    parts = (samples.taken(slice(count)), samples.taken(slice(count, None)))
    train, val = (part.inputs if part.targets is None else part[:2] for part in parts)
    names = ("metric", "mode", "folder", "epochs", "seed")
    chosen = {name: values[name].value for name in names}
    result = tfprune.compress(model, train, val, target=target, max_drop=max_drop, **chosen)
    show(result, values)
    if not result.within_bound:
        raise PruningError(
            f"{'; '.join(result.broken)} by --max_drop={values['max_drop'].value}; no file was written. Allow more, or "
            "train longer with --epochs."
        )
    result.lite.save(output)  # type: ignore[arg-type]  # --output is required
    tell_written(output, values)  # type: ignore[arg-type]


def _bound(word: str) -> float | str:
    """How much may be lost, as `compress` takes it; it says itself what is wrong with a share."""
    if word.endswith("%"):
        return word
    try:
        return float(word)
    except ValueError as error:
        raise PruningError(f"--max_drop={word} is no number. Write --max_drop 0.01 or --max_drop 5%.") from error


def _labelled(values: flags.FlagValues, model: keras.Model, purpose: str) -> Batch:
    samples = read_samples(values, "train", model)
    if samples.targets is None:
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
