"""Which models are served, and which of their versions: from a file, the flags or a reload request."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.local_server.errors import invalid_argument

_PLATFORM = "tensorflow"
_TENSORFLOW_TYPE = 1  # ModelType.TENSORFLOW, deprecated since model_platform came


@dataclass(frozen=True)
class ModelConfig:
    """One model to serve.

    Attributes:
        name: under which it is asked for.
        base_path: the folder of its numeric version folders.
        num_latest: serve this many of the newest versions; `None` for another policy.
        specific: serve these versions; empty for another policy. With neither, all of them.
        labels: names for versions.
    """

    name: str
    base_path: Path
    num_latest: int | None = 1
    specific: tuple[int, ...] = ()
    labels: dict[str, int] = field(default_factory=dict)

    def choose(self, versions: Iterable[int]) -> set[int]:
        """Give those of the versions on disk that are to be served."""
        found = sorted(versions)
        if self.specific:
            return set(found) & set(self.specific)
        return set(found if self.num_latest is None else found[-self.num_latest :])


def from_proto(config: Any) -> tuple[ModelConfig, ...]:
    """Read a `ModelServerConfig`.

    Raises:
        StatusError: it names a model twice, without a path or of a platform that is not served here.
    """
    models = tuple(_read_model(model) for model in config.model_config_list.config)
    names = [model.name for model in models]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise invalid_argument(f"Illegal to list model {twice} multiple times in config list")
    return models


def _read_model(proto: Any) -> ModelConfig:
    if not proto.name or not proto.base_path:
        raise invalid_argument(
            f"Every model needs a name and a base_path. Received: {proto.name!r}, {proto.base_path!r}"
        )
    if proto.model_type and proto.model_platform:
        raise invalid_argument("Illegal setting both model_type(deprecated) and model_platform.")
    if not proto.model_type and not proto.model_platform:
        raise invalid_argument("Illegal setting neither model_type(deprecated) nor model_platform.")
    if (proto.model_platform or _PLATFORM) != _PLATFORM or (proto.model_type or _TENSORFLOW_TYPE) != _TENSORFLOW_TYPE:
        raise invalid_argument(
            f"model_platform must be '{_PLATFORM}'. Received: '{proto.model_platform}' for model {proto.name}"
        )
    policy = proto.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    specific = tuple(policy.specific.versions)
    if kind == "specific" and not specific:
        raise invalid_argument(f"The policy 'specific' needs versions. Received none for model {proto.name}")
    num_latest = (policy.latest.num_versions or 1) if kind in (None, "latest") else None
    return ModelConfig(proto.name, Path(proto.base_path), num_latest, specific, dict(proto.version_labels))
