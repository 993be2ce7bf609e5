"""The alert rules, read by promtool: valid, and each fires when it should, and not before."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers.docker import ROOT, docker
from tests.serving import expressions

pytestmark = pytest.mark.containers

CONFIG = ROOT / "serving" / "config"
COMPOSE = yaml.safe_load((ROOT / "serving" / "compose.yaml").read_text())
IMAGE = COMPOSE["services"]["prometheus"]["image"]

SERVER = 'job="tensorflow_serving", instance="server:8501"'
WEB = 'job="web", instance="web:8080"'
REQUESTS = f':tensorflow:serving:request_count{{{SERVER}, model_name="flowers", status="%s"}}'
RUNS = f':tensorflow:serving:runtime_latency_count{{{SERVER}, model_name="flowers", API="Predict", runtime="TF1"}}'
LATENCY = f':tensorflow:serving:request_latency_bucket{{{SERVER}, model_name="flowers", API="%s", le="%s"}}'
LOADS = f':tensorflow:cc:saved_model:load_attempt_count{{{SERVER}, model_path="/models/flowers/%s", status="%s"}}'
PAGE = f'classifier_web_requests_total{{{WEB}, route="/api/classify", status="%s"}}'
WATCH = 'classifier_watch_%s{instance="node:9100", model_name="flowers", version="1"%s}'

UP = f"up{{{SERVER}}}"
MINUTES = 12
FOREVER = f"x{4 * MINUTES}"

# By alert, series in which it fires and series in which it does not: in promtool's notation, a value every 15 s.
CASES: dict[str, tuple[list[dict[str, str]], list[dict[str, str]]]] = {
    "ServerDown": ([{UP: f"0{FOREVER}"}], [{UP: f"1{FOREVER}"}, {UP: f"1x30 0 0 1{FOREVER}"}]),
    "NoVersionAvailable": (
        [
            # The page's queries find none; the health check's queries of the status are OK.
            {REQUESTS % "NOT_FOUND": f"0+3{FOREVER}", REQUESTS % "OK": f"0+2{FOREVER}", UP: f"1{FOREVER}"},
            # A version was served, and is gone.
            {REQUESTS % "NOT_FOUND": f"0+3{FOREVER}", RUNS: f"9+0{FOREVER}", LOADS % (1, "success"): f"1{FOREVER}"},
            # Nobody calls.
            {UP: f"1{FOREVER}"},
            {UP: f"1{FOREVER}", LOADS % (1, "fail"): f"3{FOREVER}"},
        ],
        [
            {UP: f"1{FOREVER}", LOADS % (1, "success"): f"1{FOREVER}"},
            # Someone names a version that is not there.
            {REQUESTS % "NOT_FOUND": f"0+3{FOREVER}", RUNS: f"0+3{FOREVER}"},
            {UP: f"0{FOREVER}"},
        ],
    ),
    "VersionNotFound": (
        [{REQUESTS % "NOT_FOUND": f"0+1{FOREVER}", RUNS: f"0+3{FOREVER}"}],
        [
            {REQUESTS % "NOT_FOUND": f"7+0{FOREVER}", RUNS: f"0+3{FOREVER}"},
            {REQUESTS % "INVALID_ARGUMENT": f"0+1{FOREVER}", RUNS: f"0+3{FOREVER}"},
        ],
    ),
    "VersionBroken": (
        [
            {LOADS % (1, "success"): f"1{FOREVER}", LOADS % (2, "fail"): f"_x40 1{FOREVER}"},
            {LOADS % (1, "success"): f"1{FOREVER}", LOADS % (2, "fail"): f"1x40 2{FOREVER}"},
        ],
        [{LOADS % (1, "success"): f"1{FOREVER}"}],
    ),
    "ServerErrors": (
        [{REQUESTS % "INTERNAL": f"0+1{FOREVER}", REQUESTS % "OK": f"0+9{FOREVER}"}],
        [
            {REQUESTS % "INTERNAL": f"0+1{FOREVER}", REQUESTS % "OK": f"0+99{FOREVER}"},
            {REQUESTS % "INVALID_ARGUMENT": f"0+9{FOREVER}", REQUESTS % "OK": f"0+9{FOREVER}"},
            {REQUESTS % "OK": f"5+0{FOREVER}", REQUESTS % "INTERNAL": f"5+0{FOREVER}"},
        ],
    ),
    "QueueFull": (
        [{REQUESTS % "UNAVAILABLE": f"0+1{FOREVER}", REQUESTS % "OK": f"0+50{FOREVER}"}],
        [{REQUESTS % "UNAVAILABLE": f"0+1{FOREVER}", REQUESTS % "OK": f"0+500{FOREVER}"}],
    ),
    "ServerSlow": (
        [{LATENCY % ("predict", "2e6"): f"0+9{FOREVER}", LATENCY % ("predict", "+Inf"): f"0+10{FOREVER}"}
         | {LATENCY % ("predict", "4e6"): f"0+10{FOREVER}"}],
        [
            {LATENCY % ("Predict", "1e6"): f"0+10{FOREVER}", LATENCY % ("Predict", "+Inf"): f"0+10{FOREVER}"},
            # Queries of the status do not run the model.
            {LATENCY % ("status", "2e6"): f"0+1{FOREVER}", LATENCY % ("status", "+Inf"): f"0+10{FOREVER}"},
        ],
    ),
    "PageDown": ([{f"up{{{WEB}}}": f"0{FOREVER}"}], [{f"up{{{WEB}}}": f"1{FOREVER}"}]),
    "PageNotReady": (
        [{f"classifier_web_model_ready{{{WEB}}}": f"1x10 0{FOREVER}"}],
        [{f"classifier_web_model_ready{{{WEB}}}": f"1x10 0 0 1{FOREVER}"}],
    ),
    "PageErrors": (
        [{PAGE % 500: f"0+1{FOREVER}", PAGE % 200: f"0+9{FOREVER}"}, {PAGE % 503: f"0+1{FOREVER}"}],
        [{PAGE % 500: f"0+1{FOREVER}", PAGE % 200: f"0+99{FOREVER}"}, {PAGE % 422: f"0+1{FOREVER}"}],
    ),
    "PageRefuses": (
        [{PAGE % 429: f"0+1{FOREVER}", PAGE % 200: f"0+3{FOREVER}"}],
        [{PAGE % 429: f"0+1{FOREVER}", PAGE % 200: f"0+9{FOREVER}"}],
    ),
    "CaptureStopped": (
        [
            {f':tensorflow:serving:request_log_is_capturing{{{SERVER}, model_name="flowers"}}': f"1x10 0{FOREVER}"},
            {f"classifier_web_is_capturing{{{WEB}}}": f"0{FOREVER}"},
        ],
        [
            {f':tensorflow:serving:request_log_is_capturing{{{SERVER}, model_name="flowers"}}': f"0x10 1{FOREVER}"},
            {f"classifier_web_is_capturing{{{WEB}}}": f"1{FOREVER}"},
        ],
    ),
    "PhotosMoved": (
        [{WATCH % ("alarm", ', question="classes"'): f"1{FOREVER}"}],
        [
            {WATCH % ("alarm", ', question="classes"'): f"0{FOREVER}"},
            {WATCH % ("alarm", ', question="classes"'): f"1x10 0{FOREVER}"},
        ],
    ),
    # Time begins at 0 here.
    "WatchStopped": (
        [{WATCH % ("timestamp_seconds", ""): f"-172800{FOREVER}"}],
        [{WATCH % ("timestamp_seconds", ""): f"-90000{FOREVER}"}],
    ),
}  # fmt: skip


def promtool(tmp_path: Path, *arguments: str) -> str:
    mounts = ("--volume", f"{CONFIG}:/config:ro", "--volume", f"{tmp_path}:/test:ro")
    return docker("run", "--rm", "--network", "none", *mounts, "--entrypoint", "promtool", IMAGE, *arguments)


@pytest.fixture
def tests_dir(engine: None, tmp_path: Path) -> Path:
    """A folder that the image's user may read."""
    folder = tmp_path / "test"
    folder.mkdir()
    return folder


def test_the_configuration_and_the_rules_are_valid(tests_dir: Path) -> None:
    assert "1 rule files found" in promtool(tests_dir, "check", "config", "/config/prometheus.yml")
    promtool(tests_dir, "check", "rules", "--lint-fatal", "/config/alerts.yml")


def test_each_alert_fires_when_it_should_and_not_before(tests_dir: Path) -> None:
    assert set(CASES) == set(expressions.read_alerts()), "each alert is tried"
    groups = [
        {
            "name": f"{alert} {'fires' if fires else 'is silent'}: {json.dumps(series)}",
            "interval": "15s",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [_expect(alert, fires=fires)],
        }
        for alert, cases in CASES.items()
        for fires, examples in zip((True, False), cases, strict=True)
        for series in examples
    ]
    content = {"rule_files": ["/config/alerts.yml"], "evaluation_interval": "15s", "tests": groups}
    (tests_dir / "alerts_test.yml").write_text(yaml.safe_dump(content))
    assert "SUCCESS" in promtool(tests_dir, "test", "rules", "/test/alerts_test.yml")


def _expect(alert: str, *, fires: bool) -> dict[str, Any]:
    """Return how many of an alert are firing at the end: one, or none."""
    number = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)'
    return {"expr": number, "eval_time": f"{MINUTES}m", "exp_samples": [{"labels": "{}", "value": int(fires)}]}
