"""Why the converter refused a model, in one sentence with the layer where it says which."""

import re

import keras

from tfprune.errors import listing
from tfprune.lite.convert.layer_names import layer_at
from tfprune.model.native import reason_of
from tfprune.model.signature import Signature
from tfprune.model.tree import places

UNSUPPORTED = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
UNRANGED = re.compile(r"Empty min/max for tensor ([^\s.]+)")
UNQUANTIZED = re.compile(r"Quantization to 16x8-bit not yet supported for op: '(\w+)'")
LOOKUPS = (keras.layers.IntegerLookup, keras.layers.StringLookup, keras.layers.TextVectorization)
PLACE = re.compile(r'fused\["\w+:", "([^"@]+)(?:@[^"]*)?"\]')


def explained(model: keras.Model, quantization: str, text: str, error: Exception) -> str:
    """What to say of an error of the converter.

    Args:
        model: The Keras model.
        quantization: What it should become.
        text: All that the converter has said.
        error: What it has raised.
    """
    named = [layer for layer in (layer_at(model, path) for path in PLACE.findall(text)) if layer]
    where = f" in layer '{named[0]}'" if named else ""
    missing = list(dict.fromkeys(UNSUPPORTED.findall(text)))
    if missing:
        return (
            f"'{model.name}' cannot be converted: LiteRT has no operator for TensorFlow's {listing(missing)}{where}. "
            "Write that layer with other operations."
        )
    tables = [place.path for place in places(model) if isinstance(place.layer, LOOKUPS)]
    if tables and "'untracked' resource" in text:
        return (
            f"'{model.name}' cannot be converted: LiteRT has no tables of values such as those of {listing(tables)}. "
            "Convert the part of the model behind them, keras.Model(lookup.output, model.output), and look values up "
            "where you read your data."
        )
    left = list(dict.fromkeys(UNQUANTIZED.findall(text)))
    if left:
        return (
            f"'{model.name}' cannot be converted to {quantization}: there is no such form of {listing(left)}. Use "
            "quantization='int8', which knows more operators, or 'float16'."
        )
    unranged = UNRANGED.search(text)
    if unranged:
        layer = layer_at(model, unranged[1])
        what = f"layer '{layer}'" if layer else "an input"
        return (
            f"'{model.name}' cannot be converted to {quantization}: the converter learned no range for "
            f"{what}; in int16x8 it takes no integers such as token "
            "numbers. Use quantization='int8', or convert the part of the model behind the embedding."
        )
    return f"'{model.name}' cannot be converted to {quantization}{where}: {reason_of(error)}"


def missing_data(quantization: str, signature: Signature) -> str:
    """What to write where an integer model lacks representative data."""
    if len(signature.inputs) == 1:
        example = "representative_data=x_train[:200]"
    else:
        example = "representative_data={" + ", ".join(f"{given.name!r}: ..." for given in signature.inputs) + "}"
    return (
        f"quantization={quantization!r} learns the ranges of the activations from data, and none came. Write "
        f"tfprune.convert(model, quantization={quantization!r}, {example}) with a few hundred typical inputs; "
        "quantization='dynamic' needs none."
    )
