"""What a conversion is asked for, checked against the model before anything is converted."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from tfprune.errors import PruningError, listing, nearest
from tfprune.lite.quantize.weight_bits import Bits, WeightBits, checked_weight_bits, learned_weight_bits
from tfprune.model.graph import Call, flow, is_graph, require_graph
from tfprune.model.signature import Signature
from tfprune.model.tree import asked_layers, places

QUANTIZATIONS = ("float32", "float16", "dynamic", "int8", "int16x8")
INTEGER = ("int8", "int16x8")
IO = ("int8", "float32")


@dataclass(frozen=True)
class Request:
    """The form that a file shall have, as the user asks for it; `checked` makes it ready to be carried out.

    Attributes:
        quantization: One of `QUANTIZATIONS`.
        io: What an integer model takes and gives, one of `IO`.
        sparse: Whether weights are stored in sparse form; `"size"` where that makes them slower, too.
        batch_size: Samples at once; None leaves it open.
        float_layers: Names or paths of the layers that stay in float.
        bits: Of the kernels; once checked, a `WeightBits`.
        bias_correction: Whether biases make up for the rounding.
        sequence_length: Of the inputs that leave it open, for all or by name; None leaves it so.
        learned: Whether the model brings the ranges of its activations.
        whole_inputs: Whether it does, and takes floats that it does not round: numbers of rows.
    """

    quantization: str
    io: str
    sparse: bool | str
    batch_size: int | None
    float_layers: Collection[str]
    bits: Any
    bias_correction: bool
    sequence_length: int | Mapping[str, int] | None
    learned: bool = False
    whole_inputs: bool = False

    def checked(self, model: keras.Model) -> "Request":
        """The request for this model, its layers known and its bits told for every kernel.

        Raises:
            PruningError: An argument is unknown, or two of them, or one and the model, do not go together.
        """
        _check_form(self.quantization, self.io, self.sparse, self.batch_size)
        learned = has_learned_ranges(model)
        if learned and self.quantization != "int8":
            raise PruningError(
                f"'{model.name}' has learned to compute in int8, so quantization={self.quantization!r} does not suit "
                "it. Use quantization='int8', or convert the model from before quantize_aware."
            )
        keep = _checked_float_layers(model, self.float_layers, self.quantization)
        bits = _weight_bits(model, self.bits, self.quantization, learned)
        if self.bias_correction:
            _check_bias_correction(model, self.quantization, learned, self.batch_size)
        return replace(
            self, float_layers=keep, bits=bits, learned=learned, whole_inputs=learned and _takes_whole(model)
        )

    def sized(self, signature: Signature, model: keras.Model) -> Signature:
        """The signature with the lengths that the file shall have.

        Raises:
            PruningError: A length is none, an input is unknown, or its shape is fixed already.
        """
        if self.sequence_length is None:
            return signature
        inputs = {given.name: given for given in signature.inputs}
        is_open = [name for name, given in inputs.items() if None in given.shape[1:]]
        asked = self.sequence_length
        lengths = asked if isinstance(asked, Mapping) else dict.fromkeys(is_open, asked)
        for name, length in lengths.items() if is_open else [("", asked)]:
            if name not in is_open:
                shapes = listing(f"{known} {given.shape}" for known, given in inputs.items())
                raise PruningError(
                    f"sequence_length={asked!r} sets the length of inputs that leave it open, and '{model.name}' takes "
                    f"{shapes}. " + (f"Give it for {listing(is_open)} alone." if is_open else "Leave it out.")
                )
            if isinstance(length, bool) or not isinstance(length, int) or length < 1:
                raise PruningError(f"sequence_length={asked!r} is no length. Give 1 or more, or None to leave it open.")
            shape = [length if size is None else size for size in inputs[name].shape[1:]]
            inputs[name] = inputs[name]._replace(shape=(inputs[name].shape[0], *shape))
        return replace(signature, inputs=tuple(inputs.values()))

    @property
    def is_integer(self) -> bool:
        """Whether the file computes in integers."""
        return self.quantization in INTEGER

    @property
    def has_integer_ends(self) -> bool:
        """Whether the converter is asked for integers at every end."""
        return self.io == "int8" and not self.whole_inputs

    @property
    def stays_float(self) -> str:
        """Why ends of a file of integers may be float; empty where none may."""
        if self.io == "float32":
            return ""
        if self.float_layers:
            return "for a layer kept in float is there"
        return "for rows are read by its numbers" if self.whole_inputs else ""

    @property
    def needs_data(self) -> bool:
        """Whether ranges have to be learned from representative data."""
        return self.is_integer and not self.learned


def has_learned_ranges(model: keras.Model) -> bool:
    """Whether quantization-aware training has left the ranges of the activations in the model.

    A layer that carries them says so by an attribute `has_learned_ranges` that is true.
    """
    return any(getattr(place.layer, "has_learned_ranges", False) for place in places(model))


def _takes_whole(model: keras.Model) -> bool:
    """Whether a model with learned ranges takes a float input that nothing rounds."""
    if not is_graph(model):
        return False
    inputs = [object() for _ in model.inputs]
    rounded: set[int] = set()

    def visit(call: Call) -> list[Any]:
        if getattr(call.operation, "has_learned_ranges", False):
            rounded.update(map(id, keras.tree.flatten((call.args, call.kwargs))))
        return [None] * len(call.outputs)

    flow(model, inputs, visit)
    floats = [given for given, x in zip(inputs, model.inputs) if keras.backend.is_float_dtype(x.dtype)]
    return not all(id(given) in rounded for given in floats)


def _check_form(quantization: str, io: str, sparse: bool | str, batch_size: int | None) -> None:
    if quantization not in QUANTIZATIONS:
        raise PruningError(f"quantization={quantization!r} is unknown. {nearest(str(quantization), QUANTIZATIONS)}")
    if io not in IO:
        raise PruningError(
            f"io={io!r} is unknown. Write io='int8' for integer inputs and outputs, or io='float32' for float ones."
        )
    if sparse not in (True, False, "size"):
        raise PruningError(
            f"sparse={sparse!r} is unknown. Write sparse=True for zeros that make a file smaller and no slower, or "
            "sparse='size' where the size alone counts."
        )
    if sparse and quantization in ("dynamic", "int16x8"):
        raise PruningError(
            f"sparse=True does not go with quantization={quantization!r}: LiteRT has no kernel for such zeros, and "
            "cannot run the file. Use quantization='float32' or 'int8', or leave sparse out and compress the file: "
            "gzip shrinks zeros."
        )
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise PruningError(
            f"batch_size={batch_size!r} is no number of samples. Give 1 or more, or None to leave it open."
        )


def _checked_float_layers(model: keras.Model, layers: Collection[str], quantization: str) -> set[str]:
    if not layers:
        return set()
    if quantization != "int8":
        raise PruningError(
            f"float_layers does not go with quantization={quantization!r}: it leaves layers out of quantization='int8'."
        )
    asked = [layers] if isinstance(layers, str) else layers
    return set(asked_layers(model, asked, "float_layers").values())


def _weight_bits(model: keras.Model, weight_bits: Bits, quantization: str, learned: bool) -> WeightBits:
    bits = checked_weight_bits(model, weight_bits)
    if bits.has_four and quantization != "int8":
        raise PruningError(
            f"weight_bits={weight_bits!r} does not go with quantization={quantization!r}: LiteRT reads 4-bit weights "
            "beside int8 activations. Use quantization='int8', or leave weight_bits out."
        )
    if bits.has_four and learned:
        raise PruningError(
            f"'{model.name}' has learned with bits of its own. Say them where it learns, "
            f"tfprune.quantize_aware(model, weight_bits={weight_bits!r}), and leave weight_bits out here."
        )
    return learned_weight_bits(model) if learned else bits


def _check_bias_correction(model: keras.Model, quantization: str, learned: bool, batch_size: int | None) -> None:
    if quantization != "int8":
        raise PruningError(
            f"bias_correction does not go with quantization={quantization!r}: it makes up for the rounding of int8. "
            "Use quantization='int8', or leave bias_correction out."
        )
    if learned:
        raise PruningError(
            f"'{model.name}' has learned its biases with the rounding, so there is nothing to correct. Leave "
            "bias_correction out."
        )
    if batch_size not in (1, None):
        raise PruningError(f"bias_correction runs the file sample by sample; batch_size={batch_size!r} must be 1.")
    require_graph(model, "Bias correction")
