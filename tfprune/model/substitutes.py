"""Other answers of Keras and TensorFlow, in one thread and for a while."""

import contextlib
import functools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

# Held while something is exchanged, so that what one thread puts back is what was there before all of them.
_locks: dict[tuple[int, str], Any] = defaultdict(threading.RLock)


@contextlib.contextmanager
def instead(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Lets this thread call another function in the place of one, inside the block only; others call the plain one.

    Args:
        owner: The module or class that has the function.
        name: Its name there.
        make: Gives the other one, from the plain one.
    """
    with _exchanged(owner, name, lambda plain: _chosen(plain, make(plain))):
        yield


@contextlib.contextmanager
def property_instead(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Like `instead`, for what a property gives."""
    with _exchanged(owner, name, lambda plain: property(_chosen(plain.fget, make(plain.fget)))):
        yield


@contextlib.contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Gives a class an attribute that it has not, inside the block only, for all threads."""
    with _locks[id(owner), name], contextlib.ExitStack() as stack:
        if name not in vars(owner):
            setattr(owner, name, value)
            stack.callback(delattr, owner, name)
        yield


def _chosen(plain: Callable[..., Any], other: Callable[..., Any]) -> Callable[..., Any]:
    thread = threading.get_ident()

    @functools.wraps(plain)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        return (other if threading.get_ident() == thread else plain)(*args, **kwargs)

    return chosen


@contextlib.contextmanager
def _exchanged(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    with _locks[id(owner), name]:
        own, plain = name in vars(owner), getattr(owner, name)
        setattr(owner, name, make(plain))
        try:
            yield
        finally:
            if own:
                setattr(owner, name, plain)
            else:
                delattr(owner, name)
