"""Objectives that worker processes find by the name of this module."""

import os
import signal


def kept(candidate):
    return float(sum(mask.sum() for mask in candidate.masks.values()))


def deadly(candidate):
    """Ends the process that evaluates a candidate with few channels left."""
    if candidate.figures["macs"] < 4000:
        os.kill(os.getpid(), signal.SIGKILL)
    return candidate.figures["macs"]


class Recorded:
    """How much is kept; writes down each evaluation and each unpacking, and once kills the process that it is in.

    Args:
        folder: Where it writes; a file `fuse` in it is taken by the first process but the maker's that evaluates.
    """

    __name__ = "recorded"

    def __init__(self, folder):
        self.folder, self.maker = str(folder), os.getpid()

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.note("unpacked")

    def __call__(self, candidate):
        fuse = os.path.join(self.folder, "fuse")  # noqa: PTH118
        if os.getpid() != self.maker and os.path.exists(fuse):  # noqa: PTH110
            os.rename(fuse, fuse + ".burnt")  # noqa: PTH104
            self.note("killed")
            os.kill(os.getpid(), signal.SIGKILL)
        self.note("evaluated")
        return kept(candidate)

    def note(self, what):
        with open(os.path.join(self.folder, "notes"), "a") as file:  # noqa: PTH118
            file.write(f"{what} {os.getpid()}\n")
