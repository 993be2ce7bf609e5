import doctest
import io

import pytest

from serving.shared.capture import tfrecord
from serving.shared.capture.tfrecord import TornError, frame, read_records

RECORDS = [b"one", b"", b"three" * 100]
CONTENT = b"".join(map(frame, RECORDS))


def test_the_example_runs() -> None:
    assert doctest.testmod(tfrecord) == (0, 1)


def test_records_are_read_as_they_were_written_with_their_offsets() -> None:
    found = list(read_records(io.BytesIO(CONTENT)))
    assert [record.data for record in found] == RECORDS
    file = io.BytesIO(CONTENT)
    file.seek(found[2].offset)
    assert next(read_records(file)) == found[2]


def test_a_file_may_end_anywhere_and_what_is_whole_before_is_read() -> None:
    first, second = len(frame(RECORDS[0])), len(frame(RECORDS[0]) + frame(RECORDS[1]))
    for size in range(len(CONTENT)):
        expected = next(RECORDS[:count] for count, end in ((2, second), (1, first), (0, 0)) if size >= end)
        found = []
        if size in (0, first, second):
            found = [record.data for record in read_records(io.BytesIO(CONTENT[:size]))]
        else:
            with pytest.raises(TornError):
                found += (record.data for record in read_records(io.BytesIO(CONTENT[:size])))
        assert found == expected


@pytest.mark.parametrize("position", range(len(frame(RECORDS[0]))))
def test_a_changed_byte_is_found_and_the_next_record_is_read_where_the_length_is_sound(position: int) -> None:
    content = bytearray(CONTENT)
    content[position] ^= 1
    records = read_records(io.BytesIO(content))
    if position < 12:
        with pytest.raises(TornError):
            next(records)
    else:
        assert [record.data for record in records] == [None, *RECORDS[1:]]
