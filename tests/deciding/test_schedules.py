import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from battery import SCHEDULES, rising, through_json
from hypothesis import given
from hypothesis import strategies as st

from tfprune.deciding import schedules
from tfprune.deciding.methods import Percentile
from tfprune.deciding.schedules import (
    ACDC,
    Constant,
    Cosine,
    Exponential,
    Linear,
    OneShot,
    Piecewise,
    Polynomial,
    ScheduleFunction,
)
from tfprune.errors import PruningError

LENGTHS = [1, 2, 3, 80, 100, 1050]
members = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


# Laws of the family


@members
@pytest.mark.parametrize("total_steps", LENGTHS)
def test_fires_at_begin_and_end_whatever_the_length_of_the_run(schedule, total_steps):
    bound = schedule.bind(total_steps)
    steps = bound.steps()
    assert steps == sorted(set(steps))
    assert steps[0] == bound.begin and steps[-1] == bound.end
    assert 0 <= bound.begin <= bound.end <= total_steps - 1
    assert [step for step in range(total_steps) if bound.fires(step)] == steps


@members
@pytest.mark.parametrize("total_steps", LENGTHS)
def test_final_amount_is_reached_exactly_at_the_last_step_that_fires(schedule, total_steps):
    bound = schedule.bind(total_steps)
    if isinstance(schedule, ScheduleFunction):
        assert bound.final == rising(bound.end)
    else:
        assert bound(bound.steps()[-1]) == bound.final == schedule.final


@members
def test_nothing_is_pruned_before_begin(schedule):
    bound = schedule.bind(1050)
    assert [bound(step) for step in range(bound.begin)] == [0.0] * bound.begin


@members
def test_amounts_stay_between_the_extremes(schedule):
    bound = schedule.bind(1050)
    amounts = [bound(step) for step in range(bound.begin, 1050)]
    if isinstance(schedule, ScheduleFunction):
        low, high = 0.0, 0.8
        assert schedule.extremes == (0.0, 0.0)
    else:
        low, high = schedule.extremes
    assert low <= min(amounts) and max(amounts) <= high


@members
def test_round_trip_through_json_builds_an_equal_schedule(schedule):
    restored = through_json(schedule)
    assert restored == schedule and hash(restored) == hash(schedule)
    assert restored.bind(321).steps() == schedule.bind(321).steps()
    assert [restored.bind(321)(step) for step in range(321)] == [schedule.bind(321)(step) for step in range(321)]


@members
def test_get_takes_the_object_and_its_config(schedule):
    import keras

    assert schedules.get(schedule) is schedule
    assert schedules.get(keras.saving.serialize_keras_object(schedule)) == schedule


@members
def test_every_step_of_a_schedule_that_is_through_stays_at_its_end(schedule):
    bound = schedule.bind(1050)
    if not isinstance(schedule, ScheduleFunction):
        assert {bound(step) for step in range(bound.end, 1050)} == {bound.final}


@members
def test_last_fired_is_the_newest_deciding_step(schedule):
    bound = schedule.bind(100)
    for step in range(100):
        before = [fired for fired in bound.steps() if fired <= step]
        assert bound.last_fired(step) == (before[-1] if before else None)


@given(
    begin=st.one_of(st.integers(0, 60), st.floats(0, 1)),
    end=st.one_of(st.integers(0, 60), st.floats(0, 1)),
    every=st.one_of(st.integers(1, 30), st.floats(0, 1)),
    total_steps=st.integers(1, 80),
)
def test_any_timing_either_reaches_its_end_or_is_refused(begin, end, every, total_steps):
    try:
        bound = Linear(0.0, 0.8, begin, end, every).bind(total_steps)
    except PruningError:
        exact = [moment if isinstance(moment, int) else round(moment * (total_steps - 1)) for moment in (begin, end)]
        stated_wrong = type(begin) is type(end) and begin > end
        assert stated_wrong or exact[0] > exact[1] or exact[1] > total_steps - 1
        return
    assert bound.steps()[-1] == bound.end <= total_steps - 1
    assert bound(bound.end) == 0.8
    gaps = np.diff(bound.steps())
    assert (gaps <= bound.every).all()


# Values


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_values_follow_their_closed_forms(progress):
    a, b = 0.1, 0.8
    step = int(200 * progress) + 50
    timing = {"begin": 50, "end": 250}
    assert Constant(b, **timing)(step) == b
    assert Linear(a, b, **timing)(step) == pytest.approx(a + (b - a) * progress, rel=1e-12)
    assert Polynomial(a, b, **timing)(step) == pytest.approx(b + (a - b) * (1 - progress) ** 3, rel=1e-12)
    assert Polynomial(a, b, power=1.5, **timing)(step) == pytest.approx(b + (a - b) * (1 - progress) ** 1.5, rel=1e-12)
    wave = (1 - math.cos(math.pi * progress)) / 2
    assert Cosine(a, b, **timing)(step) == pytest.approx(a + (b - a) * wave, rel=1e-12)
    density = 0.9 * (0.2 / 0.9) ** progress
    assert Exponential(a, b, **timing)(step) == pytest.approx(1 - density, rel=1e-12)


def test_table_worked_by_hand():
    # 0 to 0.8 over steps 0..4, every 2; a cube of what is left: 0.8 * (1 - 0.5 ** 3) = 0.7
    assert Linear(0.0, 0.8, begin=0, end=4, every=2).bind(5).steps() == [0, 2, 4]
    assert Polynomial(0.0, 0.8, begin=0, end=4)(2) == pytest.approx(0.7)
    # Halving what is left twice: density 1, 0.5, 0.25
    assert [Exponential(0.0, 0.75, begin=0, end=2)(step) for step in range(3)] == pytest.approx([0.0, 0.5, 0.75])
    # 11 steps are 10 gaps: shares 0.2, 0.7 are steps 2 and 7; every 0.2 of 11 steps is 2 steps
    assert Linear(0.0, 0.5, begin=0.2, end=0.7, every=0.2).bind(11).steps() == [2, 4, 6, 7]


def test_one_shot_fires_once_and_can_repeat():
    assert OneShot(0.5).bind(100).steps() == [0]
    assert OneShot(0.5, at=0.5).bind(101).steps() == [50]
    assert OneShot(0.5, begin=7).bind(100).steps() == [7]
    assert OneShot(0.5, at=7, end=10, every=2).bind(100).steps() == [7, 9, 10]
    assert [OneShot(0.5, at=2).bind(5)(step) for step in range(5)] == [0.0, 0.0, 0.5, 0.5, 0.5]


def test_piecewise_holds_each_amount_until_the_next():
    bound = Piecewise({10: 0.3, 20: 0.6, 40: 0.8}).bind(50)
    assert bound.steps() == [10, 20, 40]
    assert [bound(step) for step in (9, 10, 19, 20, 39, 40, 49)] == [0.0, 0.3, 0.3, 0.6, 0.6, 0.8, 0.8]
    assert Piecewise({20: 0.6, 10: 0.3}).bind(30).steps() == [10, 20]
    assert Piecewise({10: 0.3, 20: 0.6}, end=25, every=4).bind(30).steps() == [10, 14, 18, 20, 22, 25]
    late = Piecewise({10: 0.3, 20: 0.6}, begin=15).bind(30)
    assert late.steps() == [15, 20] and late(12) == 0.0 and late(15) == 0.3


def test_piecewise_moments_that_fall_together_in_a_short_run_give_the_last():
    bound = Piecewise({0.0: 0.3, 0.5: 0.6, 1.0: 0.8}).bind(1)
    assert bound.steps() == [0] and bound(0) == 0.8


def test_sparse_and_dense_phases_take_turns_and_the_last_is_sparse():
    bound = ACDC(0.9, phases=2, begin=10, end=50).bind(70)
    assert bound.steps() == [10, 20, 30, 40, 50]
    moments = (0, 9, 10, 19, 20, 29, 30, 39, 40, 49, 50, 69)
    assert [bound(step) for step in moments] == [0, 0, 0.9, 0.9, 0, 0, 0.9, 0.9, 0, 0, 0.9, 0.9]
    assert ACDC(0.9, phases=1, begin=0, end=8, every=3).bind(9).steps() == [0, 3, 4, 6, 8]
    assert ACDC(0.9).bind(1001).steps() == [100, 181, 262, 344, 425, 506, 588, 669, 750]


def test_phases_that_fall_together_in_a_short_run_end_sparse():
    for steps in range(1, 12):
        bound = ACDC(0.9).bind(steps)
        assert bound(steps - 1) == 0.9 and bound.steps()[-1] == round(0.75 * (steps - 1))


def test_a_number_is_the_default_ramp():
    for number in (0.8, np.float32(0.5), 0):
        assert schedules.get(number) == Polynomial(0.0, float(number), power=3, begin=0.0, end=0.75, every=0.02)


def test_a_function_is_asked_at_its_steps():
    bound = schedules.get(rising).bind(201)
    assert bound.begin == 0 and bound.end == 200 and bound(37) == 0.37 and bound.final == 0.8


def test_numpy_numbers_are_moments_too():
    assert Linear(0.0, 0.5, begin=np.int64(3), end=np.int32(9), every=np.int64(2)) == Linear(0.0, 0.5, 3, 9, 2)
    assert Linear(0.0, 0.5, end=np.float32(0.5)) == Linear(0.0, 0.5, end=0.5)


def test_equality_looks_at_kind_and_arguments():
    assert Linear(0.0, 0.8) != Cosine(0.0, 0.8) and Linear(0.0, 0.8) != Linear(0.0, 0.7)
    assert Linear(0.0, 0.8) != "linear" and Linear(0.0, 0.8) == Linear(0.0, 0.8)
    assert repr(Linear(0.0, 0.8, 1, 2, 3)) == "Linear(initial=0.0, final=0.8, begin=1, end=2, every=3)"
    assert repr(schedules.get(rising)) == "ScheduleFunction(rising, begin=0.0, end=1.0, every=0.02)"


# Schedules of tensorflow-model-optimization. Importing it switches tf.keras, so it is done in a process of its own.

TFMOT = """
import json
import numpy as np
import tensorflow_model_optimization as tfmot
from tfprune.deciding import criteria, schedules
from tfprune.errors import PruningError
from tfprune.deciding.methods import Percentile

sparsity = tfmot.sparsity.keras

class Stairs(sparsity.PruningSchedule):
    def __call__(self, step):
        return step % 100 == 0, min(0.8, step / 1000)
    def get_config(self):
        return {"class_name": "Stairs", "config": {}}

class Idle(sparsity.PruningSchedule):
    def __call__(self, step):
        return False, 0.5
    def get_config(self):
        return {"class_name": "Idle", "config": {}}

class Half(sparsity.ConstantSparsity):
    pass

def message(action):
    try:
        action()
    except PruningError as error:
        return str(error)

decay = sparsity.PolynomialDecay(0.1, 0.8, 10, 150, power=2, frequency=100)
peer = sparsity.PolynomialDecay(0.0, 0.8, 0, 1050, frequency=100)
ours = schedules.get(peer).bind(1051)
stairs = schedules.get(Stairs())
print(json.dumps({
    "constant": repr(schedules.get(sparsity.ConstantSparsity(0.5, 0))),
    "constant steps": schedules.get(sparsity.ConstantSparsity(0.5, 0)).bind(80).steps(),
    "constant ends": repr(schedules.get(sparsity.ConstantSparsity(0.5, 20, 30, 5))),
    "decay": repr(schedules.get(decay)),
    "decay steps": schedules.get(decay).bind(151).steps(),
    "decay too short": message(lambda: schedules.get(decay).bind(150)),
    "values": [[float(peer(step)[1]), ours(step)] for step in range(0, 1051, 50)],
    "last": ours(ours.steps()[-1]),
    "subclass": schedules.get(Half(0.4, 0, frequency=10)).bind(25).steps(),
    "own": [stairs.bind(301).steps(), [stairs.bind(301)(step) for step in (0, 100, 300)]],
    "own grows": [stairs.bind(350).steps(), stairs.bind(350).final],
    "own is through": stairs.bind(1050).steps(),
    "own shown": repr(Percentile(Stairs())),
    "own equals": [stairs == schedules.get(stairs.schedule), stairs == schedules.get(Stairs()), len({stairs, stairs})],
    "idle": message(lambda: schedules.get(Idle()).bind(100)),
    "own saved": message(stairs.get_config),
    "own final": message(lambda: stairs.final),
    "own by layer": message(lambda: Percentile(Stairs(), layers={"a": 0.5})),
    "random": criteria.Random(5)(np.zeros(4), criteria.Context("a/kernel")).tolist(),
}))
"""


@pytest.fixture(scope="module")
def tfmot():
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONHASHSEED": "77", "PYTHONWARNINGS": "ignore"}
    # Keras 3 and tf_keras do live side by side, as long as tf.keras is not asked for.
    result = subprocess.run([sys.executable, "-c", TFMOT], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_tfmot_constant_sparsity(tfmot):
    assert tfmot["constant"] == "Constant(value=0.5, begin=0, end=1.0, every=100)"
    assert tfmot["constant ends"] == "Constant(value=0.5, begin=20, end=30, every=5)"
    # There it fires first at step 100, so never in a run of 80 steps.
    assert tfmot["constant steps"] == [0, 79]


def test_tfmot_polynomial_decay_reaches_its_end(tfmot):
    assert tfmot["decay"] == "Polynomial(initial=0.1, final=0.8, begin=10, end=150, every=100, power=2)"
    # There the last update is at 100 and stops short of the final sparsity.
    assert tfmot["decay steps"] == [10, 110, 150]
    assert tfmot["last"] == 0.8
    assert "from step 10 to step 150, but this run has steps 0 to 149" in tfmot["decay too short"]
    for theirs, ours in tfmot["values"]:
        assert ours == pytest.approx(theirs, abs=1e-6)  # theirs is computed in float32


def test_tfmot_schedules_of_other_classes_are_asked_step_by_step(tfmot):
    assert tfmot["subclass"] == [0, 10, 20]
    assert tfmot["own"] == [[0, 100, 200, 300], [0.0, 0.1, 0.3]]
    assert tfmot["own grows"] == [[0, 100, 200, 300, 349], 0.349]
    assert tfmot["own is through"] == [*range(0, 1050, 100)]
    assert "amount=Tfmot(Stairs)" in tfmot["own shown"]
    assert tfmot["own equals"] == [True, False, 1]


def test_tfmot_schedules_of_other_classes_say_what_they_cannot_do(tfmot):
    assert tfmot["idle"].startswith("Idle never prunes in a run of 100 steps; write a tfprune schedule")
    assert "Stairs is a class of the user's" in tfmot["own saved"] and "cannot be saved" in tfmot["own saved"]
    assert "Stairs does not say where it ends outside of `fit`" in tfmot["own final"]
    assert "Tfmot(Stairs) does not say where it ends" in tfmot["own by layer"]


def test_random_scores_are_the_same_in_every_process(tfmot):
    from tfprune.deciding import criteria

    here = criteria.Random(5)(np.zeros(4), criteria.Context("a/kernel"))
    assert tfmot["random"] == here.tolist()


# Errors


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Linear(0, 0.8, begin=0.8, end=0.2), r"Linear: begin=0.8 comes after end=0.2; swap them"),
        (lambda: Linear(0, 0.8, begin=80, end=20), r"Linear: begin=80 comes after end=20"),
        (lambda: Cosine(0, 0.8, every=0), r"Cosine: every=0 is no distance; write every=1"),
        (lambda: Cosine(0, 0.8, every=np.int64(0)), r"Cosine: every=0 is no distance"),
        (lambda: Constant(0.8, begin=-1), r"Constant: begin=-1 is negative; steps count from 0"),
        (lambda: Constant(0.8, end=3.0), r"Constant: end=3.0 is no share of a run in \[0, 1\]; write end=3 for a step"),
        (lambda: Constant(0.8, end=-0.5), r"Constant: end=-0.5 is no share of a run"),
        (lambda: Constant(0.8, end=math.nan), r"Constant: end=nan is no share of a run"),
        (lambda: Constant(0.8, end=math.inf), r"Constant: end=inf is no share of a run"),
        (lambda: Constant(0.8, end="last"), r"Constant: end='last' is no moment; give an int \(step\) or a float"),
        (lambda: Constant(0.8, begin=True), r"Constant: begin=True is no moment"),
        (lambda: Polynomial(0, 0.8, power=0), r"Polynomial: power=0 gives no ramp; write a power above 0, such as 3"),
        (lambda: Polynomial(0, 0.8, power=math.nan), r"Polynomial: power=nan gives no ramp"),
        (lambda: Exponential(0, 1.0), r"Exponential: final=1.0 is no sparsity in \[0, 1\); write Linear"),
        (lambda: Exponential(-0.1, 0.5), r"Exponential: initial=-0.1 is no sparsity"),
        (lambda: OneShot(0.5, at=1, begin=2), r"OneShot: at=1 and begin=2 both say when; give one of them"),
        (lambda: Piecewise({}), r"Piecewise: no amounts given; write Piecewise\(\{0.0: 0.5, 0.5: 0.8\}\)"),
        (lambda: Piecewise({0: 0.5, 0.5: 0.8}), r"Piecewise: the moments \[0, 0.5\] mix steps"),
        (lambda: Piecewise({-1: 0.5}), r"Piecewise: moment=-1 is negative"),
        (lambda: Piecewise({0: 0.3, 100: 0.6, 200: 0.8}, end=150).bind(300), r"ends at step 150, .* step 200, .* 0.8"),
        (lambda: ACDC(0.5, phases=0), r"ACDC: phases=0 is no number of sparse phases; write phases=4"),
        (lambda: ACDC(0.5, phases=2.0), r"ACDC: phases=2.0 is no number of sparse phases"),
        (lambda: ACDC("x"), r"ACDC: final='x' is no number"),
        (lambda: ACDC(0.5, begin=0.5, end=0.2), r"ACDC: begin=0.5 comes after end=0.2"),
        (lambda: schedules.get("polynomial"), r"'polynomial' is no schedule; give a number, a schedule such as"),
        (lambda: schedules.get(True), r"True is no schedule"),
        (lambda: schedules.get({"final": 0.8}), r"is no schedule"),
        (lambda: schedules.get(Polynomial), r"class 'tfprune.deciding.schedules.ramps.Polynomial'> is no schedule"),
        (lambda: ScheduleFunction(rising).final, r"schedule rising is a function of the step and has no final amount"),
        (
            lambda: Linear(0, 0.8)(5),
            r"Linear\(begin=0.0, end=0.75\) is stated in shares .* schedule.bind\(",
        ),
    ],
)
def test_errors_when_built(build, message):
    with pytest.raises(PruningError, match=message):
        build()


@pytest.mark.parametrize(
    "schedule, total_steps, message",
    [
        (Linear(0, 0.8, begin=0, end=100), 100, r"from step 0 to step 100, .* steps 0 to 99, .* train for 101 steps"),
        (
            Linear(0, 0.8, begin=100, end=200),
            80,
            r"from step 100 to step 200, .* steps 0 to 79, .* for 201 steps",
        ),
        (OneShot(0.5, at=5), 5, r"OneShot runs from step 5 to step 5, but this run has steps 0 to 4"),
        (Piecewise({0: 0.1, 50: 0.8}), 50, r"Piecewise runs from step 0 to step 50"),
        (Linear(0, 0.8, begin=50, end=0.1), 100, r"begins at step 50 and ends at step 10 of this run of 100 steps"),
        (Constant(0.5), 0, r"Constant: a run of 0 steps trains nothing; give it at least one step"),
    ],
)
def test_a_target_out_of_reach_is_an_error_that_names_the_numbers(schedule, total_steps, message):
    with pytest.raises(PruningError, match=message):
        schedule.bind(total_steps)


def test_a_method_shows_its_schedule():
    assert "amount=ScheduleFunction(rising" in repr(Percentile(rising))


# What a run asks at every step


class Counted(int):
    """A step that counts how often it is compared."""

    compared = 0

    def _told(self, other, compare):
        type(self).compared += 1
        return compare(int(self), int(other))

    def __lt__(self, other):
        return self._told(other, int.__lt__)

    def __le__(self, other):
        return self._told(other, int.__le__)

    def __gt__(self, other):
        return self._told(other, int.__gt__)

    def __ge__(self, other):
        return self._told(other, int.__ge__)


@pytest.mark.parametrize(
    "schedule",
    [
        Linear(0.0, 0.8, begin=0, end=9_999, every=1),
        Piecewise({step: step / 10_000 for step in range(10_000)}),
    ],
    ids=["linear", "piecewise"],
)
def test_a_schedule_of_ten_thousand_decisions_looks_one_up_in_a_few_comparisons(schedule):
    bound = schedule.bind(10_000)
    Counted.compared = 0
    step = Counted(7_777)
    assert bound.last_fired(step) == 7_777 and bound.fires(step)
    assert 0.6 < bound(step) < 0.8
    assert Counted.compared < 100


def test_a_step_and_a_share_of_the_run_are_different_moments():
    # 1 == 1.0, but the first step and the end of the run are far apart.
    assert Linear(0.0, 0.8, begin=1, end=10) != Linear(0.0, 0.8, begin=1.0, end=10)
    assert len({Linear(0.0, 0.8, end=1), Linear(0.0, 0.8, end=1.0)}) == 2
