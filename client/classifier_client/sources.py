"""What a caller may pass as an image, alone or with others, and the name of each in a result."""

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Protocol, TypeAlias

from PIL import Image

from .errors import ImageError


class Array(Protocol):
    """uint8 `[height, width, 3]`, or grey without the 3, or with an alpha as a fourth: numpy's, or one like it."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


class File(Protocol):
    """A file, or a stream, that is open for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | File | Image.Image | Array

_DESCRIPTOR = re.compile(r"/dev/(stdin|fd/\d+)|/proc/(self|\d+)/fd/\d+")
_ONE = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)


def is_array(source: object) -> bool:
    return hasattr(source, "__array_interface__")


def is_file(source: object) -> bool:
    return hasattr(source, "read")


def open_path(path: str | os.PathLike[str], name: str) -> BinaryIO:
    """Open a regular file, or a descriptor that the caller has open, such as `/dev/stdin` or a shell's `<(command)`.

    Any other pipe, socket or device is refused: where nobody writes to it, opening or reading it never ends.

    Raises:
        ImageError: it is neither.
        OSError: it cannot be opened.
    """
    if _DESCRIPTOR.fullmatch(os.fsdecode(path)):
        return open(path, "rb")  # noqa: PTH123
    # Without blocking: the open of a named pipe would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb")  # noqa: PTH123
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise ImageError(
        name, "a pipe or a device, no regular file; give an image's path, or pass what you have open itself"
    )


def each(images: Source | Iterable[Source]) -> Iterator[tuple[str, Source]]:
    """Yield the name and the source of every image, as they come: of one alone, or of any number of them.

    A path is its own name, a file has its name, and all else is named by its position, `image 1` and so on.

    Raises:
        TypeError: something is no image at all.

    Example:
        >>> [name for name, _ in each(["daisy.jpg", b"encoded"])]
        ['daisy.jpg', 'image 2']
    """
    sources: Iterable[Any] = [images] if _is_one(images) else images  # type: ignore[assignment]
    for position, source in enumerate(sources, start=1):
        if not _is_one(source):
            raise TypeError(
                "An image is a path, bytes, a file open for reading bytes, a Pillow image or a uint8 array "
                f"[height, width, 3]. Received: {type(source).__name__} at position {position}. Pass one of these."
            )
        yield _name(source, position), source


def _is_one(images: object) -> bool:
    if isinstance(images, _ONE) or is_file(images):
        return True
    # An array with one axis more than an image is a row of images.
    return is_array(images) and len(images.__array_interface__["shape"]) < 4  # type: ignore[attr-defined]


def _name(source: Any, position: int) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    # A Pillow image that was read from a file knows it too.
    found = getattr(source, "name", None) or getattr(source, "filename", None)
    return found if isinstance(found, str) else f"image {position}"
