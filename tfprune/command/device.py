"""Subcommands that lead to a device: convert, inspect, why, verify, benchmark, report."""

import json
from pathlib import Path

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
    read_lite,
    read_model,
    read_samples,
    reads,
    show,
    switch,
    text,
    words_of,
    writes,
)
from tfprune.errors import PruningError, listing
from tfprune.model import files
from tfprune.model.files import REPORT_KINDS


@command(
    "tfprune convert MODEL.keras --quantization int8 --data TRAIN.npz --output MODEL.tflite",
    "tfprune convert demo/pruned.keras --quantization int8 --data digits --output pruned.tflite",
    options=(
        one_of(
            "quantization",
            "float32",
            ["float32", "float16", "dynamic", "int8", "int16x8"],
            "Numbers in the file; int8 and int16x8 need --data.",
        ),
        one_of("io", "int8", ["int8", "float32"], "Inputs and outputs of an integer model."),
        switch("sparse", False, "Store zeros as the kernels read them; float32, float16 and int8."),
        words_of("float_layers", None, "Names of layers that stay in float in an int8 file, with commas."),
        one_of("weight_bits", "8", ["4", "8"], "Bits of dense and convolution kernels in an int8 file."),
        switch("bias_correction", False, "Take off by biases what int8 adds on average over --data."),
        count("sequence_length", None, "Time steps or tokens at once, where the model leaves their number open.", 1),
        *reads("Typical inputs; a few hundred are enough."),
        *writes("Where to write the .tflite file."),
    ),
    required=("output",),
)
def _convert(words: list[str], values: flags.FlagValues) -> None:
    """Makes a .tflite file of a Keras model."""
    output = checked_output(values, (".tflite",))
    quantization = values.quantization
    if quantization in ("int8", "int16x8") and values.data is None:
        raise UsageError(
            f"--quantization={quantization} needs typical inputs. Write --data train.npz, with an array x."
        )
    model = read_model(words[0], values)
    samples = None if values.data is None else read_samples(values, "train", model).inputs
    lite = tfprune.convert(
        model,
        quantization=quantization,
        representative_data=samples,
        io=values.io,
        sparse=values.sparse,
        float_layers=values.float_layers or (),
        weight_bits=int(values.weight_bits),
        bias_correction=values.bias_correction,
        sequence_length=values.sequence_length,
    )
    lite.save(output)  # type: ignore[arg-type]  # --output is required
    show(lite.inspect(), values, written=output, remarks=lite.notes)


@command(
    "tfprune inspect MODEL.tflite",
    "tfprune inspect demo/pruned.tflite",
    options=(
        text("pattern", None, "Fail where a kernel breaks this N:M pattern, such as 2:4."),
        words_of("layers", None, "Parts of names of the kernels that --pattern asks."),
        text("explorer", None, "Where to write a .json file by which Model Explorer colours the graph by its zeros."),
        *REPORT,
    ),
)
def _inspect(words: list[str], values: flags.FlagValues) -> None:
    """Shows operators, types, bytes and zeros of a .tflite file."""
    output = checked_output(values, REPORT_KINDS)
    with as_usage():
        explorer = None if values.explorer is None else files.output_path(values.explorer, (".json",))
    model = read_lite(words[0])
    result = model.inspect()
    if explorer is not None:
        from tfprune.lite.measure.explorer import node_data, write_figure

        write_figure(node_data(model)["zeros"], explorer)
    pattern = values.pattern
    broken = []
    if pattern is not None:
        with as_usage():
            broken = result.breaking(pattern, values.layers)
    show(result, values, output)
    if broken:
        raise PruningError(f"not {pattern}: {listing(broken)}.")


@command(
    "tfprune why MODEL.tflite",
    "tfprune why demo/pruned.tflite",
    options=(
        one_of(
            "runtime", "litert", ["litert", "arm", "web", "micro"], "Where it shall run: PC, phone, page, controller."
        ),
        count("runs", 30, "Timed runs.", lower_bound=1),
        *REPORT,
    ),
)
def _why(words: list[str], values: flags.FlagValues) -> None:
    """Tells why a .tflite file is not faster: what its time goes into, what zeros, channels or int8 would change."""
    output = checked_output(values, REPORT_KINDS)
    from tfprune import lite

    result = lite.explain(Path(words[0]), values.runtime, values.runs)
    show(result, values, output)
    if not result.paths.runs:
        raise PruningError(f"runtime={values.runtime!r} does not run {words[0]} right: {result.paths.broken[0]}")


@command(
    "tfprune verify MODEL.keras MODEL.tflite --data TEST.npz",
    "tfprune verify demo/pruned.keras demo/pruned.tflite --data digits",
    "tfprune verify demo/pruned.keras demo/pruned.tflite --data digits --min_f1 0.9 --integers --by_layer",
    files=(2, 2),
    options=(
        *reads("Inputs to compare on, with labels for the accuracies."),
        number("min_agreement", 0.99, "Fail below this share of equal top-1 answers.", 0.0, 1.0),
        *(
            number(name, None, f"Fail below this {what} of the .tflite.", 0.0, 1.0)
            for name, what in (("min_accuracy", "accuracy"), ("min_f1", "F1"))
        ),
        *(
            number(name, None, f"Fail above this {what} of any output.", lower_bound=0.0)
            for name, what in (("max_difference", "absolute difference"), ("max_relative_error", "relative error"))
        ),
        switch("integers", False, "Fail where an operator computes in floating point."),
        switch("by_layer", False, "Show the error behind every layer too."),
        *REPORT,
        IMPORT,
    ),
    required=("data",),
)
def _verify(words: list[str], values: flags.FlagValues) -> None:
    """Compares the answers of a Keras model and its .tflite file; fails when they differ."""
    output = checked_output(values, REPORT_KINDS)
    model, lite = read_model(words[0], values), read_lite(words[1])
    samples = read_samples(values, "test", model)
    result = tfprune.verify(model, lite, samples.inputs, labels=samples.targets, layers=values.by_layer)
    show(result, values, output)
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


@command(
    "tfprune benchmark MODEL.tflite [OTHER.tflite ... PHONE.txt ...]",
    "tfprune benchmark demo/dense.tflite demo/pruned.tflite",
    "tfprune benchmark demo/pruned.tflite --operators",
    "tfprune benchmark demo/pruned.tflite --phone",
    files=(1, 99),
    options=(
        count("runs", 100, "Timed runs of each model.", lower_bound=1),
        count("threads", 1, "Threads of the interpreter.", lower_bound=1),
        switch("xnnpack", True, "Use XNNPACK kernels; --noxnnpack times the plain ones."),
        switch("memory", False, "Measure the memory of a process that runs each, too."),
        switch("operators", False, "Time each operator of one file in place of whole files."),
        one_of("runtime", "litert", ["litert", "web", "browser"], "LiteRT here, or LiteRT.js in Node or in Chromium."),
        text("litertjs", None, "Folder of the npm package @litertjs/core, where it is not found by itself."),
        switch("micro", False, "Run one file as on a microcontroller: arena, answers."),
        switch("phone", False, "Print the lines that measure the files on an Android phone."),
        *REPORT,
    ),
)
def _benchmark(words: list[str], values: flags.FlagValues) -> None:
    """Measures bytes and milliseconds of .tflite files on this machine, in turns."""
    output = checked_output(values, REPORT_KINDS)
    from tfprune import lite
    from tfprune.lite.measure.phone import is_phone_output

    stems = [Path(word).stem for word in words]
    names = stems if len(set(stems)) == len(stems) else words
    models = {name: word if is_phone_output(word) else read_lite(word) for name, word in zip(names, words)}
    how = {name: values[name].value for name in ("runs", "threads", "xnnpack")}
    if values.phone:
        lines = {word: lite.phone_lines(word, **how) for word in words}
        print(json.dumps(lines, indent=2) if values.json else "\n\n".join(lines.values()))
    elif values.operators or values.micro:
        if len(words) != 1:
            flag = "operators" if values.operators else "micro"
            raise UsageError(f"--{flag} takes one file, and {len(words)} came.")
        (model,) = models.values()
        show(lite.run_micro(model) if values.micro else lite.time_operators(model, **how), values, output)
    else:
        where = {name: values[name].value for name in ("memory", "runtime", "litertjs")}
        show(tfprune.benchmark(models, **where, **how), values, output)


@command(
    "tfprune report MODEL.keras --data TEST.npz --output REPORT.html",
    "tfprune report demo/pruned.keras --baseline demo/dense.keras --lite demo/pruned.tflite --data digits "
    "--output report.html",
    options=(
        text("baseline", None, "The .keras file of the model before, to compare with."),
        text("lite", None, "The .tflite file made of the model, for time, bytes and the error of integers."),
        number("max_drop", 0.01, "The loss of accuracy that is bearable, 0.01 is one point.", 0.0, 1.0),
        text("explorer", None, "Folder for files by which Model Explorer colours the graph: zeros, errors, times."),
        *reads("Inputs with labels that no decision saw, for the accuracies."),
        *writes("Where to write the page, a .html file."),
    ),
    required=("output",),
)
def _report(words: list[str], values: flags.FlagValues) -> None:
    """Writes a page for the browser: what was saved, what it cost, whether it is safe to ship."""
    output = checked_output(values, (".html",))
    model = read_model(words[0], values)
    baseline = None if values.baseline is None else read_model(values.baseline, values)
    lite = None if values.lite is None else read_lite(values.lite)
    data = None
    if values.data is not None:
        samples = read_samples(values, "test", model)
        data = samples.inputs if samples.targets is None else (samples.inputs, samples.targets)
    result = tfprune.report(model, baseline, lite, data, output, max_drop=values.max_drop, explorer=values.explorer)
    show(result, values, written=output)
