"""A converted model: its bytes, saved, loaded, and run on ordinary float arrays."""

import contextlib
import functools
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import ConversionError, PruningError, listing, nearest, path_of, printable
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.contents import End, FileContent, Operator, ends, operators_of, quantization_of
from tfprune.lite.file.inspect import Inspection, inspect
from tfprune.lite.file.isolation import IsolatedInterpreter, machine_memory
from tfprune.lite.file.metadata import read_origin
from tfprune.lite.file.paths import FilePaths, paths_of
from tfprune.lite.file.soundness import read_sound_model, result_bytes
from tfprune.model.data import real_array
from tfprune.model.files import replacing
from tfprune.model.native import reason_of, silence

CUSTOM = re.compile(r"Encountered unresolved custom op: (\w+)")


class Outputs(list[np.ndarray]):
    """The outputs of a model in its own order, which also answer to their names."""

    def __init__(self, arrays: Sequence[np.ndarray], names: Sequence[str]):
        super().__init__(arrays)
        self.names = tuple(names)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in self.names:
                raise PruningError(f"No output '{key}'. {nearest(key, self.names)}")
            key = self.names.index(key)
        return super().__getitem__(key)


class LiteModel(FileContent):
    """A `.tflite` model that takes and gives float arrays, whatever it computes in.

    Args:
        content: The bytes of the file.
        notes: Sentences on how it was made: samples used for calibration, inputs whose type changed.
        isolate: Whether LiteRT is to run it in a process of its own, with 60 seconds for each run and half of the
            machine's memory: for files of unknown origin, so that one that ends LiteRT raises an error here. A run
            takes about a millisecond longer then. Defaults to False.

    `inputs` and `outputs` tell names, shapes, types and scales of its ends; `quantization` is `"float32"`, `"float16"`,
    `"dynamic"`, `"int8"` or `"int16x8"`, read from the file.

    Several threads may call one model: it runs them one after the other, in the memory of one. For threads that run at
    the same time give each its `copy.copy(lite)`.

    Raises:
        PruningError: The bytes are truncated, damaged, or no `.tflite` model.
    """

    def __init__(self, content: bytes, notes: Sequence[str] = (), *, isolate: bool = False):
        self.content = flatbuffer.read_content(content)
        self.notes, self.isolate = tuple(notes), isolate
        self._describe()

    def _describe(self) -> None:
        """Notes what the file tells of itself."""
        self.inputs: tuple[End, ...] = ends(self.file, "inputs")
        self.outputs: tuple[End, ...] = ends(self.file, "outputs")
        self.operators: tuple[Operator, ...] = operators_of(self.file)
        self.quantization = quantization_of(self.file, self.operators)
        self._forget_runner()

    def _forget_runner(self) -> None:
        self._runner: Any = None
        self._shapes: tuple[tuple[int, ...], ...] = ()
        self._lock = threading.Lock()  # one interpreter has one set of tensors

    @functools.cached_property
    def file(self) -> Any:
        """The file as objects of the schema, read once for all who look into it; nobody changes them."""
        return read_sound_model(self.content)

    @classmethod
    def of(cls, source: Any, isolate: bool = False) -> "LiteModel":
        """A `LiteModel` as it is, or the one in the file of this path or in these bytes, isolated where asked for."""
        return source if isinstance(source, cls) else cls(flatbuffer.read_content(source), isolate=isolate)

    @classmethod
    def written(cls, file: Any, notes: Sequence[str] = (), *, isolate: bool = False) -> "LiteModel":
        """The model of a file given as objects of the schema, which stay in use and are not to be changed any more."""
        model = cls.__new__(cls)
        model.content, model.notes, model.file = flatbuffer.write_model(file), tuple(notes), file
        model.isolate = isolate
        model._describe()
        return model

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, isolate: bool = False) -> "LiteModel":
        """The model in a `.tflite` file.

        Args:
            path: Of the file.
            isolate: Whether LiteRT is to run it in a process of its own: for files of unknown origin.

        Raises:
            PruningError: There is no such file, it is truncated, or it is another kind of file.
        """
        model = cls(flatbuffer.read_content(path_of("path", path, "model.tflite")), isolate=isolate)
        try:
            model.interpreter()
        except ConversionError as error:
            raise PruningError(f"'{path}' is a .tflite file that LiteRT cannot load: {error}") from error
        return model

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the file in one piece: beside its place first, then renamed, so an old file stays whole till then.

        Args:
            path: Where to; the folder must exist.

        Returns:
            The path.

        Raises:
            PruningError: The folder does not exist or is not writable, or the path is a folder.
        """
        target = path_of("path", path, "model.tflite")
        if target.is_dir():
            raise PruningError(
                f"Cannot write '{target}': it is a folder. Give a file in it, '{target / 'model.tflite'}'."
            )
        if not target.parent.is_dir():
            raise PruningError(f"Cannot write '{target}': there is no folder '{target.parent}'. Make it first.")
        with replacing(target) as part:
            part.write_bytes(self.content)
        return target

    @property
    def origin(self) -> dict[str, Any]:
        """What the file tells about its making: model, zeros of each kernel, versions; empty for other files."""
        return read_origin(self.file)

    def inspect(self) -> Inspection:
        """What is in the file: operators, types, bytes, zeros of every constant."""
        return inspect(self)

    def paths(self, runtime: str = "litert") -> FilePaths:
        """The way of each operator through a runtime, read without running the file, whoever made it.

        Args:
            runtime: `"litert"`, LiteRT on a PC; `"arm"`, LiteRT on a phone; `"web"`, LiteRT.js; `"micro"`,
                tflite-micro. Defaults to `"litert"`.

        Returns:
            A table: path (dense, sparse kernel, densified at load, falls back, will fail, wrong answers), why, and what
            the zeros bring; `.runs` tells whether the runtime answers right.

        Raises:
            PruningError: The runtime is not known.
        """
        return paths_of(self, runtime)

    def interpreter(self, threads: int = 1, xnnpack: bool = True, keep_all: bool = False) -> Any:
        """A new LiteRT interpreter of the model, its tensors not allocated yet.

        Args:
            threads: Threads that the kernels may use.
            xnnpack: Whether the XNNPACK kernels take over what they can, as they do on phones by default.
            keep_all: Whether every result can be read after a run, not the outputs alone; with plain kernels.

        Raises:
            ConversionError: LiteRT cannot read the model.
        """
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self.require_memory()
        options = {"num_threads": threads, "experimental_preserve_all_tensors": keep_all}
        resolver = "AUTO" if xnnpack else "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
        with refusals("LiteRT cannot read the model"):
            if self.isolate:
                return IsolatedInterpreter(self.content, {**options, "resolver": resolver})
            with silence():
                return Interpreter(
                    model_content=self.content, experimental_op_resolver_type=OpResolverType[resolver], **options
                )

    def require_memory(self) -> None:
        """Raises ConversionError for a file with a tensor larger than the memory of this machine."""
        wanted = result_bytes(self.file)
        if wanted > machine_memory():
            raise ConversionError(
                f"A result of this model takes {wanted:,} bytes, more than the memory of this machine. Is the file "
                "damaged, or an open size too large?"
            )

    def prepared(self, shapes: Sequence[Sequence[int | None]] = (), **options: Any) -> Any:
        """A new interpreter with the memory for inputs of these shapes, or for those of the file.

        Args:
            shapes: One for each input. Defaults to those of the file.
            **options: Of `interpreter`.

        Raises:
            ConversionError: LiteRT cannot read the model, or not prepare it for such inputs.
        """
        runner = self.interpreter(**options)
        self._allocate(runner, shapes or [end.shape for end in self.inputs])
        return runner

    def fill(self, runner: Any, arrays: Sequence[np.ndarray]) -> None:
        """Gives an interpreter real values for all inputs."""
        with refusals("LiteRT does not take the inputs"):
            for array, end in zip(arrays, self.inputs):
                runner.set_tensor(end.tensor, end.quantized(array))

    def __call__(self, inputs: Any) -> Any:
        """Runs the model.

        Args:
            inputs: One array for a model of one input; else a list in the model's order, or a dict by name. The first
                axis counts samples, as many as you like: a file made for single samples runs them one by one.
                Real values: they are quantized here where the file's ends are integers.

        Returns:
            The output as an array of real values; several outputs as a list that also takes names.

        Raises:
            PruningError: The inputs are too many, too few, of another shape, or their names are unknown.
        """
        arrays = self.arrays(inputs)
        count = len(arrays[0])
        step = self._batch(count)
        pieces = [self._run([array[start : start + step] for array in arrays], step) for start in range(0, count, step)]
        if not pieces:
            pieces = [[np.zeros((0, *(size or 0 for size in end.shape[1:])), np.float32) for end in self.outputs]]
        joined = [np.concatenate(parts) if len(parts) > 1 else parts[0] for parts in zip(*pieces)]
        return joined[0] if len(joined) == 1 else Outputs(joined, [end.name for end in self.outputs])

    def __repr__(self) -> str:
        inputs = ", ".join(f"{end.name}: {end.dtype}" for end in self.inputs)
        outputs = ", ".join(f"{end.name}: {end.dtype}" for end in self.outputs)
        return printable(f"LiteModel({self.quantization}, {self.size:,} bytes, ({inputs}) -> ({outputs}))")

    def arrays(self, inputs: Any) -> list[np.ndarray]:
        """What a call takes, checked, as one array per input in the order of the model."""
        names = [end.name for end in self.inputs]
        if isinstance(inputs, Mapping):
            for name in inputs:
                if name not in names:
                    raise PruningError(f"The model has no input '{name}'. {nearest(str(name), names)}")
            missing = [name for name in names if name not in inputs]
            if missing:
                raise PruningError(f"Inputs missing: {listing(missing)}. The model takes {listing(names)}.")
            given = [inputs[name] for name in names]
        elif len(names) == 1:
            only = isinstance(inputs, (list, tuple)) and len(inputs) == 1
            given = [inputs[0] if only and np.ndim(inputs) > len(self.inputs[0].shape) else inputs]
        else:
            if not isinstance(inputs, (list, tuple)) or len(inputs) != len(names):
                came = f"{len(inputs)} arrays" if isinstance(inputs, (list, tuple)) else type(inputs).__name__
                raise PruningError(
                    f"The model takes {len(names)} inputs, and {came} came. Give a list in this order, or a dict with "
                    f"these names: {listing(names)}."
                )
            given = list(inputs)
        arrays = [_checked(array, end) for array, end in zip(given, self.inputs)]
        counts = {end.name: len(array) for array, end in zip(arrays, self.inputs)}
        if len(set(counts.values())) > 1:
            raise PruningError(f"The inputs have different numbers of samples: {counts}.")
        return arrays

    def _batch(self, count: int) -> int:
        """How many samples go through at once: what the file is made for, or all where it leaves that open."""
        sizes = {end.shape[0] for end in self.inputs if end.shape}
        fixed = [size for size in sizes if size is not None]
        return int(fixed[0]) if fixed else max(count, 1)

    def _run(self, arrays: list[np.ndarray], step: int) -> list[np.ndarray]:
        count = len(arrays[0])
        if any(end.shape[0] is not None for end in self.inputs) and count < step:
            arrays = [np.concatenate([array, np.repeat(array[-1:], step - count, axis=0)]) for array in arrays]
        with self._lock:
            try:
                runner = self._ready(tuple(array.shape for array in arrays))
                self.fill(runner, arrays)
                invoke(runner)
                results = [end.dequantized(runner.get_tensor(end.tensor)) for end in self.outputs]
            except ConversionError:
                self._runner = None  # whose process may have ended, or whose inputs are half filled
                raise
        return [array[:count] if len(array) == step else array for array in results]

    def _ready(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        if self._runner is None or shapes != self._shapes:
            runner = self._runner if self._runner is not None else self.interpreter()
            self._allocate(runner, shapes)
            self._runner, self._shapes = runner, shapes
        return self._runner

    def _allocate(self, runner: Any, shapes: Sequence[Sequence[int | None]]) -> None:
        with refusals(f"LiteRT cannot prepare the model for inputs of shape {listing(shapes)}"), silence():
            for end, shape in zip(self.inputs, shapes):
                if None in end.shape:
                    runner.resize_tensor_input(end.tensor, shape)
            runner.allocate_tensors()

    def __getstate__(self) -> dict[str, Any]:
        # An interpreter cannot be copied or pickled; a new one is made when the copy is first called.
        return {key: value for key, value in vars(self).items() if key not in ("file", "_runner", "_shapes", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget_runner()


def invoke(runner: Any) -> int:
    """Runs an interpreter; the nanoseconds that it took.

    Raises:
        ConversionError: LiteRT cannot run the model.
    """
    with refusals("LiteRT cannot run the model"):
        begin = time.perf_counter_ns()
        spent = runner.invoke()  # an isolated one tells what it took in its own process
        return time.perf_counter_ns() - begin if spent is None else spent


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Makes a ConversionError of whatever LiteRT raises inside the block."""
    try:
        yield
    except Exception as error:  # of a file that nobody has run before LiteRT raises errors of any kind
        custom = CUSTOM.search(str(error))
        if custom:
            raise ConversionError(
                f"The file holds the custom operator '{custom[1]}', which this interpreter does not have. "
                "inspect() reads such a file; it runs only in programs that bring the operator along."
            ) from error
        raise ConversionError(f"{what}: {reason_of(error)}") from error


def _checked(array: Any, end: End) -> np.ndarray:
    array = real_array(array, f"Input '{end.name}'")
    fits = array.ndim == len(end.shape) and all(
        size is None or size == came for size, came in zip(end.shape[1:], array.shape[1:])
    )
    if fits:
        return array
    wanted = ", ".join(
        "n" if axis == 0 else "any" if size is None else str(size) for axis, size in enumerate(end.shape)
    )
    hint = " Add an axis for the samples: x[None]." if array.ndim == len(end.shape) - 1 else ""
    raise PruningError(f"Input '{end.name}' takes shape ({wanted}), and {array.shape} came.{hint}")
