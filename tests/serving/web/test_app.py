"""What a caller sees when the service itself fails."""

from typing import Any

import pytest

from serving.web.model_info import ModelInfo
from tests.serving.web.conftest import open_page


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
def test_a_failure_has_a_response_is_counted_and_goes_on_to_the_log(
    path: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_page(BrokenModel()) as page:
        # The server closes a connection after a failure.
        response = page.post(path, data=b"photo", headers={"Connection": "close"})
        assert page.metric("classifier_web_requests_total", route=path, status="500") == 1
    assert (response.status_code, response.headers["Content-Type"]) == (500, kind)
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "The service failed; its log says more." in response.text
    assert "ZeroDivisionError: a bug" in caplog.text
