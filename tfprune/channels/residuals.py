"""Residual sums: where a branch that was computed from a stream is added to it again."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tfprune.channels.labels import Channels
from tfprune.channels.trace import Trace
from tfprune.channels.visit import Visit


class Residual(NamedTuple):
    """One sum of a stream and a branch that comes from it.

    Attributes:
        sum: The call that adds.
        stream: What goes past the branch.
        branch: What is added to it.
    """

    sum: Visit
    stream: Channels
    branch: Channels


def residuals(trace: Trace) -> Iterator[Residual]:
    """The residual sums of a model, in order. In parallel branches each is a branch of the same stream."""
    made = makers(trace)
    for visit in trace.visits:
        operands = [x for x in visit.inputs if x.shape == visit.shape]
        if type(visit.layer).__name__ != "Add" or len(operands) != 2 or len(visit.inputs) != 2:
            continue
        for stream, branch in (operands, operands[::-1]):
            if _comes_from(branch, _before(stream, made), made):
                yield Residual(visit, stream, branch)
                break


def makers(trace: Trace) -> dict[int, Visit]:
    """The call that makes each tensor, by the id of its `Channels`."""
    return {id(channels): visit for visit in trace.visits for channels in visit.outputs}


def _before(stream: Channels, made: Mapping[int, Visit]) -> list[Channels]:
    """The stream, and what it was before the last branch was added to it."""
    visit = made.get(id(stream))
    return [stream, *(visit.inputs if visit is not None and type(visit.layer).__name__ == "Add" else ())]


def _comes_from(branch: Channels, stream: Sequence[Channels], made: Mapping[int, Any]) -> bool:
    """Whether a tensor is computed from any of others; looks no further back than where these are made."""
    wanted = {id(channels) for channels in stream}
    first = min(made[key].call if key in made else -1 for key in wanted)
    stack, seen = [branch], set()
    while stack:
        channels = stack.pop()
        if id(channels) in seen or id(channels) not in made or made[id(channels)].call <= first:
            continue
        seen.add(id(channels))
        given = made[id(channels)].inputs
        if any(id(one) in wanted for one in given):
            return True
        stack += given
    return False
