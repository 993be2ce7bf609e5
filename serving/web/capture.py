"""What the page keeps of photos, where its operator wants that: their results, and the photos too if that is asked for.

The records are those of the local server; see `serving.shared.capture`.
"""

from serving.shared.capture.messages import PredictionLog, fill
from serving.shared.capture.recorder import Recorder
from serving.shared.capture.writer import CaptureOptions
from serving.web.classifier import Classified
from serving.web.model_info import ModelInfo
from serving.web.uploads import Photo

NAME = "web"
"""With which the names of the page's files begin."""

_SIGNATURE, _INPUT = "serving_default", "image_bytes"
# Of a record without its photo: three tensors and a few names.
_SCORES_BYTES = 2_000


class PhotoLog:
    """Captures photos.

    Args:
        recorder: writes the records.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def add(self, photo: Photo, result: Classified, info: ModelInfo) -> None:
        """Capture a photo and its result, perhaps."""
        if not self._recorder.chooses():
            return
        options = self._recorder.options
        content = photo.content if options.with_inputs else None

        def build(when_s: float) -> bytes:
            log = PredictionLog()
            log.log_metadata.timestamp_secs = int(when_s)
            log.log_metadata.sampling_config.sampling_rate = options.rate
            spec = log.log_metadata.model_spec
            spec.name, spec.signature_name = info.name, _SIGNATURE
            if result.model_version.isdecimal():
                spec.version.value = int(result.model_version)
            request, response = log.predict_log.request, log.predict_log.response
            request.model_spec.CopyFrom(spec)
            response.model_spec.CopyFrom(spec)
            if content is not None:
                fill(request.inputs, {_INPUT: [content]}, shape=[1])
            # In the model's order, where it is known: a prediction has the most probable class first.
            found = result.probabilities
            names = info.class_names if set(info.class_names) == set(found) else tuple(sorted(found))
            shape = [1, len(names)]
            fill(response.outputs, {"probabilities": [found[name] for name in names], "classes": names}, shape=shape)
            if result.p_value is not None and result.is_known is not None and result.prediction_set is not None:
                fill(response.outputs, {"p_value": [result.p_value], "is_known": [result.is_known]}, shape=[1])
                held = [name in result.prediction_set for name in names]
                fill(response.outputs, {"prediction_set": held}, shape=shape)
            return bytes(log.SerializeToString())

        self._recorder.offer(info.name, build, _SCORES_BYTES + len(content or b""))


def describe(options: CaptureOptions | None) -> str:
    """Return what is kept of photos, where, and for how long, for those whose photos they are."""
    if options is None:
        return "Photos are not kept."
    share = "each photo" if options.rate == 1 else f"a random {100 * options.rate:.3g}\u00a0% of the photos"
    days = f"{options.max_age_days:g} {'day' if options.max_age_days == 1 else 'days'}"
    where = f"on the computer that runs this page, for at most {days}"
    if not options.with_inputs:
        return (
            f"Photos are not kept. The result of {share} is kept, with the time and without any name, {where}: it "
            "shows how well the model does."
        )
    return (
        f"A copy of {share} is kept as sent, with the result and the time, {where}. Some of these are chosen to "
        "improve the model, and are kept for longer. Do not send a photo that should not be kept."
    )
