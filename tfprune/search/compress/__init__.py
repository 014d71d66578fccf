"""The whole road in one call."""
