"""`python -m tfprune` is the command `tfprune`."""

import sys

from tfprune.cli import main

sys.exit(main())
