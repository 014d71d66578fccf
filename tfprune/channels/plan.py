"""Shrink plans: which channels go, which stay, and why; printed, edited, saved, and only then carried out."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np

from tfprune.channels.graph import Role
from tfprune.channels.groups import ChannelGroup, ChannelGroups, checked_vector, dead_channels, traced_groups
from tfprune.errors import PruningError, nearest
from tfprune.report import Column, Report

FORMAT = "tfprune shrink plan 1"


class PlannedGroup:
    """One group in a plan: what it is, and what is to become of it.

    Attributes:
        name: of the group.
        keep: boolean vector over its channels, True = kept.
        why: why they stay or go, in words.
        members: keys of its weights.
        makes: keys of those that make the channels.
        frozen: why they cannot go, None when they can.
        macs: saved multiply-accumulates per channel, None when not known.
        parameters: saved weights per channel.
    """

    def __init__(
        self,
        name: str,
        keep: np.ndarray,
        why: str,
        members: list[str],
        makes: list[str],
        frozen: str | None,
        macs: float | None,
        parameters: float,
    ):
        self.name, self.keep, self.why, self.members, self.makes = name, keep, why, members, makes
        self.frozen, self.macs, self.parameters = frozen, macs, parameters


class ShrinkPlan(Report, MutableMapping[str, np.ndarray]):
    """What `shrink` will do to one model: group name -> boolean vector over its channels, True = kept.

    Edit it like a dict, `plan["conv1"] = keep`, or with `keep` and `remove`. It is bound to the model it was made for.

    Attributes:
        groups: the groups in the order of the model.
        fingerprint: of the model's structure.
        folds: names of the groups for which a constant moves into the bias of the next layer.
        approximate: whether the plan was made with `approximate=True`.
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
    plotted = "kept"

    def __init__(
        self,
        groups: Mapping[str, PlannedGroup],
        fingerprint: str,
        model_name: str,
        *,
        folds: list[str] | None = None,
        approximate: bool = False,
        saved: Mapping[str, Any] | None = None,
    ):
        self.groups = dict(groups)
        self.fingerprint = fingerprint
        self.model_name = model_name
        self.folds = list(folds or [])
        self.approximate = approximate
        self._saved = dict(saved or {})

    def __getitem__(self, name: str) -> np.ndarray:
        return self._group(name).keep

    def __setitem__(self, name: str, keep: Any) -> None:
        group = self._group(name)
        array = np.asarray(keep)
        if array.dtype != bool or array.shape != group.keep.shape:
            raise PruningError(
                f"Group '{name}' needs one boolean for each of its {len(group.keep)} channels, "
                f"not {array.dtype} of shape {array.shape}."
            )
        if group.frozen and not array.all():
            raise PruningError(f"The channels of group '{name}' cannot be removed, because of {group.frozen}.")
        if not array.any():
            raise PruningError(f"Group '{name}' would lose all of its {len(array)} channels; keep at least one.")
        group.keep, group.why = array.copy(), "edited"

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
        return any(not group.keep.all() for group in self.groups.values())

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        for name, group in self.groups.items():
            gone = int((~group.keep).sum())
            rows.append(
                {
                    "group": name,
                    "kept": int(group.keep.sum()),
                    "channels": len(group.keep),
                    "weights": len(set(group.members)),
                    "parameters": group.parameters * gone,
                    "macs": None if group.macs is None else group.macs * gone,
                    "why": group.why,
                    "members": sorted(set(group.members)),
                }
            )
        return rows

    def totals(self) -> dict[str, Any]:
        return {
            "kept": sum(int(group.keep.sum()) for group in self.groups.values()),
            "channels": sum(len(group.keep) for group in self.groups.values()),
        }

    def notes(self) -> list[str]:
        notes = [] if self.removes else ["No channel goes: the model stays as it is."]
        if self.removes:
            notes.append("Savings are those of each channel alone; where two groups meet in a kernel they overlap.")
        if self.folds:
            notes.append(f"A constant moves into the next layer's bias for: {', '.join(self.folds)}.")
        if self.approximate:
            notes.append("approximate=True: the smaller model is not equal to the masked one; see certify().")
        return notes

    def to_dict(self) -> dict[str, Any]:
        report = super().to_dict()
        report.update(
            format=FORMAT,
            model=self.model_name,
            fingerprint=self.fingerprint,
            folds=self.folds,
            approximate=self.approximate,
            kept={name: np.flatnonzero(group.keep).tolist() for name, group in self.groups.items()},
            details={
                name: {"frozen": g.frozen, "macs": g.macs, "parameters": g.parameters, "makes": g.makes}
                for name, g in self.groups.items()
            },
        )
        return report

    @classmethod
    def from_json(cls, source: str | os.PathLike[str]) -> "ShrinkPlan":
        """Reads a plan that `to_json` wrote; "kept" in it, the indices of the channels to keep, may have been edited.

        Args:
            source: path of the file, or the JSON text itself.

        Raises:
            PruningError: it is no such plan, or the edit does not fit the groups.
        """
        text = str(source)
        if not text.lstrip().startswith("{"):
            with open(source, encoding="utf-8") as file:
                text = file.read()
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise PruningError(f"This is no shrink plan: {error}. Write one with plan.to_json(path).") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise PruningError(f"This is no shrink plan (format {FORMAT!r}). Write one with plan.to_json(path).")
        groups = {}
        for row in data["rows"]:
            name, details = row["group"], data["details"][row["group"]]
            groups[name] = PlannedGroup(
                name, np.ones(row["channels"], bool), row["why"], row["members"], details["makes"], details["frozen"],
                details["macs"], details["parameters"],
            )  # fmt: skip
        plan = cls(groups, data["fingerprint"], data["model"], folds=data["folds"], approximate=data["approximate"])
        missing = set(groups) - set(data["kept"])
        if missing:
            raise PruningError(f"The plan says nothing about group '{min(missing)}' under \"kept\".")
        for name, indices in data["kept"].items():
            why = plan._group(name).why
            plan.keep(name, np.asarray(indices, int))
            plan.groups[name].why = why
        return plan

    def _group(self, name: str) -> PlannedGroup:
        if name in self.groups:
            return self.groups[name]
        owners = [g.name for g in self.groups.values() if any(key.startswith(f"{name}/") for key in g.makes)]
        if owners:
            raise PruningError(
                f"'{name}' has no group of its own: its channels can only go together with those of other layers, in "
                f"group {' or '.join(repr(owner) for owner in owners)}. Edit that group."
            )
        raise PruningError(f"'{name}' is no channel group of '{self.model_name}'. {nearest(name, self.groups)}")

    def _vector(self, name: str, channels: Any, default: bool) -> np.ndarray:
        size = len(self._group(name).keep)
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
        model: functional or Sequential Keras model with plain layers.
        method: what chooses the channels (`Structured(0.5)`). Default: none, the channels that are dead already, as
            after training with `StructuredPruning`. They go without changing any answer.
        data: samples for methods that look at activations.
        strict: whether a layer that no rule is known for is an error.
        approximate: whether channels that a layer takes statistics over may go, although answers change.

    Raises:
        PruningError: the model's graph cannot be read, the method does not choose channels, or would empty a layer.
    """
    groups = traced_groups(model, strict=strict, approximate=approximate, values=method is None)
    folds: dict[str, bool] = {}
    if method is None:
        keep, folds = dead_channels(groups, model)
        why = "dead"
    else:
        chosen = chosen_channels(method, model, groups, data)
        keep = {name: chosen.get(name, np.ones(group.size, bool)) for name, group in groups.items()}
        why = "chosen"
    check_not_empty(groups, keep)
    planned = {name: _planned(group, keep[name], why) for name, group in groups.items()}
    return ShrinkPlan(
        planned,
        fingerprint(groups),
        model.name,
        folds=[name for name, fold in folds.items() if fold],
        approximate=approximate,
    )


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
    chosen = {name: checked_vector(groups[name], vector) for name, vector in choose(model, groups, data).items()}
    groups.removed(chosen)
    return chosen


def check_not_empty(groups: ChannelGroups, keep: Mapping[str, np.ndarray]) -> None:
    """Raises when the keep vectors would leave a layer without channels."""
    found = groups.emptied(groups.removed(keep))
    if found is not None:
        key, axis = found
        raise PruningError(
            f"The plan would leave nothing of axis {axis} of weight '{key}'. Keep at least one channel of "
            f"{' or '.join(repr(name) for name in _names_on(groups, key, axis))}."
        )


def check_plan(plan: Any, groups: ChannelGroups) -> dict[str, np.ndarray]:
    """The keep vectors of a plan, once it is known to fit the model.

    Raises:
        PruningError: it was made for another model, or would empty a layer.
    """
    if not isinstance(plan, ShrinkPlan):
        raise PruningError(f"shrink takes a ShrinkPlan, not {type(plan).__name__}; make one with plan_shrink(model).")
    if plan.fingerprint != fingerprint(groups):
        raise PruningError(
            f"This plan was made for another model ('{plan.model_name}'), or '{groups.model_name}' has changed since: "
            "its layers, their sizes or connections differ. Make a new one with plan_shrink(model)."
        )
    keep = dict(plan)
    check_not_empty(groups, keep)
    return keep


def fingerprint(groups: ChannelGroups) -> str:
    """A digest of a model's structure: its groups, and where each lies on which weights."""
    digest = hashlib.sha256()
    for name, group in groups.items():
        digest.update(f"{name} {group.size} {group.frozen and group.frozen.reason.name}\n".encode())
        for member in group.members:
            digest.update(f"{member.key} {tuple(member.variable.shape)} {member.axis} {member.role.value}".encode())
            digest.update(np.ascontiguousarray(member.positions, np.int64).tobytes())
    return digest.hexdigest()[:32]


def _planned(group: ChannelGroup, keep: np.ndarray, why: str) -> PlannedGroup:
    if group.frozen:
        reason = f"kept, {group.frozen}"
    elif keep.all():
        reason = "kept, none is dead" if why == "dead" else "kept"
    else:
        reason = why
    if group.approximate and not group.frozen:
        reason += f"; not exact, {group.approximate}"
    members = [member.key for member in group.members]
    makes = [member.key for member in group.members if member.role is Role.OUTPUT]
    frozen = str(group.frozen) if group.frozen else None
    return PlannedGroup(group.name, keep, reason, members, makes, frozen, group.macs, group.parameters)


def _names_on(groups: ChannelGroups, key: str, axis: int) -> list[str]:
    return [n for n, g in groups.items() if any(m.key == key and m.axis == axis for m in g.members)]
