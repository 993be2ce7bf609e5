"""What a caller sees when the service itself fails."""

import asyncio
from typing import Any

import pytest

from serving.web.app import make_app
from serving.web.classifier import Classifier
from serving.web.metrics import Metrics
from serving.web.model_info import ModelInfo
from serving.web.settings import Settings


class BrokenModel:
    """A model with a bug."""

    info = ModelInfo("flowers", "here")

    def classify(self, image: Any) -> Any:
        raise ZeroDivisionError("a bug")

    def refresh(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("path", "kind"), [("/api/classify", "application/json"), ("/", "text/html; charset=utf-8")])
def test_a_failure_is_answered_counted_and_goes_on_to_the_log(path: str, kind: str) -> None:
    metrics = Metrics()
    classifier = Classifier(BrokenModel(), threshold=0.5, num_workers=1, metrics=metrics)
    app = make_app(classifier, Settings(), metrics)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"photo", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [], "client": ("x", 1)}
    with pytest.raises(ZeroDivisionError):
        asyncio.run(app(scope, receive, send))
    classifier.close()
    headers = dict(sent[0]["headers"])
    assert (sent[0]["status"], headers[b"content-type"].decode()) == (500, kind)
    assert b"default-src 'none'" in headers[b"content-security-policy"]
    assert b"The service failed; its log says more." in sent[1]["body"]
    assert f'classifier_web_requests_total{{route="{path}",status="500"}} 1.0' in metrics.page().decode()
