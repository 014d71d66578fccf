"""Repair without training: what is kept makes up for what was removed."""
