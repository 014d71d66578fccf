"""`python -m tfprune` is the command `tfprune`."""

import sys

from tfprune.command.cli import main

sys.exit(main())
