"""The shape of attention scores, as long as the keys are, of which Keras says the length of the queries."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from tfprune.model.substitutes import instead


@contextlib.contextmanager
def scores_as_long_as_keys() -> Iterator[None]:
    """Lets `MultiHeadAttention` tell the right shape of its scores, where its queries are fewer than its keys."""

    def right(plain: Callable[..., Any]) -> Callable[..., Any]:
        def spec(layer: Any, query: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            told = plain(layer, query, value, *args, **kwargs)
            if not isinstance(told, tuple) or len(query.shape) != 3:
                return told
            output, scores = told
            return output, keras.KerasTensor((*scores.shape[:-1], value.shape[1]), dtype=scores.dtype)

        return spec

    with instead(keras.layers.MultiHeadAttention, "compute_output_spec", right):
        yield
