"""The command `tfprune`: one file for each group of subcommands, which says what they take and what they call.

In come words and flags, checked before any work is done. Each subcommand reads files, calls the public functions of the
other rooms, and does no pruning of its own. Out come files, tables or JSON, and an exit code.
"""

from tfprune.command import pruning, device, searching, completion  # isort: skip  (each adds its own, in the order of the help)
from tfprune.command.command import COMMANDS, Command, UsageError

__all__ = ["COMMANDS", "Command", "UsageError", "completion", "device", "pruning", "searching"]
