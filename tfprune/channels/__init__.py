"""Channels: which belong together, which can go, and the smaller model without them.

The room follows labels through the calls of a model by one rule for each kind of layer (`rules`), and finds the groups
of channels that can only be removed together. In comes a plain model, and a method that chooses channels, or none, for
those that are dead already. Out come its groups, a plan that says what goes and why, a smaller plain model, and a
certificate that both compute the same.
"""

from tfprune.channels.branches import Branch, residual_branches
from tfprune.channels.certify import Certificate, Exactness, certify
from tfprune.channels.costs import kernel_macs
from tfprune.channels.grouping import channel_groups
from tfprune.channels.groups import ChannelGroup, ChannelGroups, Member
from tfprune.channels.labels import Channels, Factor, Line
from tfprune.channels.plan import ShrinkPlan, plan_shrink
from tfprune.channels.reasons import Frozen, Reason
from tfprune.channels.rebuild import shrink
from tfprune.channels.rules import Resized, elementwise, has_rule, register_rule
from tfprune.channels.trace import Role
from tfprune.channels.units import UNITS, units
from tfprune.channels.visit import Visit

__all__ = [
    "UNITS",
    "Branch",
    "Certificate",
    "ChannelGroup",
    "ChannelGroups",
    "Channels",
    "Exactness",
    "Factor",
    "Frozen",
    "Line",
    "Member",
    "Reason",
    "Resized",
    "Role",
    "ShrinkPlan",
    "Visit",
    "certify",
    "channel_groups",
    "elementwise",
    "has_rule",
    "kernel_macs",
    "plan_shrink",
    "register_rule",
    "residual_branches",
    "shrink",
    "units",
]
