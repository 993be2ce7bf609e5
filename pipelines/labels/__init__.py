"""Decisions on photos come in and go out as files of other tools: `python -m pipelines labels`."""
