"""A silent step shows that it is alive; one that logs is left alone."""

import logging
import threading

import pytest

from pipelines.heartbeat import heartbeat
from tests.pipelines.toy import wait_for


def test_a_silent_step_logs_that_it_is_running(caplog):
    with caplog.at_level(logging.INFO), heartbeat("litert", every_s=0.01):
        wait_for(lambda: len(caplog.messages) >= 2)
    assert set(caplog.messages) == {"litert: still running, 0 s"}
    assert not [t for t in threading.enumerate() if t.name == "heartbeat of litert"]


def test_a_step_that_logs_is_left_alone(caplog):
    own = logging.getLogger("components.trainer")
    with caplog.at_level(logging.INFO), heartbeat("trainer", every_s=3600):
        own.info("epoch 1")
    assert caplog.messages == ["epoch 1"]
    assert not [h for h in logging.getLogger().handlers if type(h).__name__ == "_Activity"]


def test_a_sign_ends_with_a_failing_step(caplog):
    with pytest.raises(OSError, match="no"), heartbeat("litert", every_s=0.01):
        raise OSError("no")
    assert not [t for t in threading.enumerate() if t.name == "heartbeat of litert"]
