"""From a Keras model to a `.tflite` file in float32, float16, dynamic range, int8, or int8 with int16 activations.

The road: the model's inference is traced with a batch of one (fixed shapes let LiteRT's fast kernels take the whole
graph), written as a SavedModel of just the variables it reads, converted, and its ends given the names and the order
that they have in Keras. What comes out is looked into before it is handed over: an int8 model holds no float operator.
"""

import gc
import itertools
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import ConversionError, PruningError, listing
from tfprune.lite.convert.bias_correction import correct_biases
from tfprune.lite.convert.float_layers import converted_with_float_layers, give_integer_ends, take_out_marks
from tfprune.lite.convert.four_bits import pack_four_bits
from tfprune.lite.convert.islands import join_islands
from tfprune.lite.convert.layer_names import layer_at, paths_along, paths_before_ends
from tfprune.lite.convert.layer_results import compare_layers, worst_layers
from tfprune.lite.convert.lookups import Behind, behind_tables, put_in_front
from tfprune.lite.convert.low_pads import count_low_pads, lowest_padded, padding_with
from tfprune.lite.convert.refusal import explained, missing_data
from tfprune.lite.convert.request import Request
from tfprune.lite.convert.trace import INPUT, as_made, loops, name_ends, save, traced, unrolled_notes
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.compaction import compact
from tfprune.lite.file.contents import results_of
from tfprune.lite.file.kernels import DENSE_INT8
from tfprune.lite.file.lite_model import LiteModel
from tfprune.lite.file.metadata import origin_of, write_origin
from tfprune.lite.quantize.frozen import frozen
from tfprune.lite.quantize.representative import Calibration, Samples, calibration, single_samples
from tfprune.lite.quantize.weight_bits import Bits, WeightBits
from tfprune.lite.sparse.storing import stored_sparsely
from tfprune.model.aliases import with_aliases
from tfprune.model.graph import is_graph
from tfprune.model.native import only_new_garbage, silence
from tfprune.model.signature import Signature, matched_inputs, signature_of
from tfprune.model.tree import check_model, covers, places
from tfprune.progress import Stage, outermost_stage

NO_RANGE = 1e-8  # the converter gives a tensor that was always zero a scale of about 8e-9
FAR = 0.08  # root mean square of the differences over that of the outputs; rounding alone stays below


def convert(
    model: keras.Model,
    quantization: str = "float32",
    representative_data: Any = None,
    io: str = "int8",
    sparse: bool | str = False,
    batch_size: int | None = 1,
    *,
    float_layers: Sequence[str] = (),
    weight_bits: Bits = 8,
    bias_correction: bool = False,
    metadata: Mapping[str, Any] | None = None,
    sequence_length: int | Mapping[str, int] | None = None,
) -> LiteModel:
    """Makes a `.tflite` model of a Keras model, which stays as it is.

    Batch norms fold into the layers before them. Zeros stay zeros: a pruned weight is exactly 0 in every quantization.

    Args:
        model: Any built Keras 3 model: functional, Sequential, subclassed, nested, of several inputs or outputs, pruned
            and still wrapped, or in mixed precision.
        quantization: `"float32"`; `"float16"`, weights stored in half the bytes; `"dynamic"`, weights int8 and
            activations quantized while running; `"int8"`, weights, activations, inputs and outputs; `"int16x8"`, int8
            weights with int16 activations. Defaults to `"float32"`.
        representative_data: For `"int8"` and `"int16x8"`: inputs of the kind the model will meet, from which the ranges
            of the activations are learned. An array, a list or dict of arrays for several inputs, a `tf.data.Dataset`
            (of x, (x, y) or dicts), a generator or a function that returns one; 100 to 500 samples are enough, and at
            most 500 are used. Not needed for a model of `quantize_aware`, nor read for the other quantizations.
        io: What an integer model takes and gives: `"int8"`, integers (int16 for `"int16x8"`); or `"float32"`, which
            puts a conversion at either end, with integers all the same in between. Inputs that are integers in Keras
            (token numbers) are int32 in any case. The other quantizations have float ends whatever `io` says.
            Defaults to `"int8"`.
        sparse: Whether to store zeros the way the kernels read them, where that makes a tensor smaller and no slower.
            Dense kernels in blocks of four inputs (`Block(4, 1)`; of sixteen in `"int8"`) are computed faster; other
            zeros of `"float32"` and `"float16"` make the file smaller without compression. The file is run and compared
            with the dense one; `notes` say what was stored how. `plan_sparse` tells what each layer needs. `"size"`
            stores blocks where a layer becomes up to two times slower too. Defaults to False.
        batch_size: Samples that the file takes at once; None leaves it open, at some cost in speed. A `LiteModel` takes
            any number of samples in any case. Defaults to 1.
        float_layers: Names of layers that stay in float inside an `"int8"` file, since they do not stand the rounding;
            a model inside the model, or any layer that holds others, stands for all of them. `layer_errors` tells
            which. Of a model of `quantize_aware` they compute with kernels that are not rounded.
        weight_bits: For `"int8"`: 4 stores the kernels of Dense layers and convolutions in half the bytes, at some cost
            in accuracy; `{"name": 4}` those of some layers, depthwise ones too. LiteRT computes them outside XNNPACK,
            which may be slower. A model of `quantize_aware(model, weight_bits=4)` brings its own. Defaults to 8.
        bias_correction: For `"int8"`: whether to take off by its bias what the rounding adds to each layer's results on
            average over `representative_data`. Conversion takes longer, the file is no larger and no slower; it pays
            most with depthwise convolutions and in 4 bits. For functional and Sequential models. Defaults to False.
        metadata: More to store in the file beside what tfprune notes there itself (model, zeros of each kernel,
            versions); what JSON can hold. `inspect` reads it back.
        sequence_length: The number of time steps or tokens that the file takes, for a model whose inputs leave it open
            (`keras.Input((None, ...))`); `{"input": 20}` for inputs of different lengths. Recurrent layers become
            integers with it, and fast kernels take graphs of fixed shapes alone. Representative data must have that
            length. Defaults to None: what the model leaves open stays open.

    Returns:
        A `LiteModel`.

    Raises:
        PruningError: An argument, the model, or the representative data cannot be used; the message says what to write
            instead.
        ConversionError: The converter or LiteRT refuses the model; names the layer or operator where known.

    Example:
        ```python
        lite = tfprune.convert(model, quantization="int8", representative_data=images[:200])
        lite.save("model.tflite")
        ```
    """
    check_model(model, "convert")
    asked = Request(quantization, io, sparse, batch_size, float_layers, weight_bits, bias_correction, sequence_length)
    request = asked.checked(model)
    _refuse_layers(model)
    origin = origin_of(model, quantization, metadata or {})
    model, renamed = with_aliases(model)
    source = frozen(model, request.float_layers) if request.learned else model
    signature = request.sized(signature_of(source), model)
    data = Calibration([], ["Calibrated by quantization-aware training."])
    if request.needs_data:
        if representative_data is None:
            raise PruningError(missing_data(quantization, signature))
        with as_made():
            data = calibration(representative_data, signature, source)
    seen, samples = signature, data.samples
    if quantization == "int16x8":
        with as_made():
            seen = behind_tables(source, signature, request.batch_size)
        samples = seen.samples(data.samples) if isinstance(seen, Behind) else data.samples
    content, names = _converted(source, seen, request, samples)
    lite = _finished(content, seen, [renamed.get(name, name) for name in names], source, request, origin)
    if renamed:
        called = ", ".join(f"{name!r} is {alias!r}" for alias, name in renamed.items())
        lite.notes += (f"TensorFlow refuses some names of layers. In the file {called}.",)
    if request.bias_correction:
        with as_made():
            lite = correct_biases(model, signature, lite, data.samples)
    if request.is_integer:
        lite.notes = (*data.notes, *lite.notes)
    if quantization == "dynamic" and lite.quantization == "float32":
        lite.notes += ("No kernel has 1,024 entries or more, and the converter leaves smaller ones in float32.",)
    if request.needs_data:  # with learned ranges, layers in float are those that the user has left so
        _require_integers(lite, model, request)
    untouched = _untouched(lite, model) if data.samples else []
    if untouched:
        _refuse_untouched(untouched, lite)
    _require_runnable(lite)
    _compare_answers(lite, model, data, request.bits)
    return _stored_sparsely(lite, model, data.samples, sparse == "size") if sparse else lite


def _stored_sparsely(lite: LiteModel, model: keras.Model, samples: Samples, smallest: bool) -> LiteModel:
    """The file with its zeros stored sparsely; warns where an int8 file has none that a kernel reads."""
    stored = stored_sparsely(
        lite,
        next(iter(single_samples(samples))) if samples else (),
        lambda constant: layer_at(model, constant),
        smallest,
    )
    if stored is lite and lite.quantization == "int8":
        warnings.warn(
            f"sparse=True stores nothing of '{model.name}' sparsely. In int8 LiteRT reads the zeros of Dense kernels "
            f"in {DENSE_INT8.zeros} along the input axis, Block({DENSE_INT8.block}, 1), and is faster with them from "
            f"{DENSE_INT8.share():.0%} on; sparse='size' stores fewer too, in a smaller and slower file. "
            f"{' '.join(note for note in lite.notes if note.startswith('Stored densely'))}".rstrip(),
            UserWarning,
            stacklevel=3,
        )
    return stored


def _refuse_layers(model: keras.Model) -> None:
    """Raises for layers in a representation that the converter does not read."""
    policies = {place.path: place.layer.dtype_policy for place in places(model)}
    quantized = [path for path, policy in policies.items() if policy.quantization_mode]
    if quantized:
        raise PruningError(
            f"'{model.name}' has been quantized by Keras itself (model.quantize) in {listing(quantized)}, which the "
            "converter does not read. Convert the model from before that, with quantization='int8'."
        )
    double = [path for path, policy in policies.items() if policy.compute_dtype == "float64"]
    if double:
        raise PruningError(
            f"'{model.name}' computes in float64 in {listing(double)}, and LiteRT in float32 at most. Build the model "
            "with dtype='float32' and set its weights."
        )


def _converted(model: keras.Model, signature: Signature, request: Request, samples: Samples) -> tuple[bytes, list[str]]:
    """The converter's file as it is, and the names that its outputs shall have."""
    import tensorflow as tf

    unroll = request.is_integer or request.batch_size is None
    spoken = None
    count = sum(len(arrays[0]) for arrays in samples)
    try:
        with (
            outermost_stage(f"convert to {request.quantization}", total=count or 1) as bar,
            tempfile.TemporaryDirectory(prefix="tfprune") as folder,
            silence() as spoken,
            only_new_garbage(),
        ):
            function, names = traced(model, signature, request.batch_size, unroll, request.is_integer)
            if unroll:
                _refuse_loops(model, function, request)
            low_pads = count_low_pads(model, function, request.quantization) if samples else 0
            if low_pads:
                with padding_with(lowest_padded(model, signature, samples, low_pads)):
                    function, names = traced(model, signature, request.batch_size, unroll, request.is_integer)
            save(function, folder)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            _configure(converter, request, samples, bar)
            try:
                if request.float_layers and not request.learned:
                    plain = tf.lite.TFLiteConverter.from_saved_model(folder)
                    content = converted_with_float_layers(converter, plain, model, names, set(request.float_layers))
                    return content, names
                return converter.convert(), names
            finally:
                del converter
                gc.collect()  # of the converter's own frames, which hold those of its callers, and so the user's data
    except (PruningError, ConversionError):
        raise
    except Exception as error:  # whatever the user's layers, TensorFlow and its converter raise
        said = spoken.text if spoken is not None else ""
        raise ConversionError(explained(model, request.quantization, f"{error}\n{said}", error)) from error


def _configure(converter: Any, request: Request, samples: Samples, bar: Stage) -> None:
    import tensorflow as tf

    kinds, quantization = tf.lite.OpsSet, request.quantization
    if quantization != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if request.is_integer:
        ends = (tf.int8 if quantization == "int8" else tf.int16) if request.has_integer_ends else tf.float32
        converter.inference_input_type = converter.inference_output_type = ends
    if samples:  # learned ranges are in the graph itself, and the converter wants no data then
        whole = kinds.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [kinds.TFLITE_BUILTINS_INT8 if quantization == "int8" else whole]
        converter.representative_dataset = lambda: (
            {f"{INPUT}{index}": array for index, array in enumerate(sample)}
            for sample in bar.counting(single_samples(samples))
        )


def _refuse_loops(model: keras.Model, function: Any, request: Request) -> None:
    """Raises where a loop is left: the quantizer ends the whole process on one."""
    left = loops(function)
    if left:
        layer = layer_at(model, left[0])
        where = f"layer '{layer}'" if layer else f"operation '{left[0]}'"
        what = f"quantized to {request.quantization}" if request.is_integer else "converted with an open batch"
        raise ConversionError(
            f"A loop cannot be {what}, and {where} runs in one. Recurrent layers are unrolled when the length of their "
            "input is known: write sequence_length=, the time steps that the file shall take; or use "
            "quantization='dynamic'."
        )


def _finished(
    content: bytes, signature: Signature, names: list[str], source: keras.Model, request: Request,
    origin: Mapping[str, Any],
) -> LiteModel:  # fmt: skip
    """The file with the ends' names and order of the Keras model, its origin, and without float islands."""
    model = flatbuffer.read_model(content)
    name_ends(model, [spec.name for spec in signature.inputs], names)
    if request.learned:
        take_out_marks(model)
    if isinstance(signature, Behind):
        put_in_front(model, signature)
    notes = give_integer_ends(model, request.stays_float) if request.stays_float else []
    notes += join_islands(model) if request.quantization == "int8" else []
    notes += unrolled_notes(source) if request.is_integer else []
    if request.bits.has_four:
        packed = pack_four_bits(model, source, names, request.bits)
        notes.append(f"Kernels in 4 bits: {listing(packed)}." if packed else "No kernel is one that 4 bits suit.")
    compact(model)
    write_origin(model, origin)
    return LiteModel.written(model, notes)


def _require_integers(lite: LiteModel, model: keras.Model, request: Request) -> None:
    floats = [operator for operator in lite.operators if operator.is_float]
    if request.float_layers:
        along = paths_along(model, [name for operator in floats for name in operator.tensors])
        makers = paths_before_ends(model, [end.name for end in lite.outputs])
        floats = [
            operator
            for operator in floats
            if not any(
                covers(layer, path)
                for name in operator.tensors
                for path in along[name] | makers.get(name, set())
                for layer in request.float_layers
            )
        ]
    if floats:
        found = [layer_at(model, name) for operator in floats for name in operator.tensors]
        layers = sorted({layer for layer in found if layer is not None})
        where = f" (layer{'s' * (len(layers) > 1)} {listing(layers)})" if layers else ""
        names = listing(dict.fromkeys(operator.name for operator in floats))
        raise ConversionError(
            f"'{model.name}' cannot be converted to {request.quantization} whole: there is no integer form of "
            f"{names}{where}. Exchange these layers, or use quantization='dynamic' or 'float16'."
        )


def _untouched(lite: LiteModel, model: keras.Model) -> list[str]:
    """The layers whose results were zero for all representative data, so that no range could be learned."""
    empty = [end.name for end in results_of(lite.file) if end.scale and end.scale < NO_RANGE]
    layers = [layer_at(model, name) or name for name in empty]
    return list(dict.fromkeys(layers))


def _refuse_untouched(layers: list[str], lite: LiteModel) -> None:
    """Raises where LiteRT cannot run a file with results that have no range, and warns where it can."""
    message = (
        f"The representative data never touch {listing(layers)}: the results there are zero throughout, so no range "
        "can be learned. Give more typical samples; or, if these units are dead, take them out with tfprune.shrink."
    )
    try:
        _require_runnable(lite)
    except ConversionError as error:
        raise PruningError(message) from error
    warnings.warn(message, UserWarning, stacklevel=3)


def _require_runnable(lite: LiteModel) -> None:
    """Raises where LiteRT cannot prepare the file; an open length is left to the caller's data."""
    if all(None not in end.shape for end in lite.inputs):
        lite.prepared()


def _compare_answers(lite: LiteModel, model: keras.Model, data: Calibration, bits: WeightBits) -> None:
    """Warns where the file's answers to the data it was calibrated on are far from those of Keras."""
    if not data.answers:
        return
    count = len(data.answers[0])
    answers = lite([array[:count] for array in data.samples[0]])
    for wanted, answer, end in zip(data.answers, answers if isinstance(answers, list) else [answers], lite.outputs):
        if wanted.dtype.kind != "f" or wanted.shape != answer.shape:
            continue
        error, size = (float(np.sqrt(np.mean(np.square(values)))) for values in (wanted - answer, wanted))
        if error > FAR * size:
            layers = _losing_layers(model, lite, data)
            culprit = f"most comes in at {listing(layers)}" if layers else "some layer does not stand the rounding"
            warnings.warn(
                f"Output '{end.name}' of the {lite.quantization} file is off by {error / size:.0%} of what "
                f"'{model.name}' gives on the representative data: {culprit}. {_way_out(model, layers, bits)}",
                UserWarning,
                stacklevel=3,
            )
            return


def _way_out(model: keras.Model, layers: Sequence[str], bits: WeightBits) -> str:
    """What to write where layers lose too much."""
    tables = [place.path for place in places(model) if isinstance(place.layer, keras.layers.Embedding)]
    if not set(tables).isdisjoint(layers):
        return (
            "The rows of a table are read by numbers that come as floats and are rounded to 256 values: give them as "
            "whole numbers, keras.Input(..., dtype='int32'), or convert quantize_aware(model), which leaves them whole."
        )
    finer = "weight_bits=8" if bits.has_four else "quantization='int16x8' or 'dynamic'"
    return (
        f"tfprune.layer_errors shows every layer, and float_layers=[...] keeps some in float; {finer}, "
        "bias_correction=True, or quantize_aware training, may do better."
    )


def _losing_layers(model: keras.Model, lite: LiteModel, data: Calibration) -> list[str]:
    """The layers that add most to the error of an integer file; none where they cannot be told."""
    if not is_graph(model):
        return []
    order = matched_inputs([end.name for end in lite.inputs], signature_of(model), model)
    return worst_layers(compare_layers(model, lite, order, itertools.islice(single_samples(data.samples), 8))[0], 2)
