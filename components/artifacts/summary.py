"""The summary of a step: what it returns, for the log and for `manifest.json`."""

Summary = dict[str, bool | int | float | str]
"""The few results of a step that are worth a log line."""
