"""Pruning at once, without training, and the repair of what is left.

In comes a built model, a method of the room `deciding` and, where a criterion or a repair reads them, a few hundred
inputs. The method decides at its final amount, and `repair` gives the kept weights the values that bring each layer
closest to the dense one. Out comes a new model whose masks are held, with a report where one is asked for.
"""
