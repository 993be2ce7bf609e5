"""What was asked of a served model and what it predicted: written by both servers, read by whoever watches or reviews.

The format is TensorFlow Serving's own: files of TFRecords, each a `PredictionLog`. Nothing here needs TensorFlow.
"""

from serving.shared.capture.reader import Captured, read_captured

__all__ = ["Captured", "read_captured"]
