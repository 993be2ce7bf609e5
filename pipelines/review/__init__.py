"""The review page: people look at photos one at a time and decide, and each decision is a line of `labels.jsonl`.

It reads the newest run, photos without labels where a folder or URL is named, and the decisions; it writes decisions,
and starts the pipeline. It imports nothing of TensorFlow.
"""
