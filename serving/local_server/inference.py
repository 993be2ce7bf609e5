"""TensorFlow Serving's PredictionService, whichever way a request came in.

Each function checks a request against a model's signature, runs it, and fills the response; the order of the checks and
the error texts are those of predict_util.cc and multi_inference.cc.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.local_server import examples, tensor_protos
from serving.local_server.errors import Code, StatusError, failed_precondition, invalid_argument
from serving.local_server.servable import CLASSIFY, DEFAULT_SIGNATURE, PREDICT, REGRESS, Array, Servable
from serving.local_server.versions import Version

Run = Callable[[Servable, Mapping[str, Array], Sequence[str]], Awaitable[list[Array]]]
"""Runs named tensors through a model: `Scheduler.run`, or the model itself while it is warmed up."""


async def predict(
    version: Version,
    request: Any,
    run: Run,
    *,
    max_tensor_bytes: int,
    as_content: bool = False,
    check_method: bool = False,
) -> Any:
    """Run a `PredictRequest`."""
    response = predict_pb2.PredictResponse()
    outputs = await predict_arrays(version, request, run, max_tensor_bytes=max_tensor_bytes, check_method=check_method)
    for alias, array in outputs.items():
        await tensor_protos.write(array, response.outputs[alias], as_content=as_content)
    _name_model(response.model_spec, version, request.model_spec)
    return response


async def predict_arrays(
    version: Version, request: Any, run: Run, *, max_tensor_bytes: int, check_method: bool = False
) -> dict[str, Array]:
    """Run a `PredictRequest`; return its outputs, by alias."""
    signature = _find_signature(version, request.model_spec.signature_name)
    protos = {**signature.defaults, **request.inputs}
    _check_signature(signature, request.inputs, check_method=check_method)
    inputs = {
        alias: await tensor_protos.read(protos[alias], alias, max_tensor_bytes) for alias in sorted(signature.inputs)
    }
    return await _run_signature(version, signature, inputs, request.output_filter, run)


async def run_signature(
    version: Version, signature: Any, inputs: Mapping[str, Array], run: Run, *, check_method: bool = False
) -> dict[str, Array]:
    """Run a signature's inputs, by alias; return its outputs, by alias."""
    _check_signature(signature, inputs, check_method=check_method)
    return await _run_signature(version, signature, inputs, (), run)


async def _run_signature(
    version: Version, signature: Any, inputs: Mapping[str, Array], output_filter: Sequence[str], run: Run
) -> dict[str, Array]:
    aliases = _choose_outputs(signature, output_filter)
    with version.lease() as servable:
        feeds = {}
        for position, (alias, info) in enumerate(sorted(signature.inputs.items())):
            tensor_protos.check_dtype(inputs[alias], info.dtype, position)
            tensor_protos.check_shape(inputs[alias].shape, servable.shape(info.name), alias)
            feeds[info.name] = inputs[alias]
        outputs = await run(servable, feeds, [signature.outputs[alias].name for alias in aliases])
    return dict(zip(aliases, outputs, strict=True))


async def classify(
    version: Version, request: Any, run: Run, *, max_tensor_bytes: int, check_method: bool = False
) -> Any:
    """Run a `ClassificationRequest`."""
    signature = _find_example_signature(version, request.model_spec)
    with version.lease():  # it is not unloaded while the examples are read
        info, fetches = examples.read_signature(signature, CLASSIFY, check_method=check_method)
        serialized = await examples.serialize(request.input, max_tensor_bytes)
        outputs = await _run_examples(version, [info], serialized, fetches, run)
    response = classification_pb2.ClassificationResponse()
    await examples.fill_classification(response.result, signature, outputs, len(serialized))
    _name_model(response.model_spec, version, request.model_spec)
    return response


async def regress(
    version: Version, request: Any, run: Run, *, max_tensor_bytes: int, check_method: bool = False
) -> Any:
    """Run a `RegressionRequest`."""
    signature = _find_example_signature(version, request.model_spec)
    with version.lease():  # it is not unloaded while the examples are read
        info, fetches = examples.read_signature(signature, REGRESS, check_method=check_method)
        serialized = await examples.serialize(request.input, max_tensor_bytes)
        outputs = await _run_examples(version, [info], serialized, fetches, run)
    response = regression_pb2.RegressionResponse()
    await examples.fill_regression(response.result, signature, outputs, len(serialized))
    _name_model(response.model_spec, version, request.model_spec)
    return response


def check_inputs(signature: Any) -> None:
    """Refuse a signature with a sparse or ragged input, which is no tensor with a name: no request can hold it."""
    for alias, info in sorted(signature.inputs.items()):
        if not info.name:
            raise invalid_argument(
                f"A signature's inputs must be plain tensors. Received: '{alias}', which is sparse or ragged. Ask for "
                "its components, in a signature that names them."
            )


def choose_model(request: Any) -> Any:
    """Return the `ModelSpec` whose model a `MultiInferenceRequest` is for; without tasks an empty one."""
    return request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()


async def multi_inference(
    version: Version, request: Any, run: Run, *, max_tensor_bytes: int, check_method: bool = False
) -> Any:
    """Run a `MultiInferenceRequest`: several signatures of one model, run once on the same examples."""
    with version.lease() as servable:
        signatures, infos, fetches = _choose_tasks(servable, request.tasks, check_method=check_method)
        serialized = await examples.serialize(request.input, max_tensor_bytes)
        outputs = await _run_examples(version, infos, serialized, fetches, run)
    response = inference_pb2.MultiInferenceResponse()
    for task, signature in zip(request.tasks, signatures, strict=True):
        result = response.results.add()
        if task.method_name == CLASSIFY:
            await examples.fill_classification(result.classification_result, signature, outputs, len(serialized))
        else:
            await examples.fill_regression(result.regression_result, signature, outputs, len(serialized))
        _name_model(result.model_spec, version, task.model_spec)
    return response


def check_metadata_fields(request: Any) -> None:
    """Refuse a `GetModelMetadataRequest` for anything but `signature_def`, the one field there is."""
    if not request.metadata_field:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for name in request.metadata_field:
        if name != "signature_def":
            raise invalid_argument(f"Metadata field {name} is not supported")


def get_metadata(version: Version) -> Any:
    """Return a version's signatures, the response to a `GetModelMetadataRequest`."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    with version.lease() as servable:
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
    response.metadata["signature_def"].Pack(signatures)
    response.model_spec.name = version.model_name
    response.model_spec.version.value = version.number
    return response


def _find_signature(version: Version, name: str) -> Any:
    with version.lease() as servable:
        signature = servable.signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        raise failed_precondition(f'Serving signature key "{name or DEFAULT_SIGNATURE}" not found.')
    return signature


def _name_model(spec: Any, version: Version, requested: Any) -> None:
    spec.name = requested.name
    spec.version.value = version.number
    spec.signature_name = requested.signature_name or DEFAULT_SIGNATURE


def _check_signature(signature: Any, inputs: Mapping[str, Any], *, check_method: bool) -> None:
    """Refuse inputs by other names than the signature's; one that has a default may be left out."""
    if check_method and signature.method_name not in (PREDICT, CLASSIFY, REGRESS):
        raise StatusError(
            Code.INTERNAL,
            "Expected prediction signature method_name to be one of "
            f"{{{PREDICT}, {CLASSIFY}, {REGRESS}}}. Was: {signature.method_name}",
        )
    check_inputs(signature)
    received, expected = set(inputs), set(signature.inputs)
    if len(received) > len(expected) or (len(received) < len(expected) and not signature.defaults):
        raise invalid_argument(
            f"input size does not match signature: {len(received)}!={len(expected)} len({{{_join(received)}}}) != "
            f"len({{{_join(expected)}}}). Sent extra: {{{_join(received - expected)}}}. Missing but required: "
            f"{{{_join(expected - received)}}}."
        )
    for alias in sorted(expected - received - set(signature.defaults)):
        raise invalid_argument(
            f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found in request and no "
            f"default value provided. Inputs expected to be in the request {{{_join(received)}}}, or default input "
            f"alias set: {_join(signature.defaults)}"
        )
    if received - expected:
        raise invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {_join(received & expected)}, request input: "
            f"{_join(received)}"
        )


def _choose_outputs(signature: Any, output_filter: Sequence[str]) -> list[str]:
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{_join(signature.outputs)}}}."
            )
        if list(output_filter).count(alias) > 1:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
    # Whatever their order, it is the same call to the model.
    return sorted(output_filter) or sorted(signature.outputs)


def _join(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def _find_example_signature(version: Version, spec: Any) -> Any:
    with version.lease() as servable:
        signature = servable.signatures.get(spec.signature_name or DEFAULT_SIGNATURE)
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {spec.signature_name or DEFAULT_SIGNATURE}")
    check_inputs(signature)
    return signature


def _choose_tasks(
    servable: Servable, tasks: Sequence[Any], *, check_method: bool
) -> tuple[list[Any], list[Any], list[str]]:
    """Return each task's signature, and of them all the inputs, as `TensorInfo`s, and the output tensors."""
    chosen: dict[str, Any] = {}
    infos: dict[str, Any] = {}
    fetches: list[str] = []
    for task in tasks:
        if not task.model_spec.name:
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if task.model_spec.name != tasks[0].model_spec.name:
            raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in chosen:
            raise invalid_argument(f"Duplicate evaluation of signature: {name}")
        signature = servable.signatures.get(name)
        if signature is None:
            raise invalid_argument(f"Requested signature not found in model graph: {name}")
        if task.method_name not in (CLASSIFY, REGRESS):
            raise StatusError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        check_inputs(signature)
        info, wanted = examples.read_signature(signature, task.method_name, check_method=check_method)
        infos[info.name] = info
        chosen[name] = signature
        fetches += [name for name in wanted if name not in fetches]
    return list(chosen.values()), list(infos.values()), fetches


async def _run_examples(
    version: Version, infos: Sequence[Any], serialized: Sequence[bytes], fetches: Sequence[str], run: Run
) -> dict[str, Array]:
    """Feed serialized examples to each input that `infos` describe; return the tensors `fetches`, by tensor name.

    The signatures of a TensorFlow 2 model have an input tensor each, those of TensorFlow 1 often share one.
    """
    feed = np.array(serialized, dtype=object)
    for position, info in enumerate(infos):
        tensor_protos.check_dtype(feed, info.dtype, position)
    with version.lease() as servable:
        outputs = await run(servable, {info.name: feed for info in infos}, fetches)
    return dict(zip(fetches, outputs, strict=True))
