"""A proxy in front of a server of TensorFlow Serving's protocol, which shows requests to a second version, too.

A release (`python -m pipelines release`) tells it which, and reads what both versions return. It imports neither
TensorFlow nor the release.
"""
