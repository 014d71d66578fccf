import keras
import numpy as np
import pytest
from battery import PATTERNS, decide, mask_of, reference_mask, removed_units, through_json, units_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import layers

from tfprune.deciding import patterns
from tfprune.deciding.methods import Percentile, Threshold
from tfprune.deciding.patterns import Block, Element, NofM, Template
from tfprune.errors import PruningError
from tfprune.model.prunable import prunable_weights
from tfprune.oneshot.prune import prune

members = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
# Whole numbers: many ties, and sums that are exact in every order.
weights = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=5, max_side=5), elements=st.integers(-3, 3))


def percentile(pattern, amount=0.5):
    return Percentile(pattern.full if pattern.full < 1 else amount, pattern=pattern, allocation="uniform")


# Laws of the family


@members
@settings(max_examples=50)
@given(weight=weights, data=st.data())
def test_masks_equal_the_slow_reference(pattern, weight, data):
    axis = data.draw(st.integers(-weight.ndim, -1))
    share = data.draw(st.floats(0, 0.99))
    kept = data.draw(st.one_of(st.none(), hnp.arrays(bool, weight.shape)))
    units = units_of(weight.shape, pattern, axis)
    earlier = None if kept is None else {"weight": kept}
    mask = decide(percentile(pattern), {"weight": weight}, share * pattern.full, earlier, axis)["weight"]
    expected = reference_mask(weight, pattern, round(share * len(units)), axis, kept)
    assert mask.dtype == bool and (mask == expected).all()


@members
@pytest.mark.parametrize("kind", ["normal", "constant", "few values", "80 % zeros", "all zeros"])
@pytest.mark.parametrize("shape", [(9, 7), (3, 5, 6), (3, 2, 8, 5), (2, 2, 2, 9, 4)])
def test_count_of_removed_units_is_exact_whatever_the_weights(pattern, kind, shape):
    generator = np.random.default_rng(1)
    weight = generator.normal(size=shape).astype(np.float32)
    if kind == "constant":
        weight[:] = 0.25
    elif kind == "few values":
        weight = np.round(weight * 2) / 2
    elif kind == "80 % zeros":
        weight[generator.random(shape) < 0.8] = 0.0
    elif kind == "all zeros":
        weight[:] = 0.0
    units = len(units_of(shape, pattern, -2))
    for share in (0.0, 0.1, 0.5, 0.77):
        mask = decide(percentile(pattern), {"weight": weight}, share * pattern.full)["weight"]
        wanted = round(share * units)
        removed = removed_units(mask, pattern)
        if isinstance(pattern, NofM):
            # A last group that is too short to lose anything counts as chosen, but shows no zero.
            short = sum(len(unit) <= pattern.keep for unit in units_of(shape, pattern, -2))
            assert wanted - short <= removed <= wanted
        else:
            assert removed == wanted


@members
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes_of_weights_do_not_matter(pattern, dtype):
    weight = np.random.default_rng(2).integers(-4, 5, (6, 8)).astype(np.float32)
    mask = decide(percentile(pattern), {"weight": weight}, 0.3 * pattern.full, dtype=dtype)["weight"]
    assert (mask == decide(percentile(pattern), {"weight": weight}, 0.3 * pattern.full)["weight"]).all()


@members
def test_what_is_pruned_goes_first_and_masks_only_shrink_as_the_amount_grows(pattern):
    generator = np.random.default_rng(3)
    kept = None
    for share in (0.2, 0.5, 0.8, 1.0):
        amount = min(share * pattern.full, 0.99)
        weight = generator.normal(size=(8, 12)).astype(np.float32)  # trained on: other weights at each update
        mask = decide(percentile(pattern), {"weight": weight}, amount, kept)["weight"]
        if kept is not None:
            assert not (mask & ~kept["weight"]).any()
        kept = {"weight": mask}


@members
def test_round_trip_and_get(pattern):
    assert through_json(pattern) == pattern == patterns.get(pattern) and hash(through_json(pattern)) == hash(pattern)
    assert patterns.get(keras.saving.serialize_keras_object(pattern)) == pattern
    assert eval(repr(pattern), {"Element": Element, "Block": Block, "NofM": NofM}) == pattern


def test_get_by_name():
    assert patterns.get("element") == Element()
    assert patterns.get("4x1") == Block(4, 1) and patterns.get("1x16") == Block(1, 16)
    assert patterns.get("2:4") == NofM(2, 4) and patterns.get("1:8") == NofM(1, 8)
    assert Block(4, 1) != Block(1, 4) and NofM(2, 4) != Block(2, 4) and Element() != "element"


# Tables worked by hand


def test_elements_by_hand():
    # 3 of 6 go: 0.0 and 0.1, then of the two 0.2 the one of lower index.
    weight = [[0.3, -0.1, 0.2], [-0.2, 0.5, 0.0]]
    assert mask_of(Percentile(0.5), weight).tolist() == [[1, 0, 0], [1, 1, 0]]
    # 1 of 6 would be 0.0, but 0.5 is pruned already and goes first.
    assert mask_of(Percentile(1 / 6), weight, kept=[[1, 1, 1], [1, 0, 1]]).tolist() == [[1, 1, 1], [1, 0, 1]]
    # 3 of 6: the two that are pruned already, then 0.0.
    assert mask_of(Percentile(0.5), weight, kept=[[0, 1, 1], [1, 0, 1]]).tolist() == [[0, 1, 1], [1, 0, 0]]


def test_blocks_of_rank_2_with_edges_by_hand():
    # Blocks of 2x2 in 3x3: means (1+2+3+4)/4 = 2.5, (9+1)/2 = 5, (2+2)/2 = 2, 6. Half of 4 blocks go: 2 and 2.5.
    weight = [[1, -2, 9], [3, 4, 1], [2, 2, 6]]
    assert mask_of(Percentile(0.5, pattern="2x2"), weight).tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 1]]
    # One goes: the edge of mean 2, though its sum (4) is not the smallest per block of four.
    assert mask_of(Percentile(0.25, pattern="2x2"), weight).tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 1]]
    # By length: roots of mean squares sqrt(30/4) = 2.7, sqrt(82/2) = 6.4, 2, 6: the same two.
    assert mask_of(Percentile(0.5, "l2", "2x2"), weight).tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 1]]


def test_blocks_of_rank_3_by_hand():
    # Conv1D (window 2, input 2, output 3), blocks of 2 inputs x 1 output: one block per window place and output.
    weight = [[[1, 5, 2], [1, 5, 2]], [[4, 1, 9], [4, 2, 9]]]
    # Means: 1, 5, 2 / 4, 1.5, 9. Half of 6 go: 1, 1.5, 2.
    expected = [[[0, 1, 0], [0, 1, 0]], [[1, 0, 1], [1, 0, 1]]]
    assert mask_of(Percentile(0.5, pattern=Block(2, 1)), weight).tolist() == expected


def test_blocks_of_rank_4_by_hand():
    # Conv2D (1, 2, input 3, output 2), blocks of 2x2: the third input is an edge of its own, 1x2.
    weight = [[[[1, 1], [1, 1], [8, 8]], [[3, 3], [3, 3], [2, 2]]]]
    # Means: 1, 8 / 3, 2. Half of 4 go: 1 and 2.
    expected = [[[[0, 0], [0, 0], [1, 1]], [[1, 1], [1, 1], [0, 0]]]]
    assert mask_of(Percentile(0.5, pattern=Block(2, 2)), weight).tolist() == expected


def test_blocks_of_rank_5_by_hand():
    # Conv3D (1, 1, 2, input 1, output 3), blocks of 1x2: outputs 0-1 and the edge 2.
    weight = [[[[[2, 4, 1]], [[0, 5, 6]]]]]
    # Means: 3, 1 / 2.5, 6. One of 4 goes: 1. Half: 1 and 2.5.
    assert mask_of(Percentile(0.25, pattern=Block(1, 2)), weight).tolist() == [[[[[1, 1, 0]], [[1, 1, 1]]]]]
    assert mask_of(Percentile(0.5, pattern=Block(1, 2)), weight).tolist() == [[[[[1, 1, 0]], [[0, 0, 1]]]]]


def test_two_of_four_by_hand():
    # Along axis 0 (inputs): column 0 keeps 4 and -3, column 1 has ties of 1 and keeps the two of highest index.
    weight = [[1, 1], [4, 1], [2, 1], [-3, 1]]
    assert mask_of(Percentile(pattern="2:4"), weight).tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_two_of_four_where_the_axis_does_not_divide():
    # 6 inputs: a group of 4 and one of 2, which keeps both.
    weight = [[6], [5], [4], [3], [2], [1]]
    assert mask_of(Percentile(pattern="2:4"), weight).ravel().tolist() == [1, 1, 0, 0, 1, 1]
    # 7 inputs: the last group of 3 keeps its best two.
    weight = [[6], [5], [4], [3], [1], [2], [3]]
    assert mask_of(Percentile(pattern="2:4"), weight).ravel().tolist() == [1, 1, 0, 0, 0, 1, 1]
    # 3 inputs, 1 of 8: one group, shorter than a whole one, keeps one.
    assert mask_of(Percentile(pattern="1:8"), [[1], [3], [2]]).ravel().tolist() == [0, 1, 0]


def test_two_of_four_on_the_way_thins_the_groups_that_lose_least():
    # Two groups in each column lose: column 0 1+2 = 3 and 5+6 = 11, column 1 2+2 = 4 and 0+0 = 0.
    weight = [[1, 2], [2, 2], [3, 9], [4, 9], [5, 0], [6, 0], [7, 0], [8, 0]]
    # A quarter of all entries is half of the four groups: those that lose 0 and 3.
    method = Percentile(pattern="2:4")
    mask = mask_of(method, weight, amount=0.25)
    assert mask[:, 0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert mask[:, 1].tolist() == [1, 1, 1, 1, 0, 0, 1, 1]
    # The rest follows at the end, and what was thinned stays as it was, whatever the weights are by then.
    later = mask_of(method, np.array(weight)[::-1], kept=mask)
    assert later[:4, 0].tolist() == [0, 0, 1, 1] and later[4:, 1].tolist() == [0, 0, 1, 1]
    assert (later.reshape(2, 4, 2).sum(axis=1) == 2).all()


@pytest.mark.parametrize("size", [4, 5, 6, 7, 8])
@pytest.mark.parametrize("keep, group", [(1, 2), (2, 4), (1, 4), (3, 4), (4, 8)])
def test_every_group_keeps_what_it_may_and_no_more(size, keep, group):
    weight = np.random.default_rng(0).normal(size=(3, size, 5))
    mask = mask_of(Percentile(pattern=NofM(keep, group)), weight)
    for start in range(0, size, group):
        part = mask[:, start : start + group, :]
        assert (part.sum(axis=1) == min(keep, part.shape[1])).all()


# The axis that TFLite stores last, for every kind of kernel: where keras keeps its input channels


INPUT_AXES = {
    "dense": (layers.Dense(5), (8,), {"kernel": 0}),
    "conv1d": (layers.Conv1D(3, 2), (6, 8), {"kernel": 1}),
    "conv2d": (layers.Conv2D(3, 2), (6, 6, 8), {"kernel": 2}),
    "conv3d": (layers.Conv3D(3, 2), (4, 4, 4, 8), {"kernel": 3}),
    "conv1d transposed": (layers.Conv1DTranspose(3, 2), (6, 8), {"kernel": 2}),
    "conv2d transposed": (layers.Conv2DTranspose(3, 2), (6, 6, 8), {"kernel": 3}),
    "conv3d transposed": (layers.Conv3DTranspose(3, 2), (4, 4, 4, 8), {"kernel": 4}),
    "depthwise 1d": (layers.DepthwiseConv1D(2), (6, 8), {"kernel": 1}),
    "depthwise 2d": (layers.DepthwiseConv2D(2), (6, 6, 8), {"kernel": 2}),
    "separable": (layers.SeparableConv2D(3, 2), (6, 6, 8), {"depthwise_kernel": 2, "pointwise_kernel": 2}),
    "einsum": (layers.EinsumDense("abc,cd->abd", (None, 5)), (3, 8), {"kernel": 0}),
    "einsum, channels last of two": (layers.EinsumDense("abcd,cde->abe", (None, 5)), (2, 3, 8), {"kernel": 1}),
    "einsum, kernel written output first": (layers.EinsumDense("ab,cb->ac", 5), (8,), {"kernel": 1}),
    "embedding": (layers.Embedding(5, 8), (3,), {"embeddings": 1}),
    "lstm": (layers.LSTM(8), (3, 8), {"kernel": 0, "recurrent_kernel": 0}),
}


@pytest.mark.parametrize("layer, shape, axes", INPUT_AXES.values(), ids=INPUT_AXES)
def test_n_of_m_lies_on_the_input_axis_of_every_kind_of_kernel(layer, shape, axes):
    layer = type(layer).from_config(layer.get_config())
    model = keras.Sequential([keras.Input(shape), layer])
    found = {weight.key.split("/")[-1]: weight for weight in prunable_weights(model)}
    assert set(found) == set(axes)
    for name, axis in axes.items():
        variable = found[name].variable
        assert variable.shape[axis] == 8
        # Sizes that grow along the axis: each group of four keeps its last two.
        place = np.arange(8).reshape([-1 if a == axis else 1 for a in range(len(variable.shape))])
        variable.assign(np.broadcast_to(place + 1.0, variable.shape))
        mask = Percentile(pattern="2:4").bind(model).decide(0.5)[found[name].key]
        assert (mask == (place % 4 >= 2)).all()


def test_n_of_m_where_the_inputs_do_not_divide_in_a_real_layer():
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(4, 3, name="stem"), layers.Conv2D(2, 1)])
    mask = Percentile(pattern="2:4").bind(model).decide(0.5)["stem/kernel"]
    assert (mask.sum(axis=2) == 2).all()  # three inputs: two are kept


# Errors


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Block(0, 4), r"Block: height=0 is no number of entries; write Block\(4, 1\), say"),
        (lambda: Block(4, 1.5), r"Block: width=1.5 is no number of entries"),
        (lambda: Block(True, 1), r"Block: height=True is no number"),
        (lambda: patterns.get("0x4"), r"Block: height=0"),
        (lambda: NofM(0, 4), r"NofM: keep=0 is no number of entries; write NofM\(2, 4\)"),
        (lambda: NofM(2, "4"), r"NofM: group='4' is no number"),
        (lambda: NofM(4, 4), r"NofM: keeping 4 of 4 removes nothing; write NofM\(keep=2, group=4\)"),
        (lambda: patterns.get("4:2"), r"NofM: keeping 4 of 2 removes nothing"),
        (lambda: patterns.get("block"), r"'block' is no pattern; give 'element', '2:4' \(keep 2 of every 4\), '4x1'"),
        (lambda: patterns.get("2:4 "), r"'2:4 ' is no pattern"),
        (lambda: patterns.get(4), r"4 is no pattern"),
        (lambda: patterns.get(Element), r"is no pattern"),
        (lambda: patterns.get({"height": 2}), r"is no pattern"),
    ],
)
def test_errors(build, message):
    with pytest.raises(PruningError, match=message):
        build()


def test_blocks_need_two_axes():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense")])
    with pytest.raises(
        PruningError, match=r"'dense/bias' of shape \(3,\) has no two axes for Block\(height=2, width=1\)"
    ):
        Percentile(0.5, pattern="2x1", layers=["dense/bias"]).bind(model)


# Templates

CROSS = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
CORNERS = [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def kernels(*windows):
    """A weight with these windows for one input and several outputs."""
    return np.stack([np.array(window, np.float32) for window in windows], axis=-1)[:, :, None, :]


def test_every_kernel_gets_the_template_that_keeps_most():
    weight = kernels([[1, 9, 1], [9, 1, 9], [1, 9, 1]], [[9, 1, 9], [1, 1, 1], [-9, 1, 9]])
    mask = mask_of(Percentile(pattern=Template([CROSS, CORNERS])), weight)
    assert mask[:, :, 0, 0].tolist() == CROSS and mask[:, :, 0, 1].tolist() == CORNERS


def test_kernels_that_lose_least_get_their_template_first_and_the_count_is_exact():
    weight = kernels([[1, 9, 1], [9, 9, 9], [1, 9, 1]], [[2, 9, 2], [9, 9, 9], [2, 9, 2]])
    method = Percentile(pattern=Template([CROSS]))
    half = mask_of(method, weight, 0.5 * 4 / 9)
    assert half[:, :, 0, 0].tolist() == CROSS and half[:, :, 0, 1].all()
    assert (mask_of(method, weight) == 0).sum() == 8


def test_among_equal_templates_the_first_is_taken_and_what_is_gone_stays_gone():
    weight = kernels(np.ones((3, 3)))
    method = Percentile(pattern=Template([CROSS, CORNERS]))
    assert mask_of(method, weight)[:, :, 0, 0].tolist() == CROSS
    gone = np.array(CORNERS, bool)[:, :, None, None]
    assert mask_of(method, weight * gone, kept=gone)[:, :, 0, 0].tolist() == CORNERS


def test_templates_in_a_model_with_other_layers_and_in_a_file():
    model = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()])
    pattern = Template([CROSS, CORNERS])
    pruned = prune(model, Percentile(pattern=pattern, layers=keras.layers.Conv2D))
    kernel = pruned.layers[0].kernel.numpy()
    assert np.count_nonzero(kernel == 0) == 8 * 4
    for window in kernel.reshape(9, -1).T:
        assert (window != 0).reshape(3, 3).astype(int).tolist() in (CROSS, CORNERS)
    assert patterns.get(through_json(pattern)) == pattern


@pytest.mark.parametrize(
    ("templates", "told"),
    [
        ([], "no templates given"),
        ([CROSS, [[1, 0], [0, 1]]], r"templates of shapes \[\(2, 2\), \(3, 3\)\]; all must have the shape"),
        ([CROSS, np.eye(3)], "templates that keep '3', '5' entries"),
        ([np.ones((3, 3))], "keeping 9 of 9 entries is no choice"),
        ([np.zeros((3, 3))], "keeping 0 of 9 entries is no choice"),
        ([np.full((3, 3), 2)], "other values than True and False"),
    ],
)
def test_wrong_templates_are_told(templates, told):
    with pytest.raises(PruningError, match=told):
        Template(templates)


def test_a_template_of_another_shape_than_the_kernels_is_told_with_the_layer():
    model = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Conv2D(4, 5, name="wide")])
    with pytest.raises(PruningError, match=r"'wide/kernel' has kernels of shape \(5, 5\), the templates \(3, 3\)"):
        prune(model, Percentile(pattern=Template([CROSS])))
    with pytest.raises(PruningError, match="keeps a fixed number and has no threshold"):
        Threshold(0.1, pattern=Template([CROSS]))
