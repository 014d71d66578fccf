"""Objects that are their arguments: config round trip, equality, hash, repr, and what a call takes in their place."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import keras

Kind = TypeVar("Kind", bound="Configured")


class Configured:
    """Base of schedules, criteria, patterns and methods: all that is known of an object follows from its arguments.

    A subclass keeps every argument of its `__init__` as an attribute of the same name. Those of tfprune are registered
    with Keras under the package `"tfprune"`, so that models that hold them load by a bare `load_model`; a user's own
    are registered with `keras.saving.register_keras_serializable`.
    """

    def __init_subclass__(cls, **arguments: Any):
        super().__init_subclass__(**arguments)
        if cls.__module__.partition(".")[0] == "tfprune":
            keras.saving.register_keras_serializable(package="tfprune")(cls)

    def arguments(self) -> dict[str, Any]:
        """The arguments that build the object again, as objects."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters if hasattr(self, name)}

    def with_arguments(self: Kind, **changed: Any) -> Kind:
        """An object with some other arguments, checked like any other; this one stays as it is."""
        return type(self)(**{**self.arguments(), **changed})

    def get_config(self) -> dict[str, Any]:
        """The arguments that build the object again, as plain values."""
        return {name: keras.saving.serialize_keras_object(value) for name, value in self.arguments().items()}

    @classmethod
    def from_config(cls: type[Kind], config: dict[str, Any]) -> Kind:
        """The object that `get_config` described."""
        return cls(**{name: _restored(value) for name, value in config.items()})

    def _stated(self) -> dict[str, Any]:
        # What cannot be serialised can still be shown and compared; a class of the user's own may keep its arguments
        # under other names and tell them by its config alone.
        return self.arguments() if type(self).get_config is Configured.get_config else self.get_config()

    def __eq__(self, other: object) -> bool:
        # The texts too: a step 1 and a share 1.0 are equal numbers, and different moments of a run.
        return type(self) is type(other) and self._stated() == other._stated() and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        shown = (
            getattr(value, "__name__", str(value)) if name == "function" else f"{name}={value!r}"
            for name, value in self._stated().items()
        )
        return f"{type(self).__name__}({', '.join(shown)})"


def is_config(value: Any) -> bool:
    """Whether a value is the config that Keras makes of an object."""
    return isinstance(value, Mapping) and "class_name" in value


def _restored(value: Any) -> Any:
    return keras.saving.deserialize_keras_object(dict(value)) if is_config(value) else value


def from_identifier(
    kind: type[Kind],
    identifier: Any,
    names: Mapping[str, type[Kind]] | None = None,
    function: Callable[[Any], Kind] | None = None,
) -> Kind | None:
    """The object that a name, a config, a function or the object itself stands for; None where it is none of these.

    Args:
        kind: What it must be.
        identifier: What a call was given.
        names: Classes by name, for those that can be built without arguments.
        function: Makes an object of a plain function of the user's, where that is possible.
    """
    found = _restored(identifier)
    if isinstance(found, kind):
        return found
    if isinstance(found, str) and names and found in names:
        return names[found]()
    is_function = callable(found) and not isinstance(found, (type, Configured))
    return function(found) if function is not None and is_function else None
