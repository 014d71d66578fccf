"""compress on what has neither classes nor values to compare one by one: sequences, rankings, generated samples."""

import keras
import numpy as np
import pytest

from tfprune import PruningError, compress, convert, verify

L = keras.layers
RANDOM = np.random.default_rng(0)
QUICK = {"target": {"parameters": 0.8}, "epochs": 1, "sparsities": (), "verbose": 0}


def letters_of(outputs):
    """The sequences that logits of a CTC network spell, class 0 being the blank."""
    best = outputs.argmax(axis=-1)
    return [[each for each, before in zip(row, [0, *row]) if each and each != before] for row in best.tolist()]


def edit_distance(targets, outputs):
    """The mean number of letters to change, by the length of the target."""
    total = 0.0
    for target, given in zip(targets, letters_of(outputs)):
        wanted = [each for each in target.astype(int).tolist() if each]
        row = list(range(len(given) + 1))
        for i, letter in enumerate(wanted, 1):
            before, row[0] = row[0], i
            for j, other in enumerate(given, 1):
                before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
        total += row[-1] / len(wanted)
    return total / len(targets)


def test_a_sequence_is_judged_by_the_edit_distance_of_what_it_spells():
    keras.utils.set_random_seed(0)
    y = np.array([RANDOM.choice(4, 3, replace=False) + 1 for _ in range(240)], "int32")
    x = np.repeat(np.eye(5, dtype="float32")[y], 4, axis=1) + RANDOM.normal(0, 0.1, (240, 12, 5)).astype("float32")
    inputs = keras.Input((12, 5))
    hidden = L.Conv1D(16, 3, padding="same", activation="relu")(inputs)
    model = keras.Model(inputs, L.Dense(5, name="letters")(L.Conv1D(16, 3, padding="same", activation="relu")(hidden)))
    model.compile(keras.optimizers.Adam(0.02), keras.losses.CTC())
    model.fit(x[:160], y[:160], epochs=12, verbose=0)
    val = x[160:], y[160:]
    dense = edit_distance(val[1], model.predict(val[0], verbose=0))
    assert dense < 0.5  # it has learnt something
    result = compress(model, (x[:160], y[:160]), val, 0.2, metric=edit_distance, **QUICK)
    measured = result.metrics["edit_distance"]
    assert measured["mode"] == "min" and measured["dense"] == pytest.approx(dense)
    assert measured["value"] == pytest.approx(edit_distance(val[1], result.lite(val[0])))
    assert result.within_bound and result.parameters < 1
    assert result.outputs[0].accuracy is None and result.outputs[0].groups == ()
    checked = verify(model, result.lite, *val, metric=edit_distance)
    assert checked.metrics["edit_distance"] == pytest.approx((dense, measured["value"]))
    with pytest.raises(PruningError, match=r"The labels of output 'letters' have shape .*, which fits neither"):
        verify(model, result.lite, *val)


def test_a_recommender_keeps_its_area_under_the_curve():
    keras.utils.set_random_seed(0)
    x = {"user": RANDOM.integers(0, 40, 400), "item": RANDOM.integers(0, 60, 400)}
    y = (x["user"] % 4 + x["item"] % 6 > 4).astype("float32")
    user, item = keras.Input((), dtype="int32", name="user"), keras.Input((), dtype="int32", name="item")
    pair = L.Concatenate()([L.Embedding(40, 8, name="users")(user), L.Embedding(60, 8, name="items")(item)])
    model = keras.Model({"user": user, "item": item}, L.Dense(1, "sigmoid")(L.Dense(16, "relu")(pair)))
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    train, val = ((keras.tree.map_structure(lambda a, p=p: a[p], x), y[p]) for p in (slice(300), slice(300, 400)))
    model.fit(*train, epochs=8, verbose=0)
    result = compress(model, train, val, 0.1, **QUICK)
    auc = keras.metrics.AUC()
    auc.update_state(val[1][:, None], result.lite(val[0]))
    assert result.within_bound and result.parameters < 1
    assert result.metrics["auc"]["value"] == pytest.approx(float(auc.result()), abs=1e-6)


def test_of_two_files_within_the_bound_the_smaller_is_taken_where_training_in_int8_leaves_floats():
    keras.utils.set_random_seed(0)
    x = (np.cumsum(RANDOM.integers(1, 3, (300, 8)), axis=1) % 12).astype("int32")
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    z = L.Embedding(12, 16)(tokens)
    z = L.Dense(64, activation="relu")(L.LayerNormalization()(z))
    model = keras.Model(tokens, L.Dense(12, name="next")(z))
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:200, :-1], x[:200, 1:], epochs=4, verbose=0)
    result = compress(model, (x[:200, :-1], x[:200, 1:]), (x[200:, :-1], x[200:, 1:]), "60%", **QUICK)
    assert result.within_bound and result.parameters < 1
    assert not any(operator.is_float for operator in result.lite.operators)
    files = [step.name for step in result.steps if step.name.startswith("int8 file")]
    assert files[0] == "int8 file of 'int8 training'" and len(files) > 1
    assert result.lite.size < convert(result.model).size


def test_a_generator_is_judged_by_its_outputs_alone():
    keras.utils.set_random_seed(0)
    noise = RANDOM.normal(size=(200, 6)).astype("float32")
    inputs = keras.Input((6,))
    image = L.Reshape((4, 4, 4))(L.Dense(64, activation="relu")(inputs))
    model = keras.Model(inputs, L.Conv2DTranspose(1, 3, 2, padding="same", activation="tanh", name="image")(image))

    def spread_error(targets, outputs):
        assert targets is None
        return abs(float(outputs.std(axis=0).mean()) - spread)

    spread = float(model.predict(noise[150:], verbose=0).std(axis=0).mean())
    result = compress(model, noise[:150], noise[150:], 0.5 * spread, metric=spread_error, **QUICK)
    assert not model.compiled and result.within_bound and result.parameters < 1
    assert result.metrics["spread_error"]["dense"] == pytest.approx(0.0, abs=1e-5)
    assert result.metrics["spread_error"]["value"] == pytest.approx(spread_error(None, result.lite(noise[150:])))
