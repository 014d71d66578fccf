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
