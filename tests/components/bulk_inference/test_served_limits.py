"""The limits in a row are those that the server tells of the same photo, whichever protocol brings them."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pyarrow import parquet

from client.classifier_client.transports.answers import LIMITS
from pipelines import __main__ as command_line
from serving import launcher

SIZE_PX = 16
CLASS_NAMES = ["red", "green", "blue"]
COLOURS = {"red.png": "red", "grey.png": (130, 120, 125), "olive.png": (200, 190, 0), "black.png": "black"}


class Colours(tf.Module):
    """Tells colours apart, and knows bright images alone."""

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE_PX, SIZE_PX, 3], tf.uint8, "images")])
    def images(self, images: Any) -> dict[str, Any]:
        means = tf.reduce_mean(tf.cast(images, tf.float32), [1, 2]) / 255
        probabilities = tf.nn.softmax(4 * means)
        p_value = tf.reduce_max(means, 1) / 3
        return {
            "probabilities": probabilities,
            "classes": tf.tile(tf.constant([CLASS_NAMES]), [tf.shape(images)[0], 1]),
            "p_value": p_value,
            "is_known": p_value > 0.03,
            "prediction_set": probabilities >= tf.minimum(0.4, tf.reduce_max(probabilities, 1, keepdims=True)),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def encoded(self, image_bytes: Any) -> dict[str, Any]:
        def decode(content: Any) -> Any:
            return tf.ensure_shape(tf.io.decode_png(content, 3), [SIZE_PX, SIZE_PX, 3])

        result: dict[str, Any] = self.images(tf.map_fn(decode, image_bytes, fn_output_signature=tf.uint8))
        return result


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[launcher.Server]:
    folder = tmp_path_factory.mktemp("served")
    module = Colours()
    signatures = {"serving_default": module.encoded, "images": module.images}
    tf.saved_model.save(module, str(folder / "colours" / "7"), signatures=signatures)
    log_path = folder / "server.log"
    with launcher.serve(
        model_name="colours", base_path=folder / "colours", log_path=log_path, engine="local"
    ) as running:
        yield running


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of the model's size, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (SIZE_PX, SIZE_PX), colour).save(folder / name)
    (folder / "bad.png").write_bytes(b"no image")
    return folder


def query(server: launcher.Server, photo: Path) -> dict[str, Any]:
    """Return the server's own outputs for a photo."""
    body = {"signature_name": "images", "inputs": [np.asarray(Image.open(photo)).tolist()]}
    url = f"http://{server.host}:{server.rest_port}/v1/models/colours:predict"
    with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=60) as response:
        outputs = json.load(response)["outputs"]
    return {name: values[0] for name, values in outputs.items()}


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.usefixtures("own_logging")
def test_a_row_has_the_limits_that_the_server_tells_of_the_photo(server, photos, tmp_path, capsys, protocol):
    target = server.grpc_target if protocol == "grpc" else f"{server.host}:{server.rest_port}"
    arguments = ["--input", str(photos), "--model", f"{protocol}://{target}/colours", "--output", str(tmp_path / "out")]
    assert command_line.main(["infer", *arguments, "--workers", "1"]) == 0
    assert "(5 images, 1 errors, 1 like none of the classes)" in capsys.readouterr().out
    rows = {Path(row["image"]).name: row for row in parquet.read_table(tmp_path / "out").to_pylist()}
    bad = rows.pop("bad.png")
    assert [bad[name] for name in LIMITS] == [None] * 3
    assert {name: row["is_known"] for name, row in rows.items()} == {name: name != "black.png" for name in COLOURS}
    assert rows["olive.png"]["prediction_set"] == ["red", "green"]
    for name, row in rows.items():
        told = query(server, photos / name)
        by_label = dict(zip(told["classes"], told["probabilities"], strict=True))
        held = [label for label, is_in in zip(told["classes"], told["prediction_set"], strict=True) if is_in]
        assert row["p_value"] == pytest.approx(told["p_value"], abs=1e-6)  # float32, in another batch
        assert row["is_known"] == told["is_known"]
        assert row["prediction_set"] == sorted(held, key=lambda label: -by_label[label])
        assert dict(row["probabilities"]) == pytest.approx(by_label, abs=1e-6)
