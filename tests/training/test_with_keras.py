"""Every callback and the wrapper beside what Keras brings: right, or refused with the line to write."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from ways import WAYS, X, Y, every_way, network, prepared, trained, values, zeros

import tfprune
from tfprune.errors import PruningError

pytestmark = pytest.mark.usefixtures("collected_quickly")


class Worse(keras.callbacks.Callback):
    """Every epoch is worse than the one before, so the dense ones look best."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_score"] = -float(epoch)


BOTH_ORDERS = ("percentile", "structured", "rigl", "wrapper")


@pytest.mark.parametrize(("way", "last"), [*((way, True) for way in WAYS), *((way, False) for way in BOTH_ORDERS)])
def test_the_best_epoch_is_among_those_at_the_target_and_comes_back_with_its_masks(way, last, tmp_path):
    model, pruning = prepared(way)
    seen, masks = [], []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: (seen.append(values(model)), masks.append(tfprune.get_masks(model)))
    )
    best = {"monitor": "val_score", "mode": "max"}
    stop = keras.callbacks.EarlyStopping(**best, patience=2, restore_best_weights=True)
    saver = keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), **best, save_best_only=True)
    weights = keras.callbacks.ModelCheckpoint(
        str(tmp_path / "best.weights.h5"), **best, save_best_only=True, save_weights_only=True
    )
    keras_own = [stop, saver, weights]
    history = trained(model, [Worse(), *([*keras_own, pruning] if last else [pruning, *keras_own]), look], 10)
    first = {"iterative": 6, "rigl": 0, "threshold": stop.best_epoch}.get(way, 7)
    assert (stop.best_epoch, stop.stopped_epoch, stop.start_from_epoch) == (first, first + 2, 0)
    for now, then in zip(model.weights, seen[first], strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(now), then)
    for key, mask in tfprune.get_masks(model).items():
        np.testing.assert_array_equal(mask, masks[first][key])
    target = history.history["sparsity"][first]
    assert target == pytest.approx(history.history["sparsity"][-1])
    # No warning: pyproject.toml makes it an error that weights had to be zeroed.
    assert tfprune.summary(tfprune.strip_masks(model)).sparsity == pytest.approx(target)
    loaded = keras.models.load_model(tmp_path / "best.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    trained(model, [], 1)  # the masks that hold now are those of the best epoch
    assert zeros(model) == {key: np.count_nonzero(~mask) for key, mask in masks[first].items() if "kernel" in key}
    model.load_weights(tmp_path / "best.weights.h5")
    np.testing.assert_array_equal(tfprune.strip_masks(model).predict(X, verbose=0), loaded.predict(X, verbose=0))


def test_a_plateau_is_looked_for_from_the_target_on():
    plateau = keras.callbacks.ReduceLROnPlateau("val_score", mode="max", factor=0.5, patience=1)
    rates = trained(network(), [Worse(), plateau, tfprune.PercentilePruning(0.5)], 10).history["learning_rate"]
    assert rates[:8] == pytest.approx([0.05] * 8)
    assert rates[-1] < 0.03


def test_a_checkpoint_with_a_best_of_before_is_told(tmp_path, capsys):
    saver = keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), monitor="loss", save_best_only=True)
    model = network()
    trained(model, [saver])
    model.fit(X, Y, verbose=2, callbacks=[saver, tfprune.PercentilePruning(0.5)])
    assert "ModelCheckpoint begins with loss=" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["percentile", "wrapper"])
def test_weights_that_a_callback_of_ones_own_brings_back_keep_their_zeros(way):
    model, pruning = prepared(way)
    seen = []

    class Back(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(model.get_weights())

        def on_train_end(self, logs=None):
            model.set_weights(seen[1])

    with pytest.warns(UserWarning, match=r"those of epoch 2, and so are their masks.*EarlyStopping"):
        trained(model, [Back(), pruning], 5)
    for now, then in zip(model.get_weights(), seen[1], strict=True):
        np.testing.assert_array_equal(now, then)
    trained(model, [], 1)
    kernels = [weight for weight in seen[1] if weight.ndim == 2 and weight.dtype != bool]
    assert sum(zeros(model).values()) == sum(np.count_nonzero(kernel == 0) for kernel in kernels)


@every_way
def test_frozen_weights_are_left_alone_and_listed(way, capsys):
    model = network()
    model.get_layer("hidden").trainable = False
    model.compile("sgd", "mse")
    before = model.get_layer("hidden").get_weights()
    if way == "structured":  # the channels are made by the frozen layer
        with pytest.raises(PruningError, match=r"do not train \('hidden/kernel'\).*tfprune.prune\(model, method\)"):
            trained(model, [WAYS[way]()])
        return
    model, pruning = prepared(way, model)
    model.fit(X, Y, batch_size=4, epochs=3, verbose=2, callbacks=[pruning])
    assert pruning.left_alone == ["hidden/kernel"]
    assert "'hidden/kernel' left alone, for they do not train" in capsys.readouterr().out
    plain = tfprune.strip_masks(model)
    for now, then in zip(plain.get_layer("hidden").get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert set(zeros(plain)) == {"head/kernel"}


def test_frozen_weights_that_are_named_are_pruned_and_at_once_all_are():
    model = network()
    model.get_layer("hidden").trainable = False
    model.compile("sgd", "mse")
    assert zeros(tfprune.prune(model, tfprune.Percentile(0.5, allocation="uniform")))["hidden/kernel"] == 24
    trained(model, [tfprune.PercentilePruning(0.5, layers=["hidden"])])
    assert zeros(model) == {"hidden/kernel": 24}


def test_a_layer_frozen_after_it_was_wrapped_keeps_its_masks():
    model = tfprune.wrap(network(), tfprune.Percentile(0.5, allocation="uniform"))
    model.get_layer("hidden").trainable = False
    model.compile("sgd", "mse")
    pruning = tfprune.UpdateMasks()
    trained(model, [pruning])
    assert pruning.left_alone == ["hidden/kernel"]
    assert zeros(tfprune.strip_masks(model)) == {"head/kernel": 12}
    trained(model, [])


@pytest.mark.skipif(not hasattr(keras, "distillation"), reason="Keras has a Distiller from 3.12 on")
@every_way
def test_a_distiller_prunes_the_student_alone(way):
    teacher = network()
    student, pruning = prepared(way)
    before = values(teacher)
    distiller = keras.distillation.Distiller(
        teacher, student, distillation_losses=keras.distillation.LogitsDistillation()
    )
    distiller.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
    history = trained(distiller, [pruning]).history
    for now, then in zip(teacher.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(now), then)
    assert tfprune.summary(tfprune.strip_masks(student)).sparsity == pytest.approx(history["sparsity"][-1])
    assert history["sparsity"][-1] > 0.2


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@every_way
def test_a_quantized_model_is_refused_and_keeps_its_zeros_when_quantized_after(way):
    model, pruning = prepared(way)
    trained(model, [pruning])
    plain = tfprune.strip_masks(model)
    before = tfprune.summary(plain)
    plain.quantize("int8")
    after = tfprune.summary(plain)
    assert after.sparsity >= before.sparsity  # what rounds to zero comes on top
    assert [row["shape"] for row in after.rows()] == ["6x8", "8x3"]
    with pytest.raises(PruningError, match=r"'hidden/kernel', 'head/kernel' in integers.*plain.quantize"):
        again, pruning = prepared(way, plain)
        trained(again, [pruning])


@every_way
def test_lora_is_left_alone_and_counted_in_effect(way):
    model = network()
    model.get_layer("head").enable_lora(2)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    if way == "structured":
        with pytest.raises(PruningError, match=r"LoRA adds to 'head/kernel'.*merged.weights.h5"):
            trained(model, [WAYS[way]()])
        return
    model, pruning = prepared(way, model)
    trained(model, [pruning])
    assert pruning.left_alone == ["head/kernel"]
    found = {row["layer"]: row["zeros"] for row in tfprune.summary(model).rows()}
    assert found["head"] == 0 and found["hidden"] > 0


def test_lora_on_zeros_is_no_zeros_and_merging_is_the_way_out(tmp_path):
    pruned = tfprune.strip_masks(tfprune.prune(network(), tfprune.Percentile(0.9, allocation="uniform")))
    pruned.get_layer("hidden").enable_lora(2)
    pruned.compile(keras.optimizers.Adam(0.05), "mse")
    trained(pruned, [])
    layer = pruned.get_layer("hidden")
    found = tfprune.summary(pruned).rows()[0]["zeros"]
    assert found == np.count_nonzero(keras.ops.convert_to_numpy(layer.kernel) == 0) < 43
    assert 48 - np.count_nonzero(tfprune.get_masks(pruned)["hidden/kernel"]) == found
    assert "what LoRA adds" in str(tfprune.summary(pruned))
    masks = {"hidden/kernel": np.ones((6, 8), bool)}
    named = tfprune.PercentilePruning(0.5, layers=["hidden"])
    for refused in (
        lambda: tfprune.prune(pruned, 0.5),
        lambda: tfprune.apply_masks(pruned, masks),
        lambda: trained(pruned, [named]),
    ):
        with pytest.raises(PruningError, match=r"LoRA adds to 'hidden/kernel'.*without enable_lora"):
            refused()
    pruned.save_weights(tmp_path / "merged.weights.h5")
    fresh = network()
    fresh.load_weights(tmp_path / "merged.weights.h5")
    np.testing.assert_allclose(fresh.predict(X, verbose=0), pruned.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
    assert sum(zeros(tfprune.prune(fresh, 0.5)).values()) == 36


def step_of(model, optimizer):
    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    return step


@every_way
def test_masks_hold_in_a_step_that_was_traced_before(way):
    model, pruning = prepared(way)
    step = step_of(model, model.optimizer)
    if way != "wrapper":  # which does not train before something decides its masks
        step(X[:4], Y[:4])
    callbacks = keras.callbacks.CallbackList([pruning], model=model, epochs=2, steps=4, verbose=0)
    callbacks.on_train_begin()
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        for batch in range(4):
            callbacks.on_train_batch_begin(batch)
            step(X[:4], Y[:4])
        callbacks.on_epoch_end(epoch, {})
    callbacks.on_train_end()
    before = tfprune.get_masks(model)
    for _ in range(3):
        step(X[:4], Y[:4])
    plain = tfprune.strip_masks(model)  # would say that values were under the masks
    assert sum(zeros(plain).values()) >= sum(np.count_nonzero(~m) for key, m in before.items() if "kernel" in key) > 0


def test_applied_masks_hold_in_a_step_that_was_traced_before():
    model = network()
    model.optimizer = None
    step = step_of(model, keras.optimizers.Adam(0.05))
    step(X, Y)
    masks = tfprune.get_masks(tfprune.prune(model, 0.5))
    tfprune.apply_masks(model, masks)
    for _ in range(3):
        step(X, Y)
    assert sum(zeros(tfprune.strip_masks(model)).values()) == 36


@pytest.mark.parametrize("way", ["rigl", "proximal", "movement"])
def test_a_loop_whose_model_has_no_optimizer_is_told_to_compile(way):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.Dense(3)])
    callbacks = keras.callbacks.CallbackList([WAYS[way]()], model=model, epochs=2, steps=4)
    with pytest.raises(PruningError, match=r"model\.compile\(optimizer\)"):
        callbacks.on_train_begin()


class GAN(keras.Model):
    """Two networks that train against each other in one `train_step`."""

    def __init__(self, generator, judge):
        super().__init__()
        self.generator, self.judge = generator, judge
        self.judge_optimizer = keras.optimizers.Adam(0.01)

    def call(self, noise):
        return self.judge(self.generator(noise))

    def train_step(self, data):
        noise, real = data
        with tf.GradientTape(persistent=True) as tape:
            made = self.judge(self.generator(noise, training=True), training=True)
            judged = self.judge(real, training=True)
            loss = tf.reduce_mean((made - 1.0) ** 2)
            judge_loss = tf.reduce_mean(made**2) + tf.reduce_mean((judged - 1.0) ** 2)
        for part, of, optimizer in (
            (self.generator, loss, self.optimizer),
            (self.judge, judge_loss, self.judge_optimizer),
        ):
            optimizer.apply_gradients(zip(tape.gradient(of, part.trainable_variables), part.trainable_variables))
        return {"loss": loss}


@every_way
def test_of_a_gan_the_generator_is_pruned(way):
    generator, pruning = prepared(way)
    judge = keras.Sequential([keras.Input((3,)), layers.Dense(8, activation="relu"), layers.Dense(1)])
    if way != "wrapper":
        pruning.method = pruning.method.with_arguments(layers=["generator"])
    generator.name = "generator"
    gan = GAN(generator, judge)
    gan.build((None, 6))
    gan.compile(keras.optimizers.SGD(0.05))
    sparsity = trained(gan, [pruning]).history["sparsity"][-1]
    assert sparsity > 0.2
    if way == "structured":  # channels of the generator's result go with the inputs of the judge that listen to them
        assert len(zeros(judge)) == 1
        return
    assert zeros(judge) == {}
    assert tfprune.summary(tfprune.strip_masks(generator)).sparsity == pytest.approx(sparsity)


@every_way
def test_a_loaded_model_full_of_zeros_is_told_and_held_by_the_line(way):
    def loaded():
        return tfprune.strip_masks(tfprune.prune(network(), 0.75))

    model, pruning = prepared(way, loaded())
    with pytest.warns(UserWarning, match=r"75% of the weights.*tfprune.apply_masks\(model, tfprune.get_masks\(model\)"):
        trained(model, [pruning], 1)
    model, pruning = prepared(way, loaded())
    before = tfprune.get_masks(loaded())
    tfprune.apply_masks(model, tfprune.get_masks(model))
    if way in ("percentile", "wrapper"):  # a target above what is held: nothing comes back on the way
        pruning = tfprune.UpdateMasks() if way == "wrapper" else tfprune.PercentilePruning(0.8)
        if way == "wrapper":
            model = tfprune.wrap(loaded(), tfprune.Percentile(0.8))
            tfprune.apply_masks(model, tfprune.get_masks(model))
        trained(model, [pruning], 1)
        for key, mask in tfprune.get_masks(model).items():
            assert not np.any(mask & ~before[key])
