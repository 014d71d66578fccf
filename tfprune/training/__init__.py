"""Masks held in `fit`: decided by callbacks, kept inside the compiled step, and stripped at the end.

In comes a compiled model and a method of the room `deciding`. A callback asks the method for masks when its schedule
says so, and a constraint on each weight keeps their zeros after every optimizer step. Out comes the trained model with
its masks held, from which `strip_masks` makes a plain one.
"""
