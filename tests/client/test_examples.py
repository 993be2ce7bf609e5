"""The examples in the client's documentation run as printed."""

import doctest
from pathlib import Path
from types import ModuleType

import pytest

from client.classifier_client import client, preprocessing, sources
from tests.client.fakes import FakeRest

SAMPLES = Path(client.__file__).parents[1] / "samples"


@pytest.mark.parametrize("module", [client, preprocessing, sources], ids=lambda module: module.__name__)
def test_examples_run(module: ModuleType, fake_rest: FakeRest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SAMPLES)
    result = doctest.testmod(module, extraglobs={"RestTransport": lambda *_, **__: fake_rest.connect()})
    assert result.attempted
    assert not result.failed
