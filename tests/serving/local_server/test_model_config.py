from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.local_server.errors import Code, StatusError
from serving.local_server.model_config import LoggingConfig, ModelConfig, from_proto

LOGGED = 'logging_config { log_collector_config { type: "file"'
MODEL = 'name: "m" base_path: "/models/m" model_platform: "tensorflow"'


def read(text: str) -> tuple[ModelConfig, ...]:
    return from_proto(text_format.Parse(text, ModelServerConfig()))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", {"num_latest": 1}),
        ("model_version_policy { latest {} }", {"num_latest": 1}),
        ("model_version_policy { latest { num_versions: 3 } }", {"num_latest": 3}),
        ("model_version_policy { all {} }", {"num_latest": None}),
        ("model_version_policy { specific { versions: 2 versions: 5 } }", {"num_latest": None, "specific": (2, 5)}),
        (
            'logging_config { log_collector_config { type: "file" filename_prefix: "/log/m" } '
            "sampling_config { sampling_rate: 0.25 } }",
            {"logging": LoggingConfig("/log/m", 0.25)},
        ),
        (
            'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }',
            {"labels": {"stable": 1, "canary": 2}},
        ),
    ],
)
def test_a_model_is_read(policy: str, expected: dict[str, Any]) -> None:
    [config] = read(f"model_config_list {{ config {{ {MODEL} {policy} }} }}")
    assert config == ModelConfig("m", Path("/models/m"), **expected)


def test_several_models_are_read_in_order() -> None:
    one, two = read(f"""model_config_list {{
        config {{ {MODEL} }}
        config {{ name: "n" base_path: "models/n" model_type: TENSORFLOW }}
    }}""")
    assert (one.name, two.name, two.base_path) == ("m", "n", Path("models/n"))


@pytest.mark.parametrize("text", ["", "model_config_list {}"])
def test_no_model_is_a_configuration_too(text: str) -> None:
    assert read(text) == ()


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (
            'base_path: "/m" model_platform: "tensorflow"',
            ["needs a name and a base_path", "Received: '' and '/m'", "Add"],
        ),
        ('name: "m" model_platform: "tensorflow"', ["needs a name and a base_path", "Received: 'm' and ''", "Add"]),
        (
            f"{MODEL} model_type: TENSORFLOW",
            ["Illegal setting both", "Received: both for model m", "Keep model_platform"],
        ),
        (
            'name: "m" base_path: "/m"',
            ["Illegal setting neither", "Received: neither for model m", "Add model_platform"],
        ),
        (
            'name: "m" base_path: "/m" model_platform: "pytorch"',
            ["model_platform must be 'tensorflow'", "Received: 'pytorch' for model m", "not served here"],
        ),
        ('name: "m" base_path: "/m" model_type: OTHER', ["must be 'tensorflow'", "Received: 'other' for model m"]),
        (
            f"{MODEL} model_version_policy {{ specific {{}} }}",
            ["'specific' needs versions", "Received: none for model m", "Add a line `versions: 1`"],
        ),
        (
            f'{MODEL} {LOGGED} filename_prefix: "" }} }}',
            ["filename_prefix must be the path of a folder", "Received: '' for model m", "Write such as"],
        ),
        (f'{MODEL} {LOGGED} filename_prefix: "gs://b/x" }} }}', ["filename_prefix must be", "Received: 'gs://b/x'"]),
        (
            f'{MODEL} {LOGGED} filename_prefix: "x" }} sampling_config {{ sampling_rate: 1.5 }} }}',
            ["sampling_rate must be 0 to 1", "Received: 1.5 for model m", "Write 0.1"],
        ),
        (
            f'{MODEL} {LOGGED} filename_prefix: "x" }} sampling_config {{ sampling_rate: 1 attributes: 2 }} }}',
            ["chosen by sampling_rate alone", "for model m", "Leave out custom_logging_config"],
        ),
        (f"{MODEL} }} config {{ {MODEL}", ["Illegal to list model m multiple times in config list", "once"]),
    ],
)
def test_an_error_says_the_rule_what_was_received_and_what_to_do(model: str, parts: list[str]) -> None:
    with pytest.raises(StatusError) as caught:
        read(f"model_config_list {{ config {{ {model} }} }}")
    assert caught.value.code is Code.INVALID_ARGUMENT
    for part in parts:
        assert part in caught.value.message


def test_a_custom_configuration_is_refused() -> None:
    with pytest.raises(StatusError, match=r"model_config_list\. Received: custom_model_config\. List them there"):
        read("custom_model_config {}")


@given(versions=st.sets(st.integers(0, 2**63 - 1)), num_latest=st.integers(1, 5), specific=st.sets(st.integers(1, 9)))
def test_a_policy_chooses_among_the_versions_there_are(versions: set[int], num_latest: int, specific: set[int]) -> None:
    latest = ModelConfig("m", Path("m"), num_latest).choose(versions)
    assert latest == set(sorted(versions)[-num_latest:])
    assert ModelConfig("m", Path("m"), None).choose(versions) == versions
    if specific:
        assert ModelConfig("m", Path("m"), None, tuple(specific)).choose(versions) == versions & specific
