"""Changing a `.tflite` file: a subgraph with the questions to ask of it and the edits to make, in place."""

import copy
from typing import Any

import numpy as np

from tfprune.lite.file.flatbuffer import operator_name, schema, stored_bytes, type_name


class Graph:
    """A subgraph with the questions and changes that the rules need."""

    def __init__(self, model: Any, subgraph: Any):
        self.model = model
        self.subgraph = subgraph

    @property
    def tensors(self) -> list[Any]:
        """The tensors, constants included."""
        return self.subgraph.tensors

    def name(self, operator: Any) -> str:
        """The name of an operator."""
        return operator_name(self.model, operator)

    def type(self, index: int) -> str:
        """The type of a tensor in the schema's words."""
        return type_name(self.tensors[index])

    def is_float(self, operator: Any) -> bool:
        """Whether an operator takes or gives a float32 tensor."""
        return any(index >= 0 and self.type(index) == "FLOAT32" for index in (*operator.inputs, *operator.outputs))

    def maker(self, index: int) -> Any:
        """The operator that computes a tensor; None for a constant or an input."""
        return next((operator for operator in self.subgraph.operators if index in list(operator.outputs)), None)

    def source(self, index: int) -> int:
        """The constant that a tensor is, or that DENSIFY and DEQUANTIZE make it of at loading; else the tensor."""
        while stored_bytes(self.model, self.tensors[index]) is None:
            maker = self.maker(index)
            if maker is None or self.name(maker) not in ("DENSIFY", "DEQUANTIZE"):
                break
            index = int(maker.inputs[0])
        return index

    def is_constant(self, index: int) -> bool:
        """Whether a tensor is stored, or unpacked from one that is."""
        return stored_bytes(self.model, self.tensors[self.source(index)]) is not None

    def users(self, index: int) -> list[Any]:
        """The operators that read a tensor."""
        return [operator for operator in self.subgraph.operators if index in list(operator.inputs)]

    def integer_source(self, index: int) -> int | None:
        """The int8 tensor that a float tensor is made of by DEQUANTIZE."""
        maker = self.maker(index)
        if maker is None or self.name(maker) != "DEQUANTIZE":
            return None
        source = int(maker.inputs[0])
        return source if self.type(source) == "INT8" else None

    def quantizer(self, index: int) -> Any:
        """The QUANTIZE that is the only reader of a float tensor."""
        users = self.users(index)
        alone = index not in list(self.subgraph.outputs) and len(users) == 1
        return users[0] if alone and self.name(users[0]) == "QUANTIZE" else None

    def code(self, name: str, version: int) -> int:
        """The number of an operator code, added to the file where it is new."""
        number = getattr(schema().BuiltinOperator, name)
        for index, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == number and code.version >= version:
                return index
        code = schema().OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def constant(self, name: str, values: np.ndarray, scale: float | None = None) -> int:
        """A new constant, quantized with the zero point 0 when a scale is given; its index."""
        buffer = schema().BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        quantization = schema().QuantizationParametersT()
        if scale is not None:
            quantization.scale = np.array([scale], np.float32)
            quantization.zeroPoint = np.array([0], np.int64)
        kind = getattr(schema().TensorType, values.dtype.name.upper())
        index = self.tensor(name.encode(), kind, np.array(values.shape, np.int32), None, quantization)
        self.tensors[index].buffer = len(self.model.buffers) - 1
        return index

    def tensor(self, name: bytes, kind: int, shape: Any, signature: Any, quantization: Any = None) -> int:
        """A new tensor that some operator is to fill; its index."""
        tensor = schema().TensorT()
        tensor.name, tensor.type, tensor.hasRank = name, kind, True
        tensor.shape, tensor.shapeSignature = shape, signature
        tensor.quantization = quantization or schema().QuantizationParametersT()
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def own_constant(self, operator: Any, place: int) -> Any:
        """A constant among an operator's inputs that no other operator reads; a copy where another does."""
        index = int(operator.inputs[place])
        if len(self.users(index)) > 1:
            self.tensors.append(copy.deepcopy(self.tensors[index]))
            new = len(self.tensors) - 1
            operator.inputs = [new if at == place else given for at, given in enumerate(operator.inputs)]
            index = new
        return self.tensors[index]

    def rewrite(self, tensor: Any, values: np.ndarray) -> None:
        """Gives a constant other values; constants of the same buffer keep theirs."""
        everyone = [other for subgraph in self.model.subgraphs for other in subgraph.tensors]
        if sum(other.buffer == tensor.buffer for other in everyone) > 1:
            self.model.buffers.append(schema().BufferT())
            tensor.buffer = len(self.model.buffers) - 1
        self.model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)

    def insert_densify(self, index: int) -> None:
        """Puts a DENSIFY between a constant and its readers, which then read a tensor of the same values."""
        dense = copy.copy(self.tensors[index])
        dense.name, dense.buffer, dense.sparsity = self.tensors[index].name + b"/dense", 0, None
        self.tensors.append(dense)
        self.replace_readers(index, len(self.tensors) - 1)
        operator = schema().OperatorT()
        operator.opcodeIndex = self.code("DENSIFY", 1)
        operator.inputs, operator.outputs = [index], [len(self.tensors) - 1]
        operator.builtinOptionsType = schema().BuiltinOptions.DensifyOptions
        operator.builtinOptions = schema().DensifyOptionsT()
        self.subgraph.operators = [operator, *self.subgraph.operators]

    def replace_readers(self, old: int, new: int) -> None:
        """Lets all who read one tensor read another."""
        for operator in self.users(old):
            operator.inputs = [new if index == old else index for index in operator.inputs]

    def drop_unused(self, names: tuple[str, ...]) -> None:
        """Removes operators of these names whose results nobody reads."""
        while True:
            read = {int(index) for operator in self.subgraph.operators for index in operator.inputs}
            read |= {int(index) for index in self.subgraph.outputs}
            kept = [
                operator
                for operator in self.subgraph.operators
                if self.name(operator) not in names or any(index in read for index in operator.outputs)
            ]
            if len(kept) == len(self.subgraph.operators):
                return
            self.subgraph.operators = kept
