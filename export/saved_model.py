"""The SavedModel that is served: encoded images or pixels in, probabilities and class names out.

Writes a SavedModel with two signatures, warmup requests that TensorFlow Serving replays before it takes traffic, and
`assets.extra/model_spec.json`, which says what a client has to know.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.protobuf import fingerprint_pb2

from export import preprocessing
from export.embedding import add_embedding
from export.limits import Limits, LimitsModule
from export.spec import ModelSpec, write_spec

WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"


def save(
    classifier: keras.Model,
    *,
    limits: Limits,
    spec: ModelSpec,
    warmup_images: Sequence[bytes],
    out_dir: Path,
) -> None:
    """Write a classifier as a SavedModel.

    Both signatures return `probabilities` `float32 [N, C]` and `classes` `string [N, C]`, in the order of the spec's
    `class_names`, and the outputs of `limits.LimitsModule`; N may be 0:

    - `serving_default` takes `image_bytes`, `string [N]`: JPEG, PNG, GIF, BMP or WebP files;
    - `images` takes `images`, `uint8 [N, size, size, 3]`, RGB, 0–255.

    Args:
        classifier: `uint8 [N, size, size, 3]` to `float32 [N, C]`.
        limits: of the classifier.
        spec: written as `model_spec.json`; its `class_names` are in the order of the classifier's outputs.
        warmup_images: encoded images to warm the server up with.
        out_dir: an existing folder.
    """
    size_px = spec["image_size_px"]
    labels = tf.constant(spec["class_names"])
    network, describe = add_embedding(classifier), LimitsModule(limits)

    def classify_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # Layers such as a convolution refuse a batch of none: it gets an image, whose result is dropped.
        num_images = tf.shape(images)[0]
        images = tf.pad(images, [[0, tf.cast(num_images == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
        embeddings, probabilities = (output[:num_images] for output in network(images, training=False))
        classes = tf.tile(labels[tf.newaxis], [tf.shape(probabilities)[0], 1])
        return {"probabilities": probabilities, "classes": classes, **describe(embeddings, probabilities)}

    def classify_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.map_fn(
            lambda encoded: preprocessing.load(encoded, size_px), image_bytes, fn_output_signature=tf.uint8
        )
        return classify_images(tf.ensure_shape(images, [None, size_px, size_px, 3]))

    # keras.export.ExportArchive would store every weight twice.
    module = tf.Module()
    module.weights = [variable.value for variable in network.variables]
    module.labels, module.limits = labels, describe
    signatures = {
        name: tf.function(function, [tensor], autograph=False)  # there is no Python to convert, and it takes seconds
        for name, function, tensor in (
            ("serving_default", classify_bytes, tf.TensorSpec([None], tf.string, "image_bytes")),
            ("images", classify_images, tf.TensorSpec([None, size_px, size_px, 3], tf.uint8, "images")),
        )
    }
    tf.saved_model.save(module, str(out_dir), signatures=signatures)
    _replace_uuid(out_dir / "fingerprint.pb")
    write_spec(out_dir, spec)
    _write_warmup(out_dir / WARMUP, spec["model_name"], warmup_images, size_px)


def _replace_uuid(path: Path) -> None:
    """Replace the random id in a SavedModel's fingerprint, so that the same model has the same files."""
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.uuid = str(fingerprint.saved_model_checksum)
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))


def _write_warmup(path: Path, model_name: str, images: Sequence[bytes], size_px: int) -> None:
    """Write a `PredictionLog` for each image and signature: TensorFlow Serving's saved_model_warmup format."""
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    def request(signature: str, inputs: Mapping[str, Any]) -> bytes:
        predict = predict_pb2.PredictRequest()
        predict.model_spec.name = model_name
        predict.model_spec.signature_name = signature
        for name, value in inputs.items():
            predict.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=predict))
        return log.SerializeToString(deterministic=True)

    with tf.io.TFRecordWriter(str(path)) as writer:
        for encoded in images:
            writer.write(request("serving_default", {"image_bytes": [encoded]}))
            pixels = preprocessing.load(tf.constant(encoded), size_px)
            writer.write(request("images", {"images": pixels.numpy()[None]}))
