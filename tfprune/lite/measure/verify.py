"""Comparing a converted model with the Keras model it was made of, on data."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import keras
import numpy as np

from tfprune.errors import PruningError, listing, number
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.file.zeros import KeptZeros, kept_zeros
from tfprune.lite.measure.comparison import Comparison, OutputComparison
from tfprune.lite.measure.judging import Judging
from tfprune.lite.measure.layer_errors import LayerErrors, layer_errors
from tfprune.lite.measure.robustness import Robustness, required_image, robustness_note
from tfprune.lite.quantize.representative import checked_batches
from tfprune.model.data import Batch, joined
from tfprune.model.labels import labels_of, require_all_used
from tfprune.model.signature import flat_outputs, matched_inputs, output_names, signature_of
from tfprune.model.tree import as_array, check_model
from tfprune.progress import stage
from tfprune.report import Column, Panel, Report, draw_bars, saved


@dataclass(frozen=True, repr=False)
class Verification(Report):
    """How a converted model compares with its Keras model.

    Args:
        samples: The number of samples compared.
        outputs: The comparison of each output, in the order of the Keras model.
        weights: What has become of the zeros of each kernel that has some.
        quantization: That of the file.
        size: Bytes of the file.
        float_ops: Operators of the file that compute in floating point, with their counts.
        layers: The error behind each layer, where it was asked for.
        metrics: Name of a metric -> its value in Keras and in the file, of what the model is judged by beside accuracy.
        remarks: Why a metric that the model is compiled with could not be measured.
        robustness: `"noise"`, `"blur"`, `"brightness"` -> accuracy of Keras and of the file on images disturbed so,
            where it was asked for.
    """

    title: ClassVar[str] = "Keras and .tflite compared"
    columns: ClassVar[Sequence[Column]] = (
        Column("output", "output"),
        Column("agreement", "top-1 agreement", ".2%"),
        Column("accuracy", "accuracy Keras", ".2%"),
        Column("lite_accuracy", "accuracy .tflite", ".2%"),
        Column("f1", "F1 Keras", ".4f"),
        Column("lite_f1", "F1 .tflite", ".4f"),
        Column("relative_error", "error", ".2%"),
        Column("largest_difference", "largest", ".3g"),
    )

    samples: int
    outputs: tuple[OutputComparison, ...]
    weights: tuple[KeptZeros, ...]
    quantization: str
    size: int
    float_ops: dict[str, int] = field(default_factory=dict)
    layers: LayerErrors | None = None
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    robustness: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def agreement(self) -> float | None:
        """The lowest top-1 agreement of any output, in [0, 1]; None when all are regressions."""
        return _lowest(output.agreement for output in self.outputs)

    @property
    def accuracy(self) -> float | None:
        """The accuracy of Keras on the first output that has labels; None without."""
        return next((output.accuracy for output in self.outputs if output.accuracy is not None), None)

    @property
    def lite_accuracy(self) -> float | None:
        """The accuracy of the converted model on the first output that has labels; None without."""
        return next((output.lite_accuracy for output in self.outputs if output.lite_accuracy is not None), None)

    @property
    def f1(self) -> float | None:
        """The F1 of Keras on the first output that has labels; None without."""
        return next((output.f1 for output in self.outputs if output.f1 is not None), None)

    @property
    def lite_f1(self) -> float | None:
        """The F1 of the converted model on the first output that has labels; None without."""
        return next((output.lite_f1 for output in self.outputs if output.lite_f1 is not None), None)

    @property
    def largest_difference(self) -> float:
        """The largest absolute difference in any output."""
        return max(output.largest_difference for output in self.outputs)

    @property
    def mean_difference(self) -> float:
        """The largest of the outputs' mean absolute differences."""
        return max(output.mean_difference for output in self.outputs)

    @property
    def zeros(self) -> int:
        """Zeros in the kernels of the Keras model that were found in the file."""
        return sum(weight.zeros for weight in self.weights if weight.kept is not None)

    @property
    def zeros_kept(self) -> int:
        """How many of `zeros` are zeros in the file."""
        return sum(weight.kept for weight in self.weights if weight.kept is not None)

    def broken(
        self,
        *,
        min_agreement: float | None = None,
        min_accuracy: float | None = None,
        min_f1: float | None = None,
        max_difference: float | None = None,
        max_relative_error: float | None = None,
        integers: bool = False,
    ) -> list[str]:
        """The bounds that the converted model breaks, a sentence for each; zeros that were lost always count.

        Args:
            min_agreement: Least top-1 agreement of every output, in [0, 1].
            min_accuracy: Least accuracy of the converted model, in [0, 1].
            min_f1: Least F1 of the converted model, in [0, 1].
            max_difference: Largest absolute difference that any value of an output may have.
            max_relative_error: Largest relative error of any output.
            integers: Whether all operators must compute in integers.
        """
        worst = max(output.relative_error for output in self.outputs)
        lowest = (
            ("top-1 agreement", self.agreement, min_agreement),
            ("accuracy of the .tflite", self.lite_accuracy, min_accuracy),
            ("F1 of the .tflite", self.lite_f1, min_f1),
        )
        highest = (
            ("largest difference", self.largest_difference, max_difference),
            ("relative error", worst, max_relative_error),
        )
        for bounds, most in ((lowest, 1.0), (highest, math.inf)):
            for name, _, bound in bounds:
                if bound is not None:
                    number(f"the bound of the {name}", bound, 0.0, most)
        said = []
        for name, value, bound in lowest:
            if bound is not None and value is None:
                said.append(f"the {name} cannot be told of these outputs without labels for classes")
            elif bound is not None and value is not None and value < bound:
                said.append(f"the {name} is {value:.4f}, less than {bound:g}")
        said += [
            f"the {name} is {value:.4g}, more than {bound:g}" for name, value, bound in highest if _over(value, bound)
        ]
        if self.zeros_kept < self.zeros:
            said.append(f"{self.zeros - self.zeros_kept:,} of {self.zeros:,} zeros are not zero in the file")
        if integers and self.float_ops:
            said.append(f"{listing(self.float_ops)} compute in floating point")
        return said

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "output": output.name,
                "agreement": output.agreement,
                "accuracy": output.accuracy,
                "lite_accuracy": output.lite_accuracy,
                "f1": output.f1,
                "lite_f1": output.lite_f1,
                "relative_error": output.relative_error,
                "largest_difference": output.largest_difference,
                "mean_difference": output.mean_difference,
                "largest_value": output.largest_value,
            }
            for output in self.outputs
        ]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws for each output how far the file is from Keras, and how often both are right where labels tell."""
        panels = [Panel("error over Keras' values", ".2%", {"": [each.relative_error for each in self.outputs]})]
        if self.agreement is not None:
            panels.append(Panel("top-1 agreement", ".2%", {"": [each.agreement for each in self.outputs]}))
        if self.accuracy is not None:
            keras, lite = ([getattr(each, key) for each in self.outputs] for key in ("accuracy", "lite_accuracy"))
            panels.append(Panel("accuracy", ".2%", {"Keras": keras, "file": lite}, stacked=False))
        return saved(draw_bars(self.title, [output.name for output in self.outputs], panels), path)

    def notes(self) -> list[str]:
        said = [
            f"{self.samples:,} samples; {self.quantization} file of {self.size:,} bytes.",
            "Error: root mean square of the differences over that of Keras' values. Largest: the largest difference.",
        ]
        said += [f"{name}: {keras:.4g} Keras, {lite:.4g} .tflite." for name, (keras, lite) in self.metrics.items()]
        said += self.remarks
        for output in self.outputs:
            said += output.paying(len(self.outputs) > 1)
        if self.robustness:
            said.append(robustness_note(self.robustness, "Keras", ".tflite"))
        found = [weight for weight in self.weights if weight.kept is not None]
        lost = [weight for weight in found if weight.kept != weight.zeros]
        missing = [weight.key for weight in self.weights if weight.kept is None]
        if found:
            said.append(
                f"Zeros kept: {self.zeros_kept:,} of {self.zeros:,}, in {len(found)} kernel{'s' * (len(found) != 1)}."
            )
        if lost:
            said.append(
                "Zeros lost in " + ", ".join(f"{w.key} ({w.zeros - (w.kept or 0):,} of {w.zeros:,})" for w in lost)
            )
        if self.float_ops and self.quantization == "int8":
            said.append(f"Computing in floating point: {listing(self.float_ops)}.")
        if self.layers is not None:
            said.append(str(self.layers))
        if missing:
            said.append(f"Not in the file as one constant, so not compared: {listing(missing)}.")
        return said

    def to_dict(self) -> dict[str, Any]:
        return {
            **super().to_dict(),
            "layers": None if self.layers is None else self.layers.to_dict(),
            "groups": {output.name: [vars(group) for group in output.groups] for output in self.outputs},
            "metrics": {name: list(values) for name, values in self.metrics.items()},
            "robustness": {kind: list(values) for kind, values in self.robustness.items()},
            "float_ops": self.float_ops,
            "samples": self.samples,
            "zeros": self.zeros,
            "zeros_kept": self.zeros_kept,
            "weights": [
                {"key": weight.key, "zeros": weight.zeros, "kept": weight.kept, "constant": weight.constant}
                for weight in self.weights
            ],
        }


def verify(
    model: keras.Model,
    lite: Any,
    data: Any,
    labels: Any = None,
    *,
    layers: bool = False,
    isolate: bool = False,
    metric: Any = None,
    mode: Any = None,
    robustness: bool = False,
) -> Verification:
    """Runs a Keras model and its converted form on the same data and compares what they answer.

    Args:
        model: The Keras model that was converted; it stays as it is.
        lite: The converted model: a `LiteModel`, the path of a `.tflite` file, or its bytes.
        data: An array; a list or dict of arrays for several inputs; a `tf.data.Dataset` or generator of x, (x, y) or
            dicts. Read once, in pieces.
        labels: For arrays: class numbers, one-hot rows, 0 or 1 for a binary output, or real values of a regression
            (which has no accuracy). For several outputs a dict by output name, or a list. A dataset brings its own.
        layers: Whether to compare the result of every layer too, on the first samples: `layer_errors`, in `.layers`.
        isolate: Whether LiteRT is to run a file given by path or as bytes in a process of its own, which one of unknown
            origin may end. Defaults to False.
        metric: What else both are judged by, as in `compress`: a name, a Keras metric, a function of (targets,
            outputs), or a dict of these by output. Defaults to None: the metric that the model is compiled with.
        mode: `"max"` or `"min"` where the metric does not say which is better.
        robustness: Whether to run both on noisy, blurred and brighter images too, and to say how right they are there;
            for models that take images. Takes four times as long. Defaults to False.

    Returns:
        A `Verification`, which prints as a table: top-1 agreement, accuracy and F1 of both, differences, zeros kept;
        then the metric of both in `.metrics`, and which classes (or ranges of targets) lost most, with a warning where
        one loses more than three times the average and beyond chance.
        `.broken(min_agreement=0.99, ...)` says which bounds do not hold.

    Raises:
        PruningError: The model is not built, the file is not of this model, or the data or labels do not fit.
        ConversionError: LiteRT cannot run the file.

    Example:
        ```python
        print(tfprune.verify(model, lite, x_test, y_test))
        ```
    """
    check_model(model, "verify")
    lite, judging = LiteModel.of(lite, isolate), Judging(model, metric, mode)
    with stage("compare answers", total=_count(data)) as bar:
        found = compare_answers(
            model, lite, data, labels, judging, robustness, watch=lambda batch, *answers: bar.advance(batch.size)
        )
    return replace(found, layers=layer_errors(model, lite, data)) if layers else found


def compare_answers(
    model: keras.Model,
    lite: LiteModel,
    data: Any,
    labels: Any = None,
    judging: Judging | None = None,
    robustness: bool = False,
    watch: Callable[..., None] = lambda batch, expected, answers, truth: None,
) -> Verification:
    """What `verify` says of a file, each sample being asked once; `watch` is told of every batch.

    Args:
        model, lite, data, labels, robustness: See `verify`.
        judging: Of the metrics. Defaults to None: those that the model is compiled with.
        watch: Takes a batch, what the model and the file answered, and the labels of each output.
    """
    judging = judging or Judging(model, None, None)
    signature = signature_of(model)
    order = matched_inputs([end.name for end in lite.inputs], signature, model)
    comparisons: list[Comparison] = []
    disturbed: Robustness | None = None
    image = required_image(signature) if robustness else None
    samples = 0

    def both(inputs: Sequence[np.ndarray]) -> tuple[Any, list[np.ndarray], list[np.ndarray]]:
        outputs = signature.answers(model, inputs)
        answers = answers_to(lite, [inputs[index] for index in order], output_names(model, outputs))
        return outputs, [as_array(output) for output in flat_outputs(outputs)], answers

    for batch in checked_batches(data, signature, "verify()"):
        outputs, expected, answers = both(batch.inputs)
        names, count = output_names(model, outputs), batch.size
        truth = labels_of(labels, batch.targets, names, slice(samples, samples + count), count)
        comparisons = comparisons or [Comparison(model, name, judging.strict) for name in names]
        for comparison, wanted, answer, right in zip(comparisons, expected, answers, truth):
            comparison.add(wanted, answer, right)
        judging.add(batch, outputs, expected, answers, truth)
        watch(batch, expected, answers, truth)
        if image is not None:
            disturbed = disturbed or Robustness(model, names, lambda inputs: both(inputs)[1:], image, judging.strict)
            disturbed.add(batch.inputs, truth)
        samples += count
    require_all_used(labels, samples)
    metrics, remarks = judging.result()
    return Verification(
        samples=samples,
        outputs=tuple(comparison.result() for comparison in comparisons),
        weights=kept_zeros(model, lite.file),
        quantization=lite.quantization,
        size=lite.size,
        float_ops=dict(Counter(operator.name for operator in lite.operators if operator.is_float)),
        metrics=metrics,
        remarks=remarks,
        robustness=disturbed.result() if disturbed else {},
    )


def _count(data: Any) -> int | None:
    """How many samples there are; None where only reading tells."""
    leaves = keras.tree.flatten(data[0] if isinstance(data, tuple) else data)
    return len(leaves[0]) if leaves and isinstance(leaves[0], np.ndarray) and leaves[0].ndim else None


def file_answers(
    model: keras.Model, lite: LiteModel, batches: Sequence[Batch], names: Sequence[str] = ()
) -> list[np.ndarray]:
    """The answers of a file to all samples: its outputs in the flat order of the model that it was made of.

    Args:
        model, lite, batches: The model, its file, and the samples.
        names: Of the model's outputs. Defaults to none: the model is run on the first batch, and they are read there.
    """
    order = matched_inputs([end.name for end in lite.inputs], signature_of(model), model)
    parts = []
    for batch in batches:
        arrays = [as_array(array) for array in keras.tree.flatten(batch.inputs)]
        names = names or output_names(model, model(batch.inputs, training=False))
        parts.append(answers_to(lite, [arrays[index] for index in order], names))
    return joined(parts)


def answers_to(lite: LiteModel, inputs: list[np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
    """What a file answers to inputs in its own order, in the order of the model's outputs: by name, else by place."""
    given = lite(inputs)
    answers = given if isinstance(given, list) else [given]
    if len(answers) != len(names):
        raise PruningError(
            f"The file gives {len(answers)} outputs and the model {len(names)}: the file was not made of this model."
        )
    known = [end.name for end in lite.outputs]
    return [answers[known.index(name)] for name in names] if set(known) == set(names) else answers


def _over(value: float, bound: float | None) -> bool:
    return bound is not None and not value <= bound


def _lowest(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None
