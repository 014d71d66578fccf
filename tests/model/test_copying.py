import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.errors import PruningError
from tfprune.model.copying import clone_with_weights, compile_like, copy_model, fresh_layer
from tfprune.model.prunable import every_weight
from tfprune.model.tree import as_array, places


def dense_model(**compile_arguments):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="one"), layers.Dense(2, name="two")], name="net")
    if compile_arguments:
        model.compile(**compile_arguments)
    return model


DATA = np.ones((4, 4), np.float32), np.zeros((4, 2), np.float32)


@keras.saving.register_keras_serializable(package="tfprune_tests")
class Plain(keras.Model):
    """A subclassed model that Keras can build again."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units, name="dense")

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def shared(model):
    x = keras.Input((4,))
    dense = layers.Dense(4, name="shared")
    return keras.Model(x, layers.Dense(2, name="head")(dense(dense(x)) + keras.ops.relu(x)))


def sequential_without_input(model):
    late = keras.Sequential([layers.Dense(3), layers.Dense(2)])
    late(np.zeros((1, 4), np.float32))
    return late


def nested(model):
    return keras.Sequential([keras.Input((4,)), keras.Sequential([layers.Dense(4)]), layers.Dense(2)])


def subclassed(model):
    plain = Plain(2)
    plain.build((None, 4))
    return plain


def residual(model):
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(2)(layers.BatchNormalization()(x) + layers.Dropout(0.5)(x)))


@pytest.mark.parametrize("make", [shared, sequential_without_input, nested, subclassed, residual])
def test_a_clone_answers_alike_and_shares_nothing(make):
    model = make(None)
    copy = clone_with_weights(model)
    assert not {id(v) for v in model.variables} & {id(v) for v in copy.variables}
    assert not {id(place.layer) for place in places(model)} & {id(place.layer) for place in places(copy)}
    assert [weight.key for weight in every_weight(model)] == [weight.key for weight in every_weight(copy)]
    before = model.predict(DATA[0], verbose=0)
    assert (copy.predict(DATA[0], verbose=0) == before).all()
    for variable in copy.trainable_variables:
        variable.assign_add(np.ones(variable.shape))
    assert (model.predict(DATA[0], verbose=0) == before).all()


def test_layers_can_be_exchanged_on_the_way():
    def wider(layer):
        return layers.Dense(7, name=layer.name) if layer.name == "one" else fresh_layer(layer)

    copy = copy_model(dense_model(), wider)
    assert [tuple(weight.shape) for weight in copy.weights] == [(4, 7), (7,), (7, 2), (2,)]


def own_loss(y, p):
    return keras.ops.mean(keras.ops.square(y - p), axis=-1)


class OwnLoss(keras.losses.Loss):
    def call(self, y, p):
        return own_loss(y, p)


class OwnRate(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate):
        self.rate = rate

    def __call__(self, step):
        return self.rate

    def get_config(self):
        return {"rate": self.rate}


class OwnOptimizer(keras.optimizers.SGD):
    pass


COMPILED = {
    "by name": {"optimizer": "adam", "loss": "mse", "metrics": ["mae"]},
    "function": {"optimizer": "sgd", "loss": own_loss, "metrics": [own_loss]},
    "lambda": {"optimizer": "sgd", "loss": lambda y, p: own_loss(p, y), "weighted_metrics": [own_loss]},
    "object": {"optimizer": OwnOptimizer(0.25), "loss": OwnLoss(), "metrics": [keras.metrics.MeanSquaredError()]},
    "own schedule": {"optimizer": keras.optimizers.SGD(OwnRate(0.25)), "loss": "mse"},
    "settings": {"optimizer": "sgd", "loss": "mse", "jit_compile": False, "steps_per_execution": 2},
    "scaled": {"optimizer": keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(OwnRate(0.25))), "loss": "mse"},
}


@pytest.mark.parametrize("arguments", COMPILED.values(), ids=COMPILED)
@pytest.mark.filterwarnings("error")
def test_compile_settings_are_copied_whether_registered_or_not(arguments):
    # Reads Keras' private record of the arguments of compile(): fails when Keras moves it.
    model = dense_model(**arguments)
    copy = clone_with_weights(model)
    assert model.compiled and copy.compiled
    assert type(copy.optimizer) is type(model.optimizer) and copy.optimizer is not model.optimizer
    assert float(copy.optimizer.learning_rate) == float(model.optimizer.learning_rate)
    assert copy.loss is model.loss
    assert copy.jit_compile == model.jit_compile and copy.steps_per_execution == model.steps_per_execution
    assert not {id(v) for v in model.optimizer.variables} & {id(v) for v in copy.optimizer.variables}


def test_a_copied_model_trains_and_its_metrics_are_its_own():
    model = dense_model(
        optimizer="sgd", loss=own_loss, metrics=[keras.metrics.MeanSquaredError(name="error"), own_loss]
    )
    copy = clone_with_weights(model)
    weights = [as_array(weight) for weight in model.weights]
    history = copy.fit(*DATA, verbose=0).history
    assert set(history) == {"loss", "error", "own_loss"}
    assert not {id(v) for m in model.metrics for v in m.variables} & {id(v) for m in copy.metrics for v in m.variables}
    assert all((a == as_array(b)).all() for a, b in zip(weights, model.weights))


def test_metrics_by_output_are_copied():
    x = keras.Input((4,))
    model = keras.Model(x, {"a": layers.Dense(2, name="a")(x), "b": layers.Dense(1, name="b")(x)})
    model.compile(
        "sgd", loss={"a": own_loss, "b": "mse"}, metrics={"a": [keras.metrics.MeanSquaredError()], "b": ["mae"]}
    )
    copy = clone_with_weights(model)
    logs = copy.evaluate(DATA[0], {"a": DATA[1], "b": DATA[1][:, :1]}, return_dict=True, verbose=0)
    assert {"a_mean_squared_error", "b_mae"} < set(logs)


def test_the_present_learning_rate_is_copied():
    model = dense_model(optimizer="sgd", loss="mse")
    model.optimizer.learning_rate = 0.125
    assert float(clone_with_weights(model).optimizer.learning_rate) == 0.125


def test_mixed_precision_scales_the_loss_once(policy):
    policy("mixed_float16")
    model = dense_model(optimizer="sgd", loss="mse")
    copy = clone_with_weights(model)
    assert isinstance(copy.optimizer, keras.optimizers.LossScaleOptimizer)
    assert type(copy.optimizer.inner_optimizer) is keras.optimizers.SGD


def test_a_copy_need_not_be_compiled():
    model = dense_model(optimizer="sgd", loss="mse")
    assert not clone_with_weights(model, keep_compiled=False).compiled and model.compiled
    assert not clone_with_weights(dense_model()).compiled


def test_a_model_that_does_its_own_training_keeps_its_class():
    class Own(keras.Model):
        def train_step(self, data):
            return {"mine": 1.0}

    x = keras.Input((4,))
    model = Own(x, layers.Dense(2)(x))
    model.compile("sgd", loss="mse")
    assert clone_with_weights(model).fit(*DATA, verbose=0).history == {"mine": [1.0]}


def test_a_model_that_does_its_own_compiling_says_how():
    class OwnCompile(keras.Model):
        def compile(self, rate):
            super().compile(keras.optimizers.SGD(rate), loss="mse")
            self.rate = rate

        def get_compile_config(self):
            return {"rate": self.rate}

        def compile_from_config(self, config):
            self.compile(**config)

    x = keras.Input((4,))
    model = OwnCompile(x, layers.Dense(2)(x))
    model.compile(rate=0.25)
    copy = clone_with_weights(model)
    assert copy.compiled and copy.rate == 0.25 and copy.optimizer is not model.optimizer


class Defaults(keras.Model):
    """Fills in what Keras' `compile` takes, as the tasks of KerasHub do."""

    def compile(self, optimizer="auto", loss="auto", *, metrics="auto", **kwargs):
        super().compile(
            optimizer=keras.optimizers.SGD(0.25) if optimizer == "auto" else optimizer,
            loss=own_loss if loss == "auto" else loss,
            metrics=["mae"] if metrics == "auto" else metrics,
            **kwargs,
        )


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_class_that_fills_in_what_compile_takes_is_compiled_as_it_was():
    x = keras.Input((4,))
    model = Defaults(x, layers.Dense(2)(layers.Dense(4, activation="relu")(x)))
    model.compile(loss=OwnLoss(), jit_compile=False)
    for made in (clone_with_weights(model), tfprune.shrink(model, tfprune.plan_shrink(model, tfprune.Structured(0.5)))):
        assert type(made) is Defaults and made.compiled and made.loss is model.loss and made.jit_compile is False
        assert float(made.optimizer.learning_rate) == 0.25 and made.optimizer is not model.optimizer
        assert set(made.fit(*DATA, verbose=0).history) == {"loss", "mae"}


def test_the_smaller_model_of_a_class_that_cannot_be_built_again_is_compiled_as_it_was():
    class Task(Defaults):
        def __init__(self):
            x = keras.Input((4,))
            super().__init__(x, layers.Dense(2)(layers.Dense(4, activation="relu")(x)))

    model = Task()
    model.compile()  # a function that is not registered, which no config tells
    with pytest.warns(UserWarning, match="a plain keras.Model, without the methods of that class"):
        small = tfprune.shrink(model, tfprune.plan_shrink(model, tfprune.Structured(0.5)))
    assert not isinstance(small, Task) and small.loss is own_loss
    assert set(small.fit(*DATA, verbose=0).history) == {"loss", "mae"}


def test_a_compile_with_arguments_of_its_own_is_left_to_its_class():
    class Weighed(keras.Model):
        def compile(self, optimizer, loss, weight=1.0):
            super().compile(optimizer, loss)
            self.weight_of_the_loss = weight

    x = keras.Input((4,))
    model = Weighed(x, layers.Dense(2)(x))
    model.compile("sgd", "mse", weight=0.5)
    with pytest.warns(UserWarning, match="custom"):  # in Keras' own words
        assert not clone_with_weights(model).compiled


class Ready(keras.Model):
    """A functional model whose class makes its own layers."""

    def __init__(self, units, **kwargs):
        x = keras.Input((4,))
        super().__init__(x, layers.Dense(units, name="dense")(x), **kwargs)
        self.units = units


def test_a_class_that_makes_its_own_layers_is_built_again_where_its_config_allows():
    class WithConfig(Ready):
        def get_config(self):
            return {"units": self.units, "name": self.name}

    copy = clone_with_weights(WithConfig(3))
    assert type(copy) is WithConfig and copy.units == 3


def test_a_class_that_makes_its_own_layers_without_config_is_copied_as_a_plain_model_and_told():
    model = Ready(3, name="ready")
    with pytest.warns(UserWarning, match="'ready' is of class Ready, but its copy is a plain functional model"):
        copy = clone_with_weights(model)
    assert (copy.predict(DATA[0], verbose=0) == model.predict(DATA[0], verbose=0)).all()


def test_compile_settings_that_cannot_be_built_again_say_so():
    class Needy(keras.metrics.MeanSquaredError):
        def __init__(self, weight):
            super().__init__()

    model = dense_model(optimizer="sgd", loss="mse", metrics=[Needy(3)])
    with pytest.raises(PruningError, match=r"compile settings of 'net' cannot be copied .*Needy.* get_config\(\)"):
        compile_like(model, dense_model())
    assert model.compiled


def test_subclassed_models_cannot_exchange_layers():
    with pytest.raises(PruningError, match=r"subclassed model \(Plain\) whose layers cannot be exchanged. Prune it"):
        copy_model(subclassed(None), fresh_layer)


def test_subclassed_models_without_config_are_copied_part_by_part():
    class Bare(keras.Model):
        def __init__(self, units):
            super().__init__(name="bare")
            self.dense = layers.Dense(units)

        def call(self, x):
            return self.dense(x)

    model = Bare(3)
    model(DATA[0])
    copy = clone_with_weights(model)
    assert type(copy) is Bare and copy.dense is not model.dense
    assert (copy.predict(DATA[0], verbose=0) == model.predict(DATA[0], verbose=0)).all()


def test_subclassed_models_whose_config_forgets_an_argument_are_copied_part_by_part():
    class Forgetful(keras.Model):
        def __init__(self, depth=1, **kwargs):
            super().__init__(**kwargs)
            self.steps = [layers.Dense(4) for _ in range(depth)]

        def build(self, shape):
            for step in self.steps:
                step.build(shape)
            self.built = True

        def call(self, x):
            for step in self.steps:
                x = step(x)
            return x

        def get_config(self):
            return {"name": self.name}

    model = Forgetful(depth=2)
    model.build((None, 4))
    copy = clone_with_weights(model)
    assert type(copy) is Forgetful and len(copy.steps) == 2
    for old, new in zip(model.weights, copy.weights, strict=True):
        assert old is not new and (np.asarray(old) == np.asarray(new)).all()


def test_a_variable_that_took_the_place_of_its_argument_is_told_by_its_value():
    class Scaled(keras.Layer):
        def __init__(self, factor, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def build(self, shape):
            self.factor = self.add_weight(shape=(), initializer=keras.initializers.Constant(self.factor))

        def call(self, x):
            return x * self.factor

        def get_config(self):
            return {**super().get_config(), "factor": self.factor}

    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2)(Scaled(0.25)(layers.Dense(4, activation="relu")(x))))
    copy = clone_with_weights(model)
    assert len(copy.weights) == len(model.weights) == 5
    assert copy.layers[2].factor is not model.layers[2].factor
    assert len(tfprune.inline(model).weights) == 5
