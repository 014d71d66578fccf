"""What came of a compression: the file beside the unpruned model, timed, compared class by class and disturbed."""

from collections.abc import Sequence

import keras
import numpy as np

from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.measure.benchmark import benchmark
from tfprune.lite.measure.comparison import Comparison, OutputComparison
from tfprune.lite.measure.robustness import Answers, Robustness, Shares, image_of
from tfprune.lite.measure.verify import file_answers
from tfprune.model.data import Batch, joined
from tfprune.model.labels import labels_of
from tfprune.model.metrics import answers_of
from tfprune.model.noise import standard_error
from tfprune.model.signature import output_names, signature_of
from tfprune.model.tree import as_array
from tfprune.progress import stage
from tfprune.search.compress.goals import MEASURED, TIMED_RUNS, Files
from tfprune.search.compress.report import Compression
from tfprune.search.compress.steps import Steps, Stop


def measured(
    steps: Steps, chosen: Stop, lite: LiteModel, given: Answers, values: Sequence[float], dense: Files
) -> Compression:
    """What came of it: files are timed side by side, and compared with what was asked for.

    Args:
        steps: All that was made.
        chosen: What the file was made of.
        lite: The file.
        given: What it answers to the validation data.
        values: What it is worth by each metric.
        dense: The unpruned model's files.
    """
    small, terms = steps.in_float(chosen), steps.terms
    thin = Files(small, None, dense.kind, lite)
    with stage("measure files"):
        files = {
            "unpruned float32": dense.floating,
            f"unpruned {dense.kind}": dense.rounded,
            "compressed float32": thin.floating,
            f"compressed {dense.kind}": lite,
        }
        timing = benchmark(files, runs=TIMED_RUNS)
        # `timing` has the time of LiteRT.
        reached = {cost: MEASURED[cost](dense, thin) for cost in terms.goal if cost in MEASURED and cost != "latency"}
    steps.folder.save_lite("compressed", lite)
    macs, parameters, _ = steps.shares(small)
    names = output_names(steps.model, steps.model(steps.val[0].inputs, training=False))
    return Compression(
        model=chosen.model,
        lite=lite,
        accuracy=values[0],
        dense_accuracy=steps.stops[0].values[0],
        max_drop=terms.max_drop,
        target=terms.target,
        steps=tuple(steps.milestones),
        timing=timing,
        macs=macs,
        parameters=parameters,
        reached=reached,
        kind=dense.kind,
        notices=tuple(steps.notes),
        bounds=steps.bounds,
        values=tuple(values),
        standard_errors=tuple(standard_error(metric, steps.answers, given) for metric in steps.bounds.metrics),
        samples=sum(batch.size for batch in steps.val),
        outputs=_compared(steps, names, given),
        robustness=_disturbed(steps, names, chosen, lite),
    )


def _compared(steps: Steps, names: Sequence[str], given: Answers) -> tuple[OutputComparison, ...]:
    """How the file compares with the unpruned model, and which classes lost most."""
    compared = []
    labels = joined([_labels(names, batch) for batch in steps.val])
    for name, *parts in zip(names, steps.answers, given, labels):
        comparison = Comparison(steps.model, name, strict=False)  # the metric has read the labels already
        comparison.add(*parts)
        compared.append(comparison.result())
    return tuple(compared)


def _disturbed(steps: Steps, names: Sequence[str], chosen: Stop, lite: LiteModel) -> Shares:
    """How right the unpruned model and the file are on disturbed images."""
    model, signature = steps.model, signature_of(steps.model)
    image = image_of(signature)
    if image is None or steps.val[0].targets is None:
        return {}

    of_chosen = output_names(chosen.model, chosen.model(steps.val[0].inputs, training=False))

    def both(inputs: Sequence[np.ndarray]) -> tuple[Answers, Answers]:
        given = [Batch(keras.tree.map_structure(lambda number: inputs[number], signature.structure))]
        return answers_of(model, given), file_answers(chosen.model, lite, given, of_chosen)

    disturbed = Robustness(model, names, both, image, strict=False)
    for batch in steps.val:
        disturbed.add([as_array(array) for array in keras.tree.flatten(batch.inputs)], _labels(names, batch))
    return disturbed.result()


def _labels(names: Sequence[str], batch: Batch) -> list[np.ndarray | None]:
    """The labels of each output."""
    return list(labels_of(None, batch.targets, names, slice(0, batch.size), batch.size))
