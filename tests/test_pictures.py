"""The pictures of results: what is on them, with units, and whether all of it can be read at 10 and at 300 layers."""

import itertools

import lite_models
import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import tfprune
from tfprune.channels.groups import ChannelGroup, ChannelGroups
from tfprune.channels.plan import ShrinkPlan
from tfprune.channels.reasons import Frozen
from tfprune.deciding.sensitivity import Sensitivity
from tfprune.errors import PruningError
from tfprune.lite.convert.layer_results import LayerError
from tfprune.lite.file.paths import FilePaths, OperatorPath
from tfprune.lite.measure.layer_errors import LayerErrors
from tfprune.lite.measure.operator_times import OperatorTime, OperatorTimes
from tfprune.model.drawing import draw_path, draw_zeros
from tfprune.model.summary import LayerSummary, Summary
from tfprune.report import MOST, Panel, draw_bars, new_figure


def name(number):
    return f"a_block_of_a_rather_long_name_{number // 10}/the_convolution_{number}"


def summary(count):
    rows = [LayerSummary(name(n), "Conv2D", ((3, 3, n, n),), 10 * n + 10, 9 * n + 9, n, 1000 * n) for n in range(count)]
    return Summary("deep", rows, [])


def plan(count):
    """Of every three groups one goes in part, one stays, one is frozen."""
    reason = Frozen.parse(str(tfprune.channel_groups(lite_models.convolutional())["scores"].frozen))
    groups = ChannelGroups(
        [ChannelGroup(name(n), 8, (), (), reason if n % 3 == 2 else None, None, 5, 5) for n in range(count)], "deep"
    )
    keep = {name(n): np.arange(8) < (5 if n % 3 == 0 else 8) for n in range(count)}
    return ShrinkPlan(
        groups, keep, {name(n): ["dead", "kept, none is dead", f"kept, {reason}"][n % 3] for n in range(count)}, ""
    )


def sensitivity(count):
    values = {name(n): [0.9, 0.9 - 0.002 * n] for n in range(count)}
    return Sensitivity("accuracy", 0.9, (0.5, 0.9), values, dict.fromkeys(values, 10))


def errors(count):
    return LayerErrors(
        tuple(LayerError(name(n), "Conv2D", "int8", 0.001 * n, 0.0005 * n, 0.1, "t") for n in range(count)), (), 4
    )


def times(count):
    kinds = ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD")
    rows = [OperatorTime(n, kinds[n % 3], name(n), 0.01 * (count - n), 5, 5) for n in range(count)]
    return OperatorTimes((*rows, OperatorTime(count, "WHILE", "loop", None, 0, 0)), 1.0, 5, 1, True)


def paths(count):
    ways = ("dense", "sparse")
    rows = [OperatorPath(n, "CONV_2D", name(n), n + 1, 0.5, ways[n % 2], None, "a reason " * 9) for n in range(count)]
    return FilePaths("arm", tuple(rows))


RESULTS = [summary, plan, sensitivity, errors, times, paths]


def unreadable(figure):
    """What cannot be read: words beyond the edge, words of an axis on each other, a legend on the chart."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = lambda artist: artist.get_window_extent(canvas.get_renderer())  # noqa: E731
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    ticks = [label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in hidden(axis)]
    whole, found = figure.bbox.padded(1), []
    for text in texts:
        place = box(text)
        if text not in ticks and not (whole.contains(place.x0, place.y0) and whole.contains(place.x1, place.y1)):
            found.append(("cut", text.get_text()))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [label for label in axis.get_ticklabels() if label.get_text() and label not in ticks]
            for one, other in itertools.pairwise(sorted(labels, key=lambda label: (box(label).x0, box(label).y0))):
                if box(one).padded(-1).overlaps(box(other).padded(-1)):
                    found.append(("on each other", one.get_text(), other.get_text()))
        found += [("under the legend", axes) for legend in figure.legends if box(legend).overlaps(box(axes))]
    return found


def hidden(axis):
    """Labels of ticks beyond the ends of an axis, which are not drawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
    return [label for tick in ticks for label in (tick.label1, tick.label2)]


@pytest.mark.parametrize("count", [10, 300])
@pytest.mark.parametrize("result", RESULTS, ids=lambda make: make.__name__)
def test_all_words_can_be_read(result, count):
    figure = result(count).plot()
    assert unreadable(figure) == []
    assert figure.get_size_inches()[1] < 13 and all(
        axes.get_title() or figure.get_suptitle() for axes in figure.axes[:1]
    )


def words(figure):
    return {text.get_text() for text in figure.findobj(Text)}


def test_of_300_layers_the_largest_are_drawn_and_the_others_counted():
    figure = summary(300).plot()
    left, right = figure.axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("parameters", "MACs of one sample")
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert len(labels) == MOST + 1 and labels[-1] == "and 260 more" and labels[-2].endswith("the_convolution_299")
    assert [bar.get_width() for bar in left.containers[1]] == list(range(260, 300))  # the zeros
    assert len(right.patches) == MOST
    assert "zero" in words(figure) and "not zero" in words(figure)


def test_a_plan_shows_what_goes_and_stays_with_reasons():
    figure = plan(3).plot()
    channels, reasons = figure.axes
    assert channels.get_xlabel() == "channels"
    assert [[bar.get_width() for bar in bars] for bars in channels.containers] == [[5, 8, 0], [3, 0, 0], [0, 0, 8]]
    said = [label.get_text() for label in reasons.get_yticklabels()]
    assert said[:2] == ["dead", "kept, none is dead"] and said[2].startswith("kept, ")


def test_errors_are_split_in_what_comes_in_and_what_is_added():
    (axes,) = errors(3).plot().axes
    assert [[round(bar.get_width(), 4) for bar in bars] for bars in axes.containers] == [[0, 5e-4, 1e-3]] * 2


def test_operators_are_called_by_name_and_the_slowest_kind_comes_first():
    figure = times(6).plot()
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["CONV_2D (2)", "DEPTHWISE_CONV_2D (2)", "ADD (2)"]
    assert "milliseconds" in axes.get_xlabel() and len(axes.patches) == 6
    assert any("the_convolution_0" in text for text in words(figure))


def test_few_weights_are_lines_and_many_a_map_with_the_amounts_chosen():
    figure = sensitivity(3).plot(amounts=0.4)
    (axes,) = figure.axes
    assert len(axes.lines) == 6 and axes.get_ylabel() == "accuracy"
    rings = [line.get_xdata()[0] for line in axes.lines if line.get_markersize() == 12]
    assert rings == list(sensitivity(3).amounts(0.4).values())
    assert figure.legends and not axes.get_legend()
    figure = sensitivity(300).plot(amounts={name(299): 0.7})
    heat, bar = figure.axes
    assert heat.images[0].get_array().shape == (MOST, 2) and bar.get_ylabel() == "accuracy: how much worse than 0.9"
    assert [line.get_xydata()[0] for line in heat.lines] == [pytest.approx((0.5, MOST - 1))]


def test_amounts_of_300_weights_are_those_of_their_losses():
    amounts = sensitivity(300).amounts(0.6)
    assert sum(amounts.values()) == pytest.approx(180) and amounts[name(0)] > amounts[name(299)] == 0.5


def test_a_kernel_before_and_after_with_its_zeros(tmp_path):
    model = lite_models.convolutional()
    pruned = tfprune.strip_masks(tfprune.prune(model, 0.9, verbose=0))
    report = tfprune.report(pruned, model, out=None)
    before, after = report.kernels["before"], report.kernels["after"]
    key = next(key for key in after if not np.array_equal(before[key], after[key]) and before[key].size < 5000)
    figure = report.plot(tmp_path / "kernel.png", weight=key)
    values, zeros, _ = figure.axes
    kernel = report.kernels["after"][key]
    assert values.get_xlabel() == "value of a weight (zeros left out)" and values.get_ylabel() == "number of weights"
    drawn = zeros.images[0].get_array()
    assert np.array_equal(drawn, (kernel != 0).reshape(drawn.shape))
    assert f"now: {np.mean(kernel == 0):.1%} zeros" in words(
        figure
    ) and f"before: {np.mean(before[key] == 0):.1%} zeros" in words(figure)
    assert unreadable(figure) == []
    (left,) = report.plot().axes
    assert left.get_xlabel() == "share of the baseline that is left" and len(left.patches) == 3
    with pytest.raises(PruningError, match=r"plot: 'nowhere' is no kernel of the model\. Known names: "):
        report.plot(weight="nowhere")
    with pytest.raises(PruningError, match="there is no baseline to draw against; write weight='...'"):
        tfprune.report(pruned, out=None).plot()


def test_a_large_kernel_is_drawn_in_shares():
    kernel = np.ones((400, 300))
    kernel[:200] = 0
    axes = new_figure(3, 3).subplots()
    shares = draw_zeros(axes, kernel).get_array()
    assert shares.shape == (192, 192) and shares[:95].max() == 0 and shares[97:].min() == 1


def test_points_on_each_other_share_their_number():
    axes = new_figure(3, 3).subplots()
    draw_path(axes, [(1, 0.9), (0.5, 0.9), (0.5, 0.9), (0.2, 0.5), (0.1, np.nan)], [True, True, True, False, False])
    assert [text.get_text() for text in axes.texts] == ["1", "2, 3", "4"]
    assert [len(line.get_xdata()) for line in axes.lines] == [3, 1]


def test_a_value_that_is_not_known_is_not_drawn_as_0():
    figure = draw_bars("title", ["one", "two"], [Panel("times faster", ".1f", {"": [None, 2.0]})])
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["2.0"] and len(axes.patches) == 1


def test_a_style_sheet_is_followed():
    with matplotlib.rc_context({"text.color": "w", "axes.edgecolor": "w", "figure.facecolor": "k", "xtick.color": "w"}):
        figure = summary(3).plot()
    assert figure.get_facecolor() == (0, 0, 0, 1)
    assert {text.get_color() for axes in figure.axes for text in axes.texts} == {"w"}


def test_a_certificate_shows_what_went_and_else_the_differences():
    model = lite_models.convolutional()
    masked = tfprune.strip_masks(tfprune.prune(model, tfprune.Structured(0.4), verbose=0))
    figure = tfprune.certify(masked, tfprune.shrink(masked)).plot()
    _, removed, stuck = figure.axes[0].containers
    assert sum(bar.get_width() for bar in removed) == round(0.4 * 48) and stuck[-1].get_width() == 5
    assert "exact: only zeros were removed" in figure.axes[0].get_title() and unreadable(figure) == []
    (axes,) = tfprune.certify(model, masked).plot().axes
    assert axes.get_xlabel() == "largest difference over the output's scale (rounding: up to 1e-05)"
