"""The PromQL that ships with the servers, and the metrics that it names."""

import json
import re
from pathlib import Path

import yaml

from serving import launcher

CONFIG = Path(launcher.CONFIG)

# What is no metric: strings, comments, selectors and ranges, lists of labels, functions, operators and numbers.
_NOT_METRICS = (
    r'"(?:[^"\\]|\\.)*"',
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


def read_panels() -> dict[str, list[str]]:
    """Return the expressions of each panel of the dashboard."""
    panels = json.loads((CONFIG / "dashboard.json").read_text())["panels"]
    return {each["title"]: [target["expr"] for target in each["targets"]] for each in panels if each["type"] != "row"}


def find_metrics(expression: str) -> set[str]:
    """Return the metrics that an expression names."""
    for pattern in _NOT_METRICS:
        expression = re.sub(pattern, " ", expression)
    return set(re.findall(r"[:a-z_][:\w]*", expression, re.IGNORECASE))
