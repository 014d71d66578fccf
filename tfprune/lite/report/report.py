"""`report`: everything that is known of a smaller model, measured and written on one page."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.deciding.amounts import is_share
from tfprune.errors import ConversionError, PruningError
from tfprune.lite.convert.convert import convert
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.measure.benchmark import Benchmark, benchmark
from tfprune.lite.measure.explorer import made_folder, node_data, write_node_data
from tfprune.lite.measure.layer_errors import SAMPLES, LayerErrors, layer_errors
from tfprune.lite.measure.operator_times import time_operators
from tfprune.lite.measure.verify import Verification, compare_answers
from tfprune.lite.quantize.representative import checked_batches
from tfprune.lite.report.history import shown_results
from tfprune.lite.report.judged import Judged, Judges
from tfprune.lite.report.model_report import AFTER, BEFORE, FILE, ModelReport
from tfprune.lite.report.page import page_of
from tfprune.lite.report.runtimes import runtimes_of
from tfprune.lite.report.verdict import verdict_of
from tfprune.model.data import Batch
from tfprune.model.files import output_path, replacing
from tfprune.model.graph import is_graph
from tfprune.model.labels import labels_of
from tfprune.model.prunable import every_weight_and_kernel
from tfprune.model.signature import flat_outputs, output_names, signature_of
from tfprune.model.summary import summary
from tfprune.model.tree import as_array, check_model
from tfprune.progress import stage

RUNS, OPERATOR_RUNS = 50, 10
MOST_MACS = 40 * 10**9  # of the samples that layers are compared on, one by one


def report(
    model: keras.Model,
    baseline: keras.Model | None = None,
    lite: Any = None,
    data: Any = None,
    out: str | os.PathLike[str] | None = "report.html",
    *,
    max_drop: float = 0.01,
    explorer: str | os.PathLike[str] | None = None,
    results: Any = (),
) -> ModelReport:
    """Measures a smaller model beside the one that it was made of, and writes it all on one page for the browser.

    The page needs no network: the verdict first, then accuracy by class, layers, weights, time and versions.

    Args:
        model: The pruned, shrunk or quantization-aware model; it stays as it is.
        baseline: The model before. Defaults to None: nothing to compare with.
        lite: What was converted from `model`: a `LiteModel`, the path of a `.tflite` file, or its bytes. Defaults to
            None: no time, bytes or error of integers.
        data: Samples that no decision saw, as `(inputs, labels)`, arrays, `tf.data` or a generator. Defaults to None:
            no accuracy.
        out: Path of the page, ending in .html. Defaults to "report.html"; None writes nothing.
        max_drop: The loss of accuracy that is bearable, in [0, 1), 0.01 is one point. It decides the verdict.
        explorer: Folder for what Model Explorer colours its graph of the file by: zeros, errors and milliseconds of
            the operators, a file each. Made when missing. Defaults to None: not written.
        results: What else is to be on the page, with its picture where matplotlib is installed: what `sensitivity`, a
            search, `compress` or `benchmark` (of LiteRT.js or a phone) returned, and the `History` of `fit`. Defaults
            to nothing but the history of the model itself, where it has been trained.

    Returns:
        A table of the main figures with the verdict; `.to_json()` has all that is on the page.

    Raises:
        PruningError: A model is not built, takes other inputs than the other, or `out` is no page.
        ConversionError: LiteRT cannot run the file.

    Example:
        ```python
        print(tfprune.report(model, lite=lite, data=(x_test, y_test), out=None).verdict)
        ```
    """
    path = _checked(model, baseline, out, max_drop)
    if explorer is not None and lite is None:
        raise PruningError(f"explorer={os.fspath(explorer)!r} is about a .tflite file; give it as lite=.")
    folder = None if explorer is None else made_folder(explorer)
    shown = shown_results(results, model)
    models = {BEFORE: baseline, AFTER: model} if baseline is not None else {AFTER: model}
    file = None if lite is None else LiteModel.of(lite)
    remarks: list[str] = []
    judged = verification = errors = times = None
    with stage("Reading the layers"):
        summaries = {name: summary(each) for name, each in models.items()}
        kernels = {name: _kernels(each) for name, each in models.items()}
    if data is not None:
        pieces = list(checked_batches(data, signature_of(model), "report()"))
        judged, verification = _asked(models, file, pieces)
        if file is not None:
            with stage("Comparing the layers"):
                errors = _layer_errors(model, file, pieces, remarks)
    if file is not None:
        with stage("Timing the files"):
            times = _times(baseline, file, remarks)
            if folder is not None:
                write_node_data(node_data(file, errors, time_operators(file, OPERATOR_RUNS)), folder)
    verdict = verdict_of(judged, AFTER if file is None else FILE, verification, max_drop)
    result = ModelReport(verdict, summaries, kernels, judged, verification, times, errors, tuple(remarks))
    runtimes = None if file is None or times is None else runtimes_of(file, times.timings[-1].median)
    call = _call(baseline, lite, data, max_drop)
    result = replace(result, runtimes=runtimes, results=tuple(shown), call=call)
    if path is not None:
        with replacing(path) as part:
            part.write_text(page_of(result, model.name), encoding="utf-8")
    return result


def _checked(model: keras.Model, baseline: keras.Model | None, out: Any, max_drop: float) -> Path | None:
    """The path of the page; raises before any work where an argument does not fit."""
    for each in (model, baseline):
        if each is not None:
            check_model(each, "report on")
    if not is_share(max_drop):
        raise PruningError(f"max_drop={max_drop!r}: give a share in [0, 1), such as 0.01 for one point.")
    if baseline is not None:
        shapes = [[given.shape for given in signature_of(each).inputs] for each in (model, baseline)]
        if shapes[0] != shapes[1]:
            raise PruningError(
                f"'{model.name}' takes inputs of shapes {shapes[0]} and the baseline '{baseline.name}' {shapes[1]}. "
                "Give the model that this one was made of."
            )
    if out is None:
        return None
    return output_path(out, (".html",))


def _call(baseline: Any, lite: Any, data: Any, max_drop: float) -> str:
    """The lines that make the page again, in Python and in a terminal."""
    given = [("baseline", baseline, "keras"), ("lite", lite, "tflite"), ("data", data, "npz")]
    named = [f"{name}={name}" for name, value, _ in given if value is not None]
    flags = [f"--{name} {name}.{kind}" for name, value, kind in given if value is not None]
    return (
        f"tfprune.report({', '.join(['model', *named])}, max_drop={max_drop})\n"
        f"{' '.join(['tfprune report model.keras', *flags])} --max_drop {max_drop} --output report.html"
    )


def _kernels(model: keras.Model) -> dict[str, np.ndarray]:
    return {weight.key: as_array(weight.variable) for weight in every_weight_and_kernel(model) if weight.is_kernel}


def _again(pieces: Sequence[Batch]) -> Iterator[Any]:
    """Pieces of data as `verify` takes them."""
    for piece in pieces:
        inputs = piece.inputs[0] if len(piece.inputs) == 1 else list(piece.inputs)
        yield inputs if piece.targets is None else (inputs, piece.targets)


def _asked(
    models: dict[str, keras.Model], file: LiteModel | None, pieces: Sequence[Batch]
) -> tuple[Judged | None, Verification | None]:
    """The decisions of both models and of the file about the first output, each asked once, and the file compared."""
    model, before = models[AFTER], models.get(BEFORE)
    signature = signature_of(model)
    judges = Judges(model, [*models, *([FILE] if file is not None else [])])

    def hear(batch: Batch, expected: Any, answers: Any, truth: Any) -> None:
        baseline = [] if before is None else [as_array(flat_outputs(signature.answers(before, batch.inputs))[0])]
        judges.add([*baseline, expected[0], *(each[0] for each in answers)], truth[0])
        bar.advance(batch.size)

    with stage("Asking the models", total=sum(piece.size for piece in pieces)) as bar:
        if file is not None:
            found = compare_answers(model, file, _again(pieces), watch=lambda b, e, a, t: hear(b, e, [a], t))
            return judges.result(), found
        for piece in pieces:
            outputs = signature.answers(model, piece.inputs)
            names = output_names(model, outputs)
            truth = labels_of(None, piece.targets, names, slice(0, piece.size), piece.size)
            hear(piece, [as_array(flat_outputs(outputs)[0])], [], truth)
    return judges.result(), None


def _layer_errors(
    model: keras.Model, file: LiteModel, pieces: Sequence[Batch], remarks: list[str]
) -> LayerErrors | None:
    if not is_graph(model):
        remarks.append("The error of each layer needs a functional or Sequential model; tfprune.inline makes one.")
        return None
    macs = summary(model).macs or 0
    return layer_errors(model, file, _again(pieces), samples=max(4, min(SAMPLES, MOST_MACS // max(macs, 1))))


def _times(baseline: keras.Model | None, file: LiteModel, remarks: list[str]) -> Benchmark:
    """Time and bytes of the file, and of the baseline converted to float32."""
    files = {AFTER: file}
    if baseline is not None:
        try:
            files = {BEFORE: convert(baseline), AFTER: file}
        except (PruningError, ConversionError) as error:
            remarks.append(f"The baseline has no time: {error}")
    return benchmark(files, runs=RUNS)
