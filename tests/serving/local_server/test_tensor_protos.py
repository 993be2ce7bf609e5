import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.local_server import tensor_protos
from serving.local_server.errors import MAX_STRINGS, Code, StatusError
from serving.local_server.servable import Array
from tests.serving.local_server import models
from tests.serving.local_server.conftest import status_error

MAX_BYTES = 1 << 20
NUMBERS = [name for name in models.FIELDS if name != "string"]


def numpy_type(name: str) -> Any:
    return np.dtype(tf.dtypes.as_dtype(name).as_numpy_dtype)


def write(array: Array, *, as_content: bool = False) -> Any:
    proto = tensor_pb2.TensorProto()
    tensor_protos.to_proto(array, proto, as_content=as_content)
    return proto


def read(proto: Any, max_bytes: int = MAX_BYTES) -> Array:
    return tensor_protos.to_array(proto, "x", max_bytes)


def refusal(proto: Any, max_bytes: int = MAX_BYTES) -> str:
    with pytest.raises(StatusError) as caught:
        read(proto, max_bytes)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


def assert_same(found: Array, expected: Array) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("as_content", [False, True])
@pytest.mark.parametrize("dtype", NUMBERS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_numbers_survive_to_the_bit(dtype: str, as_content: bool, data: st.DataObject) -> None:
    shape = data.draw(npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    size = int(np.prod(shape)) * numpy_type(dtype).itemsize
    raw = data.draw(st.binary(min_size=size, max_size=size))
    array = np.frombuffer(raw, np.bool_ if dtype == "bool" else np.uint8)
    array = (array % 2 == 1).reshape(shape) if dtype == "bool" else array.view(numpy_type(dtype)).reshape(shape)
    if dtype in ("float16", "bfloat16", "float32", "complex64"):
        array = np.nan_to_num(array)  # a NaN of 32 bits goes through 64, and its silent bit with it
    proto = write(array, as_content=as_content)
    assert_same(read(proto), array)
    assert_same(tf.make_ndarray(proto), array)
    filled = {field.name for field, _ in proto.ListFields()} - {"dtype", "tensor_shape"}
    assert filled <= {"tensor_content" if as_content else models.FIELDS[dtype]}


@pytest.mark.parametrize("as_content", [False, True])
@given(values=st.lists(st.binary(max_size=8), max_size=5))
def test_strings_survive(as_content: bool, values: list[bytes]) -> None:
    array = np.array([*values, None], object)[:-1]
    found = read(write(array, as_content=as_content))
    assert found.dtype == object
    assert found.tolist() == values


def test_text_is_written_as_utf_8() -> None:
    assert list(write(np.array(["ü", b"\xff"], object)).string_val) == ["ü".encode(), b"\xff"]


def test_an_array_that_is_not_contiguous_is_written_in_order() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::-2].T
    assert_same(read(write(array)), np.ascontiguousarray(array))
    assert_same(read(write(array, as_content=True)), np.ascontiguousarray(array))


def test_nan_and_infinity_survive() -> None:
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        array = np.array([np.nan, np.inf, -np.inf, -0.0], numpy_type(dtype))
        np.testing.assert_array_equal(read(write(array)).astype(float), array.astype(float))


def make(dtype: str, shape: list[int], **fields: Any) -> Any:
    proto = tensor_pb2.TensorProto(dtype=tf.dtypes.as_dtype(dtype).as_datatype_enum, **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    "proto",
    [
        make("float32", [1 << 40], float_val=[1]),
        make("float32", [1 << 62, 1 << 62], float_val=[1]),
        make("float32", [MAX_BYTES // 4 + 1], float_val=[1]),
        make("bool", [MAX_BYTES + 1], bool_val=[True]),
        make("string", [MAX_BYTES], string_val=[b""]),
        make("string", [1000], string_val=[b"a" * 2000]),
    ],
)
def test_a_small_message_cannot_ask_for_much_memory(proto: Any) -> None:
    message = refusal(proto)
    assert f"a tensor may take {MAX_BYTES} bytes" in message
    assert message.endswith("Send less at once.")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_is_sent_is_read_or_refused(data: st.DataObject) -> None:
    number = st.integers(-3, 300)
    proto = tensor_pb2.TensorProto(
        dtype=data.draw(st.sampled_from([*types_pb2.DataType.values(), 77])),
        version_number=data.draw(st.integers(0, 2)),
        **data.draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "tensor_content": st.binary(max_size=20),
                    "float_val": st.lists(st.floats(width=32), max_size=4),
                    "double_val": st.lists(st.floats(), max_size=4),
                    "int_val": st.lists(number, max_size=4),
                    "half_val": st.lists(number, max_size=4),
                    "string_val": st.lists(st.binary(max_size=3), max_size=4),
                    "int64_val": st.lists(number, max_size=4),
                    "bool_val": st.lists(st.booleans(), max_size=4),
                    "scomplex_val": st.lists(st.floats(width=32), max_size=4),
                    "uint32_val": st.lists(st.integers(0, 9), max_size=4),
                },
            )
        ),
    )
    shape = data.draw(st.lists(st.integers(-1, 4), max_size=3))
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    try:
        found = read(proto)
    except StatusError as exc:
        assert exc.code is Code.INVALID_ARGUMENT  # noqa: PT017
    else:
        assert list(found.shape) == shape


@pytest.mark.parametrize(
    ("received", "expected", "is_right"),
    [
        ((2, 3), (None, 3), True),
        ((0, 3), (None, 3), True),
        ((2, 3), None, True),
        ((), (), True),
        ((2, 4), (None, 3), False),
        ((2, 3, 1), (None, 3), False),
        ((3,), (None, 3), False),
        ((), (None,), False),
        ((1,), (), False),
    ],
)
def test_a_shape_must_fit(received: tuple[int, ...], expected: tuple[int | None, ...] | None, is_right: bool) -> None:
    if is_right:
        tensor_protos.check_shape(received, expected, "x")
        return
    with status_error(Code.INVALID_ARGUMENT, r"input 'x' must have the shape \[.*\]\. Received: \[.*\]"):
        tensor_protos.check_shape(received, expected, "x")


def test_more_strings_than_a_tensor_may_have_are_refused() -> None:
    many = tf.make_tensor_proto([b"a"])
    many.tensor_shape.dim[0].size = MAX_STRINGS + 1  # the last one repeated
    with status_error(Code.INVALID_ARGUMENT, rf"may have {MAX_STRINGS} strings, .* Received: {MAX_STRINGS + 1}"):
        tensor_protos.to_array(many, "x", 1 << 30)
    many.tensor_shape.dim[0].size = 1
    many.string_val.extend([b""] * MAX_STRINGS)
    with status_error(Code.INVALID_ARGUMENT, rf"Received: {MAX_STRINGS + 1}\. Send fewer"):
        tensor_protos.to_array(many, "x", 1 << 30)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_many_numbers_survive_and_the_last_one_is_repeated(dtype: str) -> None:
    array = (np.arange(120_001) % 101).astype(numpy_type(dtype))
    proto = write(array)
    assert_same(read(proto, 1 << 24), array)
    proto.tensor_shape.dim[0].size += 9
    assert_same(read(proto, 1 << 24), np.append(array, array[-1:].repeat(9)))
    proto.tensor_shape.dim[0].size = 5
    assert_same(read(proto, 1 << 24), array[:5])
    proto.tensor_content = array[:5].tobytes()
    assert_same(read(proto, 1 << 24), array[:5])


def test_one_of_many_numbers_that_its_type_cannot_hold_is_refused() -> None:
    proto = make("int8", [100_000], int_val=[*[1] * 99_999, 300])
    assert "300" in refusal(proto)


@pytest.mark.anyio
async def test_the_event_loop_goes_on_while_many_numbers_are_read_and_written() -> None:
    array = np.arange(3_000_000, dtype=np.float32)
    proto = tensor_pb2.TensorProto()
    assert await count_turns(tensor_protos.write(array, proto)) > 8
    assert await count_turns(tensor_protos.read(proto, "x", 1 << 24)) > 8
    assert_same(read(proto, 1 << 24), array)


async def count_turns(work: Coroutine[Any, Any, Any]) -> int:
    """Return how often the event loop comes round, at intervals, while work is done."""
    working, count = asyncio.ensure_future(work), 0
    while not working.done():
        await asyncio.sleep(0.001)
        count += 1
    await working
    return count
