"""Channels: which belong together, which go, and the smaller model without them."""

from tfprune.channels.certify import Certificate, Exactness, certify
from tfprune.channels.graph import Role, Visit
from tfprune.channels.groups import ChannelGroup, ChannelGroups, Member, channel_groups
from tfprune.channels.labels import Channels, Factor, Line
from tfprune.channels.plan import ShrinkPlan, plan_shrink
from tfprune.channels.reasons import Frozen, Reason
from tfprune.channels.rebuild import shrink
from tfprune.channels.rules import Resized, elementwise, register_rule

__all__ = [
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
    "plan_shrink",
    "register_rule",
    "shrink",
]
