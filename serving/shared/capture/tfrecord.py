"""TFRecord: records of any bytes in a file, each with checksums, so that a torn or damaged one is found.

A record is its length (`uint64`, little-endian), the checksum of these eight bytes (`uint32`), the data, and the
checksum of the data; a checksum is a rotated CRC-32C (tensorflow.org/tutorials/load_data/tfrecord).
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import google_crc32c

SUFFIX = ".tfrecord"

_HEAD = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")


class TornError(Exception):
    """A file ends within a record, or goes on in a way that no record begins."""


class Record(NamedTuple):
    """A record of a file: where it begins, and its data; `None` where its checksum is wrong."""

    offset: int
    data: bytes | None


def frame(data: bytes) -> bytes:
    """Return the record of some data.

    >>> frame(b"a").hex()
    '01000000000000000175de4161786ee428'
    """
    length = struct.pack("<Q", len(data))
    return length + _CHECKSUM.pack(_checksum(length)) + data + _CHECKSUM.pack(_checksum(data))


def read_records(file: BinaryIO) -> Iterator[Record]:
    """Read records from where a file stands to its end.

    Raises:
        TornError: the file ends within a record, or is damaged so that the next one cannot be found.
    """
    offset = file.tell()
    while head := file.read(_HEAD.size):
        if len(head) < _HEAD.size:
            raise TornError
        length, checksum = _HEAD.unpack(head)
        if checksum != _checksum(head[:8]):
            raise TornError
        data, end = file.read(length), file.read(_CHECKSUM.size)
        if len(data) < length or len(end) < _CHECKSUM.size:
            raise TornError
        yield Record(offset, data if _CHECKSUM.unpack(end)[0] == _checksum(data) else None)
        offset += _HEAD.size + length + _CHECKSUM.size


def _checksum(data: bytes) -> int:
    """Return the CRC-32C of data, rotated and moved as TensorFlow's crc32c.h does it."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
