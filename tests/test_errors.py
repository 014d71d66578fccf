import pytest

from tfprune.errors import ConversionError, PruningError, listing, nearest


def test_kinds_of_error():
    # Bad values are ValueErrors, so that code which knows nothing of tfprune catches them as usual.
    assert issubclass(PruningError, ValueError) and issubclass(ConversionError, RuntimeError)


@pytest.mark.parametrize(
    "names, limit, expected",
    [
        ([], 8, "none"),
        (["a"], 8, "'a'"),
        (["a", "b"], 2, "'a', 'b'"),
        (["a", "b", "c"], 2, "'a', 'b' and 1 more"),
        ((str(n) for n in range(10)), 8, "'0', '1', '2', '3', '4', '5', '6', '7' and 2 more"),
        ([1, 2.5], 8, "'1', '2.5'"),
    ],
)
def test_listings_are_cut(names, limit, expected):
    assert listing(names, limit) == expected


@pytest.mark.parametrize(
    "name, names, expected",
    [
        ("dens", ["dense", "conv"], "Did you mean 'dense'?"),
        ("conv", ["conv1", "conv2", "pool"], "Did you mean 'conv2' or 'conv1'?"),
        ("x", ["dense", "conv"], "Known names: 'dense', 'conv'."),
        ("x", [], "Known names: none."),
        ("dens", iter(["dense"]), "Did you mean 'dense'?"),
    ],
)
def test_the_nearest_names_are_told(name, names, expected):
    assert nearest(name, names) == expected
