"""Versions of a model that says rose or daisy by a hash of the photo's bytes, each bad in a way of its own."""

from pathlib import Path
from typing import Any

NAME = "flowers"
SAME, CRASHING, SLOW, OTHER, BROKEN = 2, 3, 4, 5, 6
CLASSES = ["daisy", "rose"]


def write_version(path: Path, kind: int) -> None:
    import tensorflow as tf

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def serve(self, image_bytes: Any) -> dict[str, Any]:
            bucket = tf.strings.to_hash_bucket_fast(image_bytes, 100)
            is_rose = tf.cast(bucket < (90 if kind == OTHER else 50), tf.float32)
            if kind == CRASHING:
                with tf.control_dependencies([tf.debugging.assert_less(bucket, tf.constant(0, tf.int64))]):
                    is_rose = tf.identity(is_rose)
            if kind == SLOW:
                product = tf.random.uniform([500, 500])
                for _ in tf.range(20):
                    product = tf.linalg.matmul(product, product) * 1e-3
                is_rose += 0 * tf.minimum(tf.reduce_sum(product), 1)
            probability = 0.1 + 0.8 * is_rose
            return {
                "probabilities": tf.stack([1 - probability, probability], axis=1),
                "classes": tf.tile([CLASSES], [tf.size(image_bytes), 1]),
            }

    model = Model()
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.serve})
