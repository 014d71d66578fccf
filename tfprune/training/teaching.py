"""Learning from another model: a student that trains on its own loss and on the answers of a teacher, in `fit`."""

from collections.abc import Iterable
from typing import Any

import keras

from tfprune.errors import PruningError, listing, nearest, number
from tfprune.model.copying import clone_with_weights, scope_of
from tfprune.model.graph import is_graph
from tfprune.model.hooks import compile_arguments
from tfprune.model.judge import decision_of
from tfprune.model.signature import flat_outputs, output_names

ops = keras.ops


def distill(
    student: keras.Model,
    teacher: keras.Model,
    share: float = 0.5,
    temperature: float = 3.0,
    features: Any = (),
    relations: bool = False,
) -> keras.Model:
    """Lets a student learn from a teacher too: gives the model whose `fit` trains the student, callbacks included.

    Classes are taught by their probabilities at a temperature, probabilities of yes or no by their cross-entropy, and
    other values, logits among them, by their squared difference over the variance of the teacher's. It takes models of
    several outputs, and data without targets, from which the student learns by the teacher's answers alone.

    Args:
        student: A compiled model, which is trained; its loss is the one on the targets.
        teacher: A model of the same inputs and outputs; it is left as it is.
        share: How much of the loss is that on the targets, in [0, 1]; the rest is the teacher's. Defaults to 0.5.
        temperature: By which the logits of classes are divided, above 0. Defaults to 3.
        features: Names of layers whose results are taught too, each the same in both models, or pairs `(student's,
            teacher's)`. Results of equal shape by their difference, those with fewer channels by where they are large.
            Defaults to none.
        relations: Whether the distances between the samples of a batch are taught too, of the features where there are
            any, else of the outputs. Defaults to False.

    Returns:
        A compiled Keras model: `.fit(x, y, callbacks=[tfprune.PercentilePruning(0.9)])` prunes and trains `student` in
        place.

    Raises:
        PruningError: The student is not compiled, the two models differ in inputs or outputs, a layer is not there, or
            a number is out of its range.

    References:
        Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; Zagoruyko and Komodakis, "Paying More
        Attention to Attention", 2017; Park et al., "Relational Knowledge Distillation", 2019.

    Example:
        student = tfprune.shrink(model, tfprune.plan_shrink(model, tfprune.Structured(0.5)))
        tfprune.distill(student, teacher=model).fit(x, y, epochs=2, callbacks=[tfprune.PercentilePruning(0.8)])
    """
    if not student.compiled or student.optimizer is None:
        raise PruningError(
            f"The student '{student.name}' is not compiled, and distill trains it; compile it with optimizer and loss."
        )
    share = number("share", share, 0, 1)
    if not number("temperature", temperature, write="3.0") > 0.0:
        raise PruningError(f"temperature={temperature!r}: give a number above 0, such as 3.0.")
    _check_ends(student, teacher)
    with scope_of(student):
        copy = clone_with_weights(teacher, keep_compiled=False)
        return Taught(student, copy, share, temperature, features, relations).compiled_as(student)


class Taught(keras.Model):
    """A student with its teacher, which is frozen; see `distill`. Only the student trains."""

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        share: float = 0.5,
        temperature: float = 3.0,
        features: Any = (),
        relations: bool = False,
    ):
        super().__init__(name=f"{student.name}_taught")
        self.student, self.teacher = student, teacher
        self.teacher.trainable = False
        self.share, self.temperature, self.relations = share, temperature, relations
        self._pairs = [(each, each) if isinstance(each, str) else tuple(each) for each in features]
        self._watched = _watching(student, [first for first, _ in self._pairs])
        self._shown = _watching(self.teacher, [second for _, second in self._pairs])
        self._seen: list[Any] = []

    def compiled_as(self, model: keras.Model) -> "Taught":
        """This model, compiled with the student's optimizer, to run as another model is compiled to run."""
        given = compile_arguments(model)
        kept = {name: given[name] for name in ("jit_compile", "run_eagerly", "steps_per_execution") if name in given}
        self.compile(optimizer=self.student.optimizer, auto_scale_loss=False, **kept)
        return self

    def build(self, input_shape: Any = None) -> None:
        """Nothing is left to build."""
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The student's answers."""
        outputs, self._seen = _run(self._watched, self.student, inputs, training)
        return outputs

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The student's own loss and its distance from the teacher, as shares; without targets the distance alone."""
        answers, shown = _run(self._shown, self.teacher, x, False)
        return self.joint_loss((x, y, y_pred, sample_weight), answers, shown, training)

    def joint_loss(self, batch: tuple[Any, Any, Any, Any], answers: Any, shown: Any = (), training: bool = True) -> Any:
        """The loss where the teacher's answers to a batch are known.

        Args:
            batch: Inputs, targets, the student's answers and the sample weights.
            answers: The teacher's.
            shown: What its watched layers gave.
            training: Whether the student trains.
        """
        x, y, y_pred, sample_weight = batch
        distance = self._distance(answers, y_pred)
        for mine, theirs in zip(self._seen, shown):
            distance += feature_distance(theirs, mine)
        if self.relations:
            known = zip(shown, self._seen) if self._pairs else zip(flat_outputs(answers), flat_outputs(y_pred))
            distance += sum(relation_distance(theirs, mine) for theirs, mine in known)
        # Replicas add up their gradients, each of the mean over its share of the batch; losses of Keras do the same.
        replicas = self.distribute_strategy.num_replicas_in_sync
        distance = distance / replicas
        if y is None:
            return distance + sum((ops.sum(loss) for loss in self.student.losses), 0.0) / replicas
        own = self.student.compute_loss(x, y, y_pred, sample_weight, training=training)
        return self.share * own + (1.0 - self.share) * distance

    def _distance(self, answers: Any, outputs: Any) -> Any:
        names = output_names(self.student, outputs)
        pairs = zip(names, flat_outputs(answers), flat_outputs(outputs))
        return sum(
            output_distance(self.kind_of(name if len(names) > 1 else ""), theirs, mine, self.temperature)
            for name, theirs, mine in pairs
        )

    def kind_of(self, name: str) -> str:
        """What an output decides, by which its distance is measured; see `output_distance`."""
        return decision_of(self.teacher, name)


def output_distance(kind: str, teacher: Any, student: Any, temperature: float) -> Any:
    """How far the answers of a student are from its teacher's.

    Args:
        kind: What the output decides: `"class"` for probabilities of classes, `"logits"` for their logits, `"binary"`
            for probabilities of yes, else values.
        teacher, student: The answers.
        temperature: Of classes.
    """
    teacher, student = ops.cast(teacher, "float32"), ops.cast(student, "float32")
    least = keras.config.epsilon()
    if kind == "class" and teacher.shape[-1] != 1:
        kind, teacher, student = "logits", *(ops.log(ops.maximum(each, least)) for each in (teacher, student))
    if kind == "logits":
        wanted, given = (ops.log_softmax(each / temperature) for each in (teacher, student))
        return temperature**2 * ops.mean(ops.sum(ops.exp(wanted) * (wanted - given), axis=-1))
    if kind == "binary":
        return ops.mean(keras.losses.binary_crossentropy(teacher, student))
    return ops.mean(ops.square(teacher - student)) / ops.maximum(ops.var(teacher), least)


def feature_distance(teacher: Any, student: Any) -> Any:
    """How far the results of a layer are from the teacher's; with fewer channels, where they are large."""
    teacher, student = ops.cast(teacher, "float32"), ops.cast(student, "float32")
    if tuple(teacher.shape[1:]) == tuple(student.shape[1:]):
        return ops.mean(ops.square(teacher - student)) / ops.maximum(ops.var(teacher), keras.config.epsilon())
    if len(teacher.shape) < 3 or tuple(teacher.shape[1:-1]) != tuple(student.shape[1:-1]):
        return relation_distance(teacher, student)  # samples are all that both have in common

    def attention(values: Any) -> Any:
        energy = ops.mean(ops.square(values), axis=-1)
        return ops.normalize(ops.reshape(energy, (ops.shape(energy)[0], -1)), axis=-1)

    return ops.mean(ops.sum(ops.square(attention(teacher) - attention(student)), axis=-1))


def relation_distance(teacher: Any, student: Any) -> Any:
    """How far the distances between the samples of a batch, over their mean, are from the teacher's."""

    def distances(values: Any) -> Any:
        rows = ops.reshape(ops.cast(values, "float32"), (ops.shape(values)[0], -1))
        squares = ops.sum(ops.square(rows), axis=-1)
        apart = squares[:, None] + squares[None, :] - 2.0 * ops.matmul(rows, ops.transpose(rows))
        # Of zero the root has no slope, and every sample is at zero from itself.
        apart = ops.sqrt(ops.maximum(apart, keras.config.epsilon()))
        return apart / ops.maximum(ops.mean(apart), keras.config.epsilon())

    return ops.mean(ops.square(distances(teacher) - distances(student)))


def _check_ends(student: keras.Model, teacher: keras.Model) -> None:
    if not is_graph(student) or not is_graph(teacher):
        return
    for what in ("inputs", "outputs"):
        mine, theirs = ([tuple(end.shape[1:]) for end in getattr(model, what)] for model in (student, teacher))
        if mine != theirs:
            raise PruningError(
                f"The {what} of the student '{student.name}' are of shape {listing(map(str, mine))} and those of the "
                f"teacher '{teacher.name}' of {listing(map(str, theirs))}; they have to be the same. Give a student "
                "that was made of the teacher, or cut both at layers of one shape."
            )


def _watching(model: keras.Model, names: Iterable[str]) -> keras.Model | None:
    """The model with the results of some layers beside its outputs; None where none is wanted."""
    names = list(names)
    if not names:
        return None
    if not is_graph(model):
        raise PruningError(f"features needs a functional or Sequential model, and '{model.name}' is none; use inline.")
    known = [layer.name for layer in model.layers]
    for name in names:
        if name not in known:
            raise PruningError(f"features names the layer '{name}', which '{model.name}' lacks. {nearest(name, known)}")
    outputs = model.layers[-1].output if isinstance(model, keras.Sequential) else model.output
    return keras.Model(model.inputs, [outputs, [model.get_layer(name).output for name in names]])


def _run(watching: keras.Model | None, model: keras.Model, inputs: Any, training: bool | None) -> tuple[Any, Any]:
    if watching is None:
        return model(inputs, training=training), []
    return watching(keras.tree.flatten(inputs), training=training)
