"""One image or many, in any form, and their names."""

import io
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.classifier_client import ImageError, preprocessing
from client.classifier_client.sources import each


def names(images: Any) -> list[str]:
    return [name for name, _ in each(images)]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("photos/a.jpg", "photos/a.jpg"),
        (Path("photos") / "a.jpg", "photos/a.jpg"),
        (b"encoded", "image 1"),
        (bytearray(b"encoded"), "image 1"),
        (memoryview(b"encoded"), "image 1"),
        (io.BytesIO(b"encoded"), "image 1"),
        (Image.new("RGB", (2, 2)), "image 1"),
        (np.zeros((2, 2, 3), np.uint8), "image 1"),
        (np.zeros((2, 2), np.uint8), "image 1"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_single_image_of_any_form_is_one_image(image: Any, name: str) -> None:
    [(received, source)] = each(image)
    assert received == name
    assert source is image


def test_files_and_pillow_images_are_named_after_their_files(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 2)).save(path)
    with path.open("rb") as file, Image.open(path) as image:
        assert names([file, image]) == [str(path), str(path)]
    with open(path, "rb", closefd=True) as file, open(file.fileno(), "rb", closefd=False) as nameless:  # noqa: PTH123
        assert names(nameless) == ["image 1"]


def test_images_without_a_name_are_named_after_their_position() -> None:
    assert names([b"x", "b.jpg", b"y"]) == ["image 1", "b.jpg", "image 3"]
    assert names(np.zeros((3, 2, 2, 3), np.uint8)) == ["image 1", "image 2", "image 3"]
    assert names(()) == []


def test_images_are_read_as_they_are_needed() -> None:
    def endless() -> Any:
        while True:
            yield b"encoded"

    images = each(endless())
    assert [next(images)[0] for _ in range(3)] == ["image 1", "image 2", "image 3"]


def test_value_that_is_no_image_is_an_error_of_the_caller() -> None:
    with pytest.raises(TypeError, match=r"a path, bytes, a file .* Received: int at position 2\. Pass one of these"):
        names(["a.jpg", 3])
    with pytest.raises(TypeError, match="int"):
        names(3)


def test_named_pipe_and_device_are_refused_at_once(tmp_path: Path) -> None:
    """Nobody writes to it: it would be waited for without an end."""
    pipe = tmp_path / "x.jpg"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(
            ImageError, match=r"a pipe or a device, no regular file; give an image's path, or pass what"
        ):
            preprocessing.load(path, name="x.jpg", size_px=8)


def test_open_descriptor_is_read_though_it_is_a_pipe() -> None:
    """As a shell passes the output of a command: `classify <(command)`."""
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(buffer, "PNG")
    reading, writing = os.pipe()
    with open(writing, "wb") as file:  # noqa: PTH123
        thread = threading.Thread(target=lambda: (file.write(buffer.getvalue()), file.close()))
        thread.start()
        assert preprocessing.load(f"/dev/fd/{reading}", name="x", size_px=8).getpixel((0, 0)) == (255, 0, 0)
        thread.join()
    os.close(reading)
