"""Every metric, and every label, that the alerts and the dashboard name is one that the servers really have."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.monitoring import exposition
from components.monitoring.drift import Predictions, WatchOptions, judge
from components.monitoring.reference import summarize
from serving import launcher
from tests.serving import expressions
from tests.serving.local_server.conftest import start_server
from tests.serving.web.conftest import RED, push, start_page

METRICS = "/monitoring/prometheus/metrics"
OF_PROMETHEUS = {"up"}
LABELS_OF_PROMETHEUS = {"job", "instance"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The metrics of a server and of a page, after a photo, and those of a watch."""
    folder = tmp_path_factory.mktemp("scraped")
    content = (Path(__file__).parent / "web" / "colours.tflite").read_bytes()
    push(folder, content, 1)
    (folder / "flowers" / "1").mkdir(parents=True)
    shutil.copy(folder / "tflite" / "1" / "flowers_int8.tflite", folder / "flowers" / "1" / "model.tflite")
    flags = {
        "model_name": "flowers",
        "model_base_path": folder / "flowers",
        "prefer_tflite_model": "true",
        "enable_batching": "true",
        "batching_parameters_file": launcher.CONFIG / "batching.config",
        "monitoring_config_file": launcher.CONFIG / "monitoring.config",
    }
    with start_server(folder / "server.log", **flags) as server:
        assert server.predict("flowers", instances=[[[[0.0] * 3] * 8] * 8])[0] == 200
        of_server = server.request("GET", METRICS).text
    with start_page(folder / "page.log", "--models-dir", folder, "--capture", folder / "captured") as page:
        assert page.classify(("red.jpg", RED)).status_code == 200
        of_page = page.get("/metrics").text
    return [of_server, of_page, watch_metrics()]


def watch_metrics() -> str:
    """The metrics that `watch` writes, of the least that it can have seen."""
    nothing = Predictions(np.full((1, 2), 0.5), np.full(1, 0.5), np.ones(1, bool), np.full(1, 0.5))
    predicted = nothing.probabilities, np.zeros(1, int), nothing.brightness
    reference = summarize(*predicted, class_names=["a", "b"], num_scores=1, num_refused=0)
    verdict = judge(nothing, reference, WatchOptions())
    return exposition.to_text(verdict, model_name="flowers", version="1", time_s=0).decode()


def test_what_alerts_and_dashboard_name_is_exported(pages: list[str]) -> None:
    families = [family for text in pages for family in text_string_to_metric_families(text)]
    # The parser ends the name of every counter in _total, which only the page's have.
    exported = {line.split()[2] for text in pages for line in text.splitlines() if line.startswith("# TYPE ")}
    exported |= {f"{name}_{part}" for name in exported for part in ("bucket", "count", "sum")} | OF_PROMETHEUS
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    alerts = expressions.read_alerts().items()
    panels = [(title, each) for title, targets in expressions.read_panels().items() for each in targets]
    for name, expression in [*alerts, *panels]:
        named = expressions.find_metrics(expression)
        assert named, name
        assert named <= exported, f"{name}: {named - exported}"
        assert expressions.find_labels(expression) <= labels | LABELS_OF_PROMETHEUS, name


def test_metrics_and_labels_are_found_in_expressions() -> None:
    expression = 'sum by (le, job) (rate(:a:b_bucket{x="c{d}", y=~"e"}[5m] offset 1h)) > 2e6 unless on (z) min(f1) # g'
    assert expressions.find_metrics(expression) == {":a:b_bucket", "f1"}
    assert expressions.find_labels(expression) == {"le", "job", "x", "y", "z"}


def test_the_dashboard_has_no_panel_twice_and_one_source() -> None:
    ids = [panel["id"] for panel in expressions.read_dashboard()["panels"]]
    assert len(ids) == len(set(ids))
    (variable,) = expressions.read_dashboard()["templating"]["list"]
    sources = [
        each["datasource"]
        for panel in expressions.read_dashboard()["panels"]
        if panel["type"] != "row"
        for each in (panel, *panel["targets"])
    ]
    assert all(source == {"type": variable["query"], "uid": f"${{{variable['name']}}}"} for source in sources)
