"""Masks held in `fit`: decided by callbacks, kept inside the compiled step, and stripped at the end."""
