"""The subcommands: what each takes, and which public functions it calls. There is no logic of pruning here."""

from tfprune.command import device, pruning, searching
from tfprune.command.command import Command, UsageError

COMMANDS: dict[str, Command] = {
    command.name: command for command in (*pruning.COMMANDS, *device.COMMANDS, *searching.COMMANDS)
}

__all__ = ["COMMANDS", "Command", "UsageError"]
