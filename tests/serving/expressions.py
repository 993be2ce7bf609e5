"""The PromQL that ships with the servers, and the metrics that it names."""

import json
import re
from typing import Any

import yaml

from serving import launcher

CONFIG = launcher.CONFIG

# What is no metric: strings, comments, selectors and ranges, lists of labels, functions, operators and numbers.
_STRING = r'"(?:[^"\\]|\\.)*"'
_NOT_METRICS = (
    _STRING,
    r"#.*",
    r"\{[^}]*\}",
    r"\[[^]]*\]",
    r"\b(?:by|on|ignoring|group_left|group_right|without)\s*\([^)]*\)",
    r"[a-z_]\w*\s*\(",
    r"\b(?:and|or|unless|offset|by|on|bool)\b",
    r"\b[0-9][0-9a-z.]*\b",
)


def read_alerts() -> dict[str, str]:
    """Return the expression of each alert."""
    groups = yaml.safe_load((CONFIG / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def read_dashboard() -> Any:
    """Return the dashboard, as Grafana imports it."""
    return json.loads((CONFIG / "dashboard.json").read_text())


def read_panels() -> dict[str, list[str]]:
    """Return the expressions of each panel of the dashboard."""
    panels = read_dashboard()["panels"]
    return {each["title"]: [target["expr"] for target in each["targets"]] for each in panels if each["type"] != "row"}


def find_metrics(expression: str) -> set[str]:
    """Return the metrics that an expression names."""
    for pattern in _NOT_METRICS:
        expression = re.sub(pattern, " ", expression)
    return set(re.findall(r"[:a-z_][:\w]*", expression, re.IGNORECASE))


def find_labels(expression: str) -> set[str]:
    """Return the labels that an expression selects by, groups by or matches on."""
    expression = re.sub(_STRING, '""', expression)
    lists = re.findall(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)", expression)
    selected = re.findall(r"(\w+)\s*(?:=~|!~|!=|=(?!=))", expression)
    return {*selected, *(label for each in lists for label in re.findall(r"\w+", each))}
