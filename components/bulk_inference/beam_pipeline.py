"""Bulk inference with Beam's `RunInference`, on whatever machines Beam's options name.

Reads and writes what `classifier` does; the workers must be able to reach the images, the model and the output. The
elements of `RunInference` are parts, not images: so the rows of each are written, and kept, as soon as they are there.
Images that are grouped into files after their inference would all wait for the last one, and a pipeline that is killed
would have nothing to go on from.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from apache_beam.ml.inference.base import ModelHandler, RunInference

from client.classifier_client import Client
from components.bulk_inference.classifier import Classifier, classify_part
from components.bulk_inference.output import Part, PredictionFolder
from components.data import beam


class PartHandler(ModelHandler[Part, str, Client]):
    """Classifies parts with the thin client, which each process opens once.

    Parts come in lists of one: where `RunInference` makes batches, Dask's runner drops the last one of each bundle.
    """

    def __init__(self, classifier: Classifier, folder: PredictionFolder) -> None:
        super().__init__()
        self._classifier = classifier
        self._folder = folder

    def load_model(self) -> Client:
        return self._classifier.open()

    def should_skip_batching(self) -> bool:
        return True

    def run_inference(
        self, batch: Sequence[Part], model: Client, inference_args: dict[str, Any] | None = None
    ) -> Iterable[str]:
        """Write the parts' rows and yield the names of their files."""
        for part in batch:
            if not self._folder.has(part):  # a runner repeats work whose result it has lost
                classify_part(model, self._folder, part)
            yield part.name


def run(
    classifier: Classifier,
    folder: PredictionFolder,
    parts: Sequence[Part],
    *,
    num_workers: int,
    options: Sequence[str],
) -> None:
    """Classify parts; see `components.data.beam.run`."""
    batches = [[part] for part in parts]
    beam.run(batches, RunInference(PartHandler(classifier, folder)), num_workers=num_workers, options=options)
