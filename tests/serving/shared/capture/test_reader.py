import io
import logging
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.classifier_client.transports import prediction_pb2
from serving.shared.capture import read_captured
from serving.shared.capture.messages import fill
from serving.shared.capture.reader import read_at, read_positions
from serving.shared.capture.tfrecord import frame
from tests.serving.shared.capture.records import CLASS_NAMES, make_message, write_file

NOW_S = 1_800_000_000


def test_a_photo_is_read_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    message = make_message(NOW_S, [(0.6, 0.3, 0.1)], images=[b"image"], are_known=[False])
    write_file(tmp_path, NOW_S, [message])
    (found,) = read_captured(tmp_path)
    assert found.when == datetime.fromtimestamp(NOW_S, timezone.utc)
    assert (found.model_name, found.version, found.class_names) == ("flowers", 7, CLASS_NAMES)
    assert found.probabilities.dtype == np.float32
    assert found.probabilities == pytest.approx([0.6, 0.3, 0.1])
    assert (found.p_value, found.is_known, found.image) == (0.5, False, b"image")
    assert found.prediction_set == ("daisy", "roses")


def test_scores_alone_of_a_model_without_limits_and_versions_are_read(tmp_path: Path) -> None:
    write_file(tmp_path, NOW_S, [make_message(0, version=None)])
    (found,) = read_captured(tmp_path)
    assert (found.when, found.version, found.p_value, found.is_known) == (None, None, None, None)
    assert (found.image, found.prediction_set) == (None, None)


def test_a_batch_is_one_entry_for_each_photo(tmp_path: Path) -> None:
    rows = [(0.9, 0.1, 0.0), (0.0, 0.2, 0.8)]
    write_file(tmp_path, NOW_S, [make_message(NOW_S, rows, images=[b"one", b"two"], are_known=[True, False])])
    found = list(read_captured(tmp_path))
    assert [photo.image for photo in found] == [b"one", b"two"]
    assert [photo.is_known for photo in found] == [True, False]
    assert [photo.probabilities.argmax() for photo in found] == [0, 2]


def test_pixels_become_an_image_that_any_program_reads(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    message = make_message(NOW_S, [(1, 0, 0)] * 2)
    tensor = message.predict_log.request.inputs["images"]
    tensor.dtype, tensor.tensor_content = prediction_pb2.DT_UINT8, pixels.tobytes()
    tensor.tensor_shape.dim.extend(prediction_pb2.TensorShape.Dim(size=size) for size in pixels.shape)
    write_file(tmp_path, NOW_S, [message])
    for photo, expected in zip(read_captured(tmp_path), pixels, strict=True):
        assert photo.image
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(photo.image))), expected)


def test_files_of_several_writers_are_read_in_order_of_time(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    expected = []
    for writer in range(5):
        folder = tmp_path / f"pod-{writer}"
        folder.mkdir()
        when_s = NOW_S + int(generator.integers(50))
        for _ in range(4):
            times = [int(when_s + gap) for gap in np.cumsum(generator.integers(0, 9, 20))]
            write_file(folder, times[0] + 0.5, [make_message(each) for each in times])
            expected += times
            when_s = times[-1]
    found = [photo.when.timestamp() for photo in read_captured(tmp_path) if photo.when]
    assert found == sorted(expected)


def test_few_files_are_open_at_once(tmp_path: Path) -> None:
    for number in range(50):
        write_file(tmp_path, NOW_S + 10 * number, [make_message(NOW_S + 10 * number + second) for second in range(8)])
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("reads /proc")
    before = len(list(descriptors.iterdir()))
    most = max(len(list(descriptors.iterdir())) for _ in read_captured(tmp_path))
    assert most <= before + 3


def test_what_cannot_be_read_is_passed_over_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, other, torn = make_message(NOW_S), make_message(NOW_S), frame(b"never complete")[:-1]
    del other.predict_log.response.outputs["classes"]
    damaged = bytearray(frame(good.SerializeToString()))
    damaged[-5] ^= 1
    write_file(tmp_path, NOW_S, [good, other], end=bytes(damaged) + torn)
    write_file(tmp_path, NOW_S + 1, [good], end=frame(b"\xff\xff no message") + torn)
    (tmp_path / "notes.txt").write_text("no records")
    assert len(list(read_captured(tmp_path))) == 2
    (line,) = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    for part in ("2 files whose last record is incomplete", "2 damaged records", "1 records of requests that no"):
        assert part in line


@pytest.mark.parametrize("name", ["p_value", "is_known", "prediction_set", "probabilities"])
def test_outputs_that_do_not_fit_each_other_are_passed_over(tmp_path: Path, name: str) -> None:
    message = make_message(NOW_S, are_known=[True])
    del message.predict_log.response.outputs[name]
    fill(message.predict_log.response.outputs, {name: [0.1, 0.2]}, shape=[2])
    write_file(tmp_path, NOW_S, [message])
    assert list(read_captured(tmp_path)) == []


def test_a_photo_is_found_again_until_its_file_goes(tmp_path: Path) -> None:
    messages = [make_message(NOW_S, [(1, 0, 0)] * 2, images=[b"%d" % number, b"other"]) for number in range(3)]
    path = write_file(tmp_path, NOW_S, messages)
    positions = {photo.image: position for position, photo in read_positions(tmp_path)}
    assert read_at(positions[b"2"]).image == b"2"
    path.write_bytes(path.read_bytes()[: positions[b"2"].offset + 3])
    with pytest.raises(ValueError, match="has changed"):
        read_at(positions[b"2"])
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_at(positions[b"2"])


def test_a_folder_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    assert list(read_captured(tmp_path)) == []
    with pytest.raises(FileNotFoundError):
        read_captured(tmp_path / "none")
