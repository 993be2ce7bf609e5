"""Which models are served, and which of their versions: from a file, the flags or a reload request."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorflow_serving.config.model_server_config_pb2 import ModelType

from serving.local_server.errors import invalid_argument, not_found

_PLATFORM = "tensorflow"


_FILES = "file"
"""The only type of log collector."""


@dataclass(frozen=True)
class LoggingConfig:
    """Which requests of a model are written to files.

    Attributes:
        filename_prefix: a path with which the paths of the files begin.
        sampling_rate: the share of requests, 0–1.
    """

    filename_prefix: str
    sampling_rate: float


@dataclass(frozen=True)
class ModelConfig:
    """One model to serve.

    Attributes:
        name: which requests give.
        base_path: the folder of its numeric version folders.
        num_latest: serve this many of the newest versions; `None` for another policy.
        specific: serve these versions; empty for another policy. With neither, all of them.
        labels: names for versions.
        logging: which requests are written to files; `None` for none.
    """

    name: str
    base_path: Path
    num_latest: int | None = 1
    specific: tuple[int, ...] = ()
    labels: dict[str, int] = field(default_factory=dict)
    logging: LoggingConfig | None = None

    def choose(self, versions: Iterable[int]) -> set[int]:
        """Return those of the versions on disk that are to be served."""
        found = sorted(versions)
        if self.specific:
            return set(found) & set(self.specific)
        return set(found if self.num_latest is None else found[-self.num_latest :])


def from_proto(config: Any) -> tuple[ModelConfig, ...]:
    """Read a `ModelServerConfig`.

    Raises:
        StatusError: it names a model twice, without a path or of a platform that is not served here, or none.
    """
    if config.HasField("custom_model_config"):
        raise invalid_argument(
            "Models are read from model_config_list. Received: custom_model_config. List them there instead."
        )
    models = tuple(_read_model(model) for model in config.model_config_list.config)
    names = [model.name for model in models]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise invalid_argument(f"Illegal to list model {twice} multiple times in config list. List it once.")
    return models


def _read_model(proto: Any) -> ModelConfig:
    if not proto.name or not proto.base_path:
        raise invalid_argument(
            f"Every model needs a name and a base_path. Received: {proto.name!r} and {proto.base_path!r}. Add both."
        )
    if proto.model_type and proto.model_platform:
        raise invalid_argument(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform. "
            f"Received: both for model {proto.name}. Keep model_platform: '{_PLATFORM}'."
        )
    if not proto.model_type and not proto.model_platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform. "
            f"Received: neither for model {proto.name}. Add model_platform: '{_PLATFORM}'."
        )
    platform = proto.model_platform or (_PLATFORM if proto.model_type == ModelType.TENSORFLOW else "other")
    if platform != _PLATFORM:
        raise invalid_argument(
            f"model_platform must be '{_PLATFORM}'. Received: '{platform}' for model {proto.name}. Other platforms are "
            "not served here."
        )
    policy = proto.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    specific = tuple(policy.specific.versions)
    if kind == "specific" and not specific:
        raise invalid_argument(
            f"The policy 'specific' needs versions. Received: none for model {proto.name}. Add a line `versions: 1`."
        )
    num_latest = (policy.latest.num_versions or 1) if kind in (None, "latest") else None
    logging = _read_logging(proto) if proto.HasField("logging_config") else None
    return ModelConfig(proto.name, Path(proto.base_path), num_latest, specific, dict(proto.version_labels), logging)


def _read_logging(proto: Any) -> LoggingConfig:
    """Read a model's `LoggingConfig`; TensorFlow Serving's own server registers no collector at all."""
    config, name = proto.logging_config, proto.name
    collector, sampling = config.log_collector_config, config.sampling_config
    if collector.type != _FILES:
        raise not_found(
            f"Cannot find LogCollector::Factory for type: {collector.type}. The only one here is '{_FILES}', which "
            f"writes TFRecords. Correct log_collector_config of model {name}."
        )
    if not collector.filename_prefix or "://" in collector.filename_prefix:
        raise invalid_argument(
            "filename_prefix must be the path of a folder of this machine and the beginning of a file's name. "
            f"Received: {collector.filename_prefix!r} for model {name}. Write such as '/var/log/serving/{name}'."
        )
    if not 0 <= sampling.sampling_rate <= 1:
        raise invalid_argument(
            f"sampling_rate must be 0 to 1. Received: {sampling.sampling_rate} for model {name}. Write 0.1 for a tenth."
        )
    if config.HasField("custom_logging_config") or sampling.attributes or sampling.per_task_sampling_configs:
        raise invalid_argument(
            f"Requests are chosen by sampling_rate alone. Received: more than that for model {name}. Leave out "
            "custom_logging_config, attributes and per_task_sampling_configs."
        )
    return LoggingConfig(collector.filename_prefix, sampling.sampling_rate)
