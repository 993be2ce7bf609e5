"""Serve pushed models: TensorFlow Serving, or a local server that speaks its protocol, and a launcher for both."""
