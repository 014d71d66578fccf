"""The version of tfprune, in one place."""

__version__ = "0.1.0"
