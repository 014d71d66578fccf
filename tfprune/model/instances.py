"""Every living object of a class that keeps no list of its own."""

import functools
import gc
import weakref
from typing import Any


class Instances:
    """Those of one class, held weakly.

    What was made before is found among all objects, which takes as long as a whole garbage collection; from then on
    each is noted when it is made.

    Args:
        kind: The class, whose `__init__` notes its objects from now on. Those of subclasses that are there already
            are not found.
    """

    def __init__(self, kind: type):
        self._notes: set[weakref.ref[Any]] = set()
        self._listen(kind)
        # Asking who refers to the class would be quicker, and has ended Python: it looks inside of every object.
        for entry in gc.get_objects():
            if type(entry) is kind:
                self._note(entry)

    def __iter__(self) -> Any:
        return iter([entry for note in self._notes.copy() if (entry := note()) is not None])

    def _listen(self, kind: Any) -> None:
        begin = kind.__init__

        @functools.wraps(begin)
        def noting(entry: Any, *arguments: Any, **named: Any) -> None:
            begin(entry, *arguments, **named)
            self._note(entry)

        kind.__init__ = noting

    def _note(self, entry: Any) -> None:
        self._notes.add(weakref.ref(entry, self._notes.discard))
