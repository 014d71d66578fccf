"""Shrink plans: which channels go, which stay, and why; printed, edited, saved, and only then carried out."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np

from tfprune.channels.branches import Bypass, zero_branches
from tfprune.channels.dead import dead_groups
from tfprune.channels.grouping import traced_groups
from tfprune.channels.groups import ChannelGroup, ChannelGroups
from tfprune.channels.reasons import Frozen
from tfprune.channels.sizes import Sizes
from tfprune.channels.units import preferred, units
from tfprune.errors import PruningError, listing
from tfprune.model.checksum import checksum, opened, sealed
from tfprune.model.files import existing_file
from tfprune.report import Column, Panel, Report, draw_bars, saved

FORMAT = "tfprune shrink plan 1"
KEYS = {"title", "rows", "totals", "notes", "format", "model", "fingerprint", "folds", "approximate"}


class ShrinkPlan(Report, MutableMapping[str, np.ndarray]):
    """What `shrink` will do to one model: group name -> boolean vector over its channels, True = kept.

    Edit it like a dict, `plan["conv1"] = keep`, or with `keep` and `remove`. It is bound to the model it was made for.

    Attributes:
        groups: The groups in the order of the model, with the trace that they were found by; `shrink` and `certify` go
            by it as long as the model stays as it is. A plan read from a file has none until it is carried out.
        why: For each group why its channels stay or go, in words.
        fingerprint: Of the model's structure.
        folds: Names of the groups for which a constant moves into the bias of the next layer.
        approximate: Whether the plan was made with `approximate=True`.
        branches: Names of the residual branches that go whole.
        prefers: "head" or "width" where the groups were found for one of them, see `channel_groups`.
        edited: Whether "kept" was changed in the file that the plan was read from.
    """

    title = "Shrink plan"
    columns = (
        Column("group", "group"),
        Column("kept", "kept", ",d"),
        Column("channels", "of", ",d"),
        Column("weights", "weights", ",d"),
        Column("parameters", "parameters saved", ",.0f"),
        Column("macs", "MACs saved", ",.0f"),
        Column("why", "why"),
    )

    def __init__(
        self,
        groups: ChannelGroups,
        keep: Mapping[str, np.ndarray],
        why: Mapping[str, str],
        fingerprint: str,
        *,
        folds: list[str] | None = None,
        approximate: bool = False,
        prefers: str | None = None,
        branches: Iterable[str] = (),
    ):
        self.groups = groups
        self._keep = dict(keep)
        self.why = dict(why)
        self.fingerprint = fingerprint
        self.folds = list(folds or [])
        self.approximate = approximate
        self.prefers = prefers
        self.branches = list(branches)
        self.edited = False

    @property
    def model_name(self) -> str:
        """Name of the model that the plan was made for."""
        return self.groups.model_name

    def __reduce__(self) -> Any:
        return type(self).from_json, (self.to_json(),)  # a copy leaves the trace, and with it the model, behind

    def __getitem__(self, name: str) -> np.ndarray:
        return self._keep[self.groups[name].name]

    def __setitem__(self, name: str, keep: Any) -> None:
        array = self.groups[name].vector(keep)
        if not array.any():
            raise PruningError(f"Group '{name}' would lose all of its {len(array)} channels; keep at least one.")
        self._keep[name], self.why[name] = array, "edited"

    def __delitem__(self, name: str) -> None:
        raise PruningError(
            f"A plan holds every group of the model; to keep all of '{name}', write plan.keep('{name}')."
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def keep(self, name: str, channels: Any = None) -> "ShrinkPlan":
        """Keeps these channels of a group (indices, or one boolean per channel; default all) and removes its others."""
        self[name] = self._vector(name, channels, default=True)
        return self

    def remove(self, name: str, channels: Any) -> "ShrinkPlan":
        """Removes these channels of a group (indices, or one boolean per channel) and keeps its others."""
        self[name] = ~self._vector(name, channels, default=False)
        return self

    @property
    def removes(self) -> bool:
        """Whether anything goes."""
        return bool(self.branches) or any(not keep.all() for keep in self.values())

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        for name, group in self.groups.items():
            kept = int(self[name].sum())
            gone = group.size - kept
            rows.append(
                {
                    "group": name,
                    "kept": kept,
                    "channels": group.size,
                    "weights": len(group.weights),
                    "parameters": group.parameters * gone,
                    "macs": None if group.macs is None else group.macs * gone,
                    "why": self.why[name],
                    "members": sorted(group.weights),
                }
            )
        return rows

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the channels of each group, those that are kept and those that go, with the reason."""
        return saved(draw_bars(self.title, list(self), [self.panel()], [self.why[name] for name in self]), path)

    def panel(self) -> Panel:
        """The channels of each group as bars: kept, removed, and those that cannot be removed."""
        kept = [int(keep.sum()) for keep in self.values()]
        gone = [keep.size - count for keep, count in zip(self.values(), kept)]
        stuck = [group.frozen is not None for group in self.groups.values()]
        free = [0 if fixed else count for count, fixed in zip(kept, stuck)]
        fixed = [count if fixed else 0 for count, fixed in zip(kept, stuck)]
        return Panel("channels", ",d", {"kept": free, "removed": gone, "cannot be removed": fixed})

    def totals(self) -> dict[str, Any]:
        return {"kept": sum(int(keep.sum()) for keep in self.values()), **self.groups.totals()}

    def notes(self) -> list[str]:
        edited = ['The channels under "kept" in its file are others than were written there.'] if self.edited else []
        return [*edited, *self._choices(), *self._in_all()]

    def _choices(self) -> list[str]:
        notes = [] if self.removes else ["No channel goes: the model stays as it is."]
        if self.branches:
            notes.append(f"Residual branches that go whole: {', '.join(self.branches)}.")
        if not all(keep.all() for keep in self.values()):
            notes.append("Savings are those of each channel alone; where two groups meet in a kernel they overlap.")
        if self.folds:
            notes.append(f"A constant moves into the next layer's bias for: {', '.join(self.folds)}.")
        lost = self.groups.lost_at_outputs(self._keep)
        if lost:
            notes.append(f"{lost} channels of the outputs go: the smaller model gives zeros in their places.")
        if self.approximate:
            notes.append("approximate=True: the smaller model is not equal to the masked one; see certify().")
        return notes + self.groups.closed

    def _in_all(self) -> list[str]:
        """What goes altogether, overlaps counted once; nothing for a plan read from a file, which knows no weights."""
        if not self.removes or not self.groups.is_traced:
            return []
        sizes = Sizes(self.groups, self.groups.removed(self))
        gone_whole = Bypass(self.groups, self.branches).weights
        variables = {id(use.variable): use.variable for use in self.groups.trace.uses}
        before = sum(math.prod(variable.shape) for variable in variables.values())
        left = [variable for key, variable in variables.items() if key not in gone_whole]
        after = sum(math.prod(sizes.size(variable)) for variable in left)
        channels, gone = sum(map(len, self.values())), sum(int((~keep).sum()) for keep in self.values())
        return [f"In all {gone:,} of {channels:,} channels go, and {before - after:,} parameters with them."]

    def to_dict(self) -> dict[str, Any]:
        kept = {name: np.flatnonzero(keep).tolist() for name, keep in self.items()}
        report = super().to_dict()
        report["notes"] = self._choices()  # what goes altogether is read off the trace, which a copy leaves behind
        report.update(
            format=FORMAT,
            model=self.model_name,
            fingerprint=self.fingerprint,
            folds=self.folds,
            approximate=self.approximate,
            prefers=self.prefers,
            branches=self.branches,
            kept_checksum=checksum(kept),
            details={
                name: {
                    "frozen": str(group.frozen) if group.frozen else None,
                    "unit": group.unit,
                    "macs": group.macs,
                    "parameters": group.parameters,
                    "makes": list(group.makes),
                }
                for name, group in self.groups.items()
            },
        )
        return {**sealed(report), "kept": kept}

    @classmethod
    def from_json(cls, source: str | os.PathLike[str]) -> "ShrinkPlan":
        """Reads a plan that `to_json` wrote; "kept" in it, the indices of the channels to keep, may have been edited.

        Args:
            source: Path of the file, or the JSON text itself.

        Raises:
            PruningError: it is no such plan, or the edit does not fit the groups.
        """
        try:
            text = str(source)
            if not text.lstrip().startswith("{"):
                text = existing_file(source).read_text(encoding="utf-8")
            return cls._read(json.loads(text))
        except PruningError:
            raise
        except Exception as error:  # whatever stands in the place of what was written
            raise PruningError(
                f"This is no shrink plan, or damaged: {type(error).__name__}: {error}. Write one with "
                "plan.to_json(path)."
            ) from error

    @classmethod
    def _read(cls, data: Any) -> "ShrinkPlan":
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise PruningError(f"This is no shrink plan (format {FORMAT!r}). Write one with plan.to_json(path).")
        kept = data.pop("kept")
        data = opened(data)
        if unknown := set(data) - {*KEYS, "prefers", "branches", "details", "kept_checksum"}:
            raise ValueError(f"it holds {listing(unknown)}")
        groups = ChannelGroups((_read_group(row, data["details"][row["group"]]) for row in data["rows"]), data["model"])
        why = {row["group"]: row["why"] for row in data["rows"]}
        whole = {name: np.ones(group.size, bool) for name, group in groups.items()}
        settings = {"folds": data["folds"], "approximate": data["approximate"], "prefers": data.get("prefers")}
        settings["branches"] = data.get("branches", [])
        plan = cls(groups, whole, why, data["fingerprint"], **settings)
        missing = set(groups) - set(kept)
        if missing:
            raise PruningError(f"The plan says nothing about group '{min(missing)}' under \"kept\".")
        for name, indices in kept.items():
            plan.keep(name, np.asarray(indices, int))
        plan.why = why
        plan.edited = data.get("kept_checksum", checksum(kept)) != checksum(kept)
        return plan

    def traced(self, model: Any) -> ChannelGroups:
        """The plan's own groups where their trace holds for the model as it is, else those of a new trace.

        Raises:
            PruningError: the plan was made for another model.
        """
        if not self.groups.holds_for(model, values=bool(self.folds)):
            values, prefers = bool(self.folds), self.prefers
            groups = traced_groups(model, approximate=self.approximate, values=values, prefers=prefers)
            if self.fingerprint != fingerprint(groups):
                raise PruningError(
                    f"This plan was made for another model ('{self.model_name}'), or '{model.name}' has changed "
                    "since: its layers, their sizes or connections differ. Make a new one with plan_shrink(model)."
                )
            self.groups = groups
        return self.groups

    def _vector(self, name: str, channels: Any, default: bool) -> np.ndarray:
        size = self.groups[name].size
        if channels is None:
            return np.full(size, default)
        array = np.asarray(channels)
        if array.dtype == bool:
            return array
        if array.size and (array.min() < 0 or array.max() >= size):
            raise PruningError(f"Group '{name}' has channels 0 to {size - 1}; {array.tolist()} does not fit.")
        vector = np.zeros(size, bool)
        vector[array.astype(int)] = True
        return vector


def plan_shrink(
    model: Any, method: Any = None, data: Any = None, *, strict: bool = False, approximate: bool = False
) -> ShrinkPlan:
    """Plans which channels of a model to remove; nothing is built yet.

    Args:
        model: Functional or Sequential Keras model with plain layers.
        method: What chooses the channels (`Structured(0.5)`). Default: none, the channels that are dead already, as
            after training with `StructuredPruning`. They go without changing any answer.
        data: Samples for methods that look at activations.
        strict: Whether a layer that no rule is known for is an error.
        approximate: Whether channels that a layer takes statistics over may go, although answers change.

    Raises:
        PruningError: the model's graph cannot be read, the method does not choose channels, or would empty a layer.
    """
    folds: list[str] = []
    if method is None:
        groups, keep, folds = dead_groups(model, strict=strict, approximate=approximate)
        branches = zero_branches(groups)
    else:
        prefers = preferred(units(getattr(method, "unit", None)))
        groups = traced_groups(model, strict=strict, approximate=approximate, prefers=prefers)
        choose = getattr(method, "branches_to_remove", None)
        branches = [] if choose is None else choose(model, groups, data)
        chosen = chosen_channels(method, model, groups, data) if choose is None else {}
        keep = {name: chosen.get(name, np.ones(group.size, bool)) for name, group in groups.items()}
    groups.require_some_left(keep)
    why = {name: why_kept(group, keep[name], "dead" if method is None else "chosen") for name, group in groups.items()}
    whole = Bypass(groups, branches).weights
    for name, group in groups.items():
        if all(id(member.variable) in whole for member in group.members):
            keep[name], why[name] = np.ones(group.size, bool), "goes with the whole branch"
    settings: dict[str, Any] = {"approximate": approximate, "prefers": groups.trace.prefers, "branches": branches}
    return ShrinkPlan(groups, keep, why, fingerprint(groups), folds=folds, **settings)


def chosen_channels(method: Any, model: Any, groups: ChannelGroups, data: Any) -> dict[str, np.ndarray]:
    """The keep vectors that a method chooses.

    Raises:
        PruningError: the method has no `channels_to_keep`, or its answer does not fit the groups.
    """
    choose = getattr(method, "channels_to_keep", None)
    if choose is None:
        raise PruningError(
            f"{type(method).__name__} does not choose channels; use tfprune.Structured(...), or an object with "
            "channels_to_keep(model, groups, data) -> {group name: boolean array}."
        )
    return {name: groups[name].vector(vector) for name, vector in choose(model, groups, data).items()}


def fingerprint(groups: ChannelGroups) -> str:
    """A digest of a model's structure: its groups, and where each lies on which weights."""
    digest = hashlib.sha256()
    for name, group in groups.items():
        digest.update(f"{name} {group.size} {group.frozen and group.frozen.reason.name}\n".encode())
        for member in group.members:
            digest.update(f"{member.key} {tuple(member.variable.shape)} {member.axis} {member.role.value}".encode())
            digest.update(np.ascontiguousarray(member.positions, np.int64).tobytes())
    return digest.hexdigest()[:32]


def why_kept(group: ChannelGroup, keep: np.ndarray, cause: str) -> str:
    """Why the channels of a group stay or go, in words; `cause` is `"dead"` or `"chosen"`."""
    if group.frozen:
        return f"kept, {group.frozen}"
    if keep.all():
        cause = "kept, none is dead" if cause == "dead" else "kept"
    return f"{cause}; not exact, {group.approximate}" if group.approximate else cause


def _read_group(row: Mapping[str, Any], details: Mapping[str, Any]) -> ChannelGroup:
    """A group as a saved plan holds it."""
    frozen = Frozen.parse(details["frozen"]) if details["frozen"] else None
    return ChannelGroup(
        name=row["group"],
        size=row["channels"],
        weights=tuple(row["members"]),
        makes=tuple(details["makes"]),
        frozen=frozen,
        approximate=None,
        macs=details["macs"],
        parameters=details["parameters"],
        unit=details.get("unit", "channel"),
    )
