"""Bulk inference as a Beam pipeline: `Create(parts) | Reshuffle | RunInference`.

Reads and writes what `components.bulk_inference` does, on whatever machines Beam's options name; the images, the model
and the output must be within their reach. What `RunInference` is given is a part, not an image: so its rows are
written, and kept, as soon as they are there. Images that are grouped into files after their inference would all wait
for the last one, and a pipeline that is killed would have nothing to go on from.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

from client.classifier_client import Client
from components.bulk_inference import Classifier, classify_part
from components.errors import InferenceError
from components.predictions import Part, PredictionFolder


class PartHandler(ModelHandler[Part, str, Client]):
    """Classifies parts with the thin client, which each process opens once."""

    def __init__(self, classifier: Classifier, folder: PredictionFolder) -> None:
        super().__init__(max_batch_size=1)
        self._classifier = classifier
        self._folder = folder

    def load_model(self) -> Client:
        return self._classifier.open()

    def run_inference(
        self, batch: Sequence[Part], model: Client, inference_args: dict[str, Any] | None = None
    ) -> Iterable[str]:
        """Write the parts' rows; give the names of their files."""
        for part in batch:
            classify_part(model, self._folder, part)
            yield part.name


def run(
    classifier: Classifier,
    folder: PredictionFolder,
    parts: Sequence[Part],
    *,
    num_workers: int,
    beam_options: Sequence[str],
) -> None:
    """Classify the parts and wait for the end.

    Args:
        classifier: how a worker comes to the model.
        folder: where the rows go.
        parts: what is missing there.
        num_workers: processes of the direct runner.
        beam_options: options of Beam, which go before the ones here.

    Raises:
        InferenceError: the pipeline failed.
    """
    given = [
        f"--direct_num_workers={num_workers}",
        "--direct_running_mode=multi_processing",
        # Nothing here has triggers; but with this option the direct runner does its work itself, instead of trying to
        # fetch another runner from the net.
        "--allow_unsafe_triggers",
        "--default_sdk_harness_log_level=ERROR",
    ]
    try:
        with beam.Pipeline(options=PipelineOptions([*given, *beam_options])) as pipeline:
            _ = (
                pipeline
                | "Parts" >> beam.Create(parts)
                | "Spread" >> beam.Reshuffle()
                | "Classify" >> RunInference(PartHandler(classifier, folder))
            )
    except Exception as exc:  # Beam's runners raise what they like, and with it the text of a worker's failure.
        said = str(exc).strip().splitlines() or [type(exc).__name__]
        raise InferenceError(
            f"The Beam pipeline failed: {said[-1]} What is done is kept: the same command goes on."
        ) from exc
