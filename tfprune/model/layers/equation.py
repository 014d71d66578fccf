"""An einsum equation in its parts: what EinsumDense and `keras.ops.einsum` compute."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Equation:
    """`"abc,cde->abde"`, the parts that its letters play; "..." stands for any axes.

    Args:
        terms: One for each operand.
        result: What comes of them.

    >>> equation = Equation.parse("abc,cde->abde")
    >>> equation.summed, equation.made, equation.free
    ('c', 'de', 'ab')
    """

    terms: tuple[str, ...]
    result: str

    @classmethod
    def parse(cls, text: str) -> "Equation":
        """The equation that a text says; one without "->" has an empty result."""
        operands, _, result = text.replace(" ", "").partition("->")
        return cls(tuple(operands.split(",")), result)

    @property
    def kernel(self) -> str:
        """The letters of the second term, which is a layer's kernel."""
        return _letters(self.terms[1])

    @property
    def summed(self) -> str:
        """Letters of the kernel that the sum runs over."""
        return "".join(letter for letter in self.kernel if letter in self.terms[0] and letter not in self.result)

    @property
    def shared(self) -> str:
        """Letters of the kernel that the input and the result have too: a product of its own for each index."""
        return "".join(letter for letter in self.kernel if letter in self.terms[0] and letter in self.result)

    @property
    def made(self) -> str:
        """Letters of the kernel that the input does not have."""
        return "".join(letter for letter in self.kernel if letter not in self.terms[0])

    @property
    def free(self) -> str:
        """Letters of the input that the kernel does not have."""
        return "".join(letter for letter in _letters(self.terms[0]) if letter not in self.kernel)

    @property
    def is_matrix_product(self) -> bool:
        """Whether the last axes of the input meet the first of the kernel, as in Dense, with nothing moved."""
        named = (_letters(self.terms[0]), self.kernel, _letters(self.result))
        return bool(self.made) and named == (self.free + self.summed, self.summed + self.made, self.free + self.made)

    @property
    def repeats_a_letter(self) -> bool:
        """Whether an operand has one letter twice, which takes its diagonal."""
        return any(len(set(letters)) != len(letters) for letters in map(_letters, self.terms))


def letter_axes(term: str, rank: int) -> dict[str, int]:
    """Which axis each letter of a term stands for, in a tensor of this rank; the axes under "..." have none."""
    before, dots, after = term.partition("...")
    axes = {letter: axis for axis, letter in enumerate(before)}
    if dots:
        axes |= {letter: rank - len(after) + axis for axis, letter in enumerate(after)}
    return axes


def _letters(term: str) -> str:
    return term.replace(".", "")
