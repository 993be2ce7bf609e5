"""What a LiteRT file says of its operators: their versions, by which a runtime refuses what it cannot compute.

LiteRT Quantizer changes the types of an operator's tensors and leaves what was said of it in float32: an older runtime
would take the file and predict wrongly. It also adds operators without the field that readers of schemas before 3a
look at: OpenVINO refuses such files (openvinotoolkit/openvino#29666).

The versions are TensorFlow's: tensorflow/lite/tools/versioning/op_version.cc.
"""

from typing import Any

from ai_edge_litert import schema_py_generated as schema

MIN_RUNTIME_VERSION = "2.14.0"
"""The oldest runtime on which every kind of file is tested, in its metadata; some kinds run on older ones."""

_ENTRY, _NUM_BYTES = b"min_runtime_version", 16
_LAST_DEPRECATED_CODE = 127  # PLACEHOLDER_FOR_GREATER_OP_CODES: the field has 8 bits.

_Operator, _Type = schema.BuiltinOperator, schema.TensorType
_INT8_VERSIONS = {
    **{_Operator.CONV_2D: 3, _Operator.DEPTHWISE_CONV_2D: 3, _Operator.FULLY_CONNECTED: 4},
    **dict.fromkeys(
        (
            *(_Operator.ADD, _Operator.SUB, _Operator.MUL, _Operator.MAXIMUM, _Operator.MINIMUM),
            *(_Operator.MAX_POOL_2D, _Operator.AVERAGE_POOL_2D, _Operator.MEAN, _Operator.REDUCE_MAX),
            *(_Operator.RELU, _Operator.RELU6, _Operator.LOGISTIC, _Operator.TANH, _Operator.SOFTMAX),
            *(_Operator.CONCATENATION, _Operator.PAD, _Operator.PADV2, _Operator.TRANSPOSE, _Operator.SLICE),
            *(_Operator.STRIDED_SLICE, _Operator.SPLIT, _Operator.GATHER, _Operator.BATCH_MATMUL),
            *(_Operator.RESIZE_BILINEAR, _Operator.RESIZE_NEAREST_NEIGHBOR, _Operator.DEQUANTIZE),
        ),
        2,
    ),
}
"""Of operators that take int8 activations; of any other its version says nothing of that."""

_HYBRID_VERSIONS = {
    _Operator.CONV_2D: (2, 5),
    _Operator.DEPTHWISE_CONV_2D: (4, 6),
    _Operator.FULLY_CONNECTED: (3, 12),
}
"""Of operators that take float32 activations and int8 weights of one scale, or of one for each channel."""

_FLOAT16_DEQUANTIZE, _PER_CHANNEL_DEQUANTIZE, _ENLARGING_MUL, _ASYMMETRIC_FULLY_CONNECTED = 3, 5, 3, 9


def declare_operators(model: Any) -> None:
    """Set the versions of a model's operators, their codes for older readers, and its oldest runtime.

    Args:
        model: the schema's `ModelT`.
    """
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            code.version = max(code.version, _find_version(code.builtinCode, operator, graph.tensors))
    for code in model.operatorCodes:
        code.deprecatedBuiltinCode = min(code.builtinCode, _LAST_DEPRECATED_CODE)
    model.metadata = [entry for entry in model.metadata or [] if entry.name != _ENTRY]
    model.metadata.append(schema.MetadataT(name=_ENTRY, buffer=len(model.buffers)))
    model.buffers.append(schema.BufferT(data=list(MIN_RUNTIME_VERSION.encode().ljust(_NUM_BYTES, b"\0"))))


def _find_version(code: int, operator: Any, tensors: list[Any]) -> int:
    """Return the version that an operator's types need; 1 where they need none."""
    inputs = [tensors[index] for index in operator.inputs if index >= 0]
    types = [tensor.type for tensor in inputs]
    if code == _Operator.DEQUANTIZE and types[0] == _Type.FLOAT16:
        return _FLOAT16_DEQUANTIZE
    if _Type.INT8 not in types:
        return 1
    if types[0] == _Type.FLOAT32 and code in _HYBRID_VERSIONS:
        of_one_scale, of_channels = _HYBRID_VERSIONS[code]
        if _is_per_channel(inputs[1]):
            return of_channels
        if code == _Operator.FULLY_CONNECTED and operator.builtinOptions.asymmetricQuantizeInputs:
            return _ASYMMETRIC_FULLY_CONNECTED
        return of_one_scale
    if code == _Operator.DEQUANTIZE and _is_per_channel(inputs[0]):
        return _PER_CHANNEL_DEQUANTIZE
    if code == _Operator.MUL:
        first, second, product = (t.quantization.scale[0] for t in (*inputs, tensors[operator.outputs[0]]))
        if first * second / product >= 1:
            return _ENLARGING_MUL
    return _INT8_VERSIONS.get(code, 1)


def _is_per_channel(tensor: Any) -> bool:
    return len(tensor.quantization.scale) > 1
