"""Warmup: recorded requests are replayed on a model before it takes traffic, so that the first caller does not wait.

The records lie in the SavedModel, in TensorFlow Serving's format: a TFRecord of `PredictionLog`
(tensorflow.org/tfx/serving/saved_model_warmup).
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.local_server import inference
from serving.local_server.errors import Code, StatusError, from_tensorflow, invalid_argument
from serving.local_server.servable import LITERT, Array, Servable
from serving.local_server.versions import AVAILABLE, Version

log = logging.getLogger(__name__)

RECORDS = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000


def warm_up(servable: Servable, model_name: str, version_dir: Path, *, num_iterations: int = 0) -> int:
    """Replay a model's recorded requests; a model without records is not warmed up.

    Args:
        servable: the model.
        model_name: its name.
        version_dir: its folder, where the records lie.
        num_iterations: how often each is replayed; once where this is 0 or less.

    Returns:
        How many were replayed.

    Raises:
        StatusError: the records cannot be read, are too many, or one of them fails: such a model is not served.
    """
    path = version_dir / RECORDS
    if not path.is_file():
        return 0
    version = Version(model_name, 0, version_dir, state=AVAILABLE, servable=servable)
    records = _read(path)
    for record in records:
        for _ in range(max(num_iterations, 1)):
            try:
                asyncio.run(_replay(version, record))
            except StatusError as exc:
                if servable.runtime == LITERT:
                    # Recorded for the SavedModel beside it, which has signatures that this file may lack.
                    log.info("%s: a warmup request does not fit the LiteRT model: %s", version_dir, exc.message)
                    break
                raise StatusError(exc.code, f"a warmup request of {path} fails: {exc.message}") from exc
    return len(records)


def _read(path: Path) -> list[Any]:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    try:
        with from_tensorflow():
            raw = [record.numpy() for record in tf.data.TFRecordDataset(str(path)).take(MAX_RECORDS + 1)]
    except StatusError as exc:
        if exc.code is not Code.DATA_LOSS:
            raise
        hint = "Please verify your warmup data is in TFRecord format."
        raise StatusError(exc.code, f"{path}: {exc.message}. {hint}") from exc
    if len(raw) > MAX_RECORDS:
        raise invalid_argument(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
    try:
        return [prediction_log_pb2.PredictionLog.FromString(record) for record in raw]
    except Exception as exc:
        raise invalid_argument(f"Failed to parse warmup record: {exc} from {path}") from exc


async def _replay(version: Version, record: Any) -> None:
    kind = record.WhichOneof("log_type")
    if kind == "predict_log":
        await inference.predict_arrays(version, record.predict_log.request, _run_directly, max_tensor_bytes=1 << 31)
    elif kind == "classify_log":
        await inference.classify(version, record.classify_log.request, _run_directly, max_tensor_bytes=1 << 31)
    elif kind == "regress_log":
        await inference.regress(version, record.regress_log.request, _run_directly, max_tensor_bytes=1 << 31)
    elif kind == "multi_inference_log":
        await inference.multi_inference(
            version, record.multi_inference_log.request, _run_directly, max_tensor_bytes=1 << 31
        )
    elif kind == "session_run_log":
        number = record.DESCRIPTOR.fields_by_name[kind].number
        raise StatusError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")
    # Any other, and one that is not set, is passed over, as TensorFlow Serving does.


async def _run_directly(servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
    return servable.run(feeds, fetches)
