"""Serve pushed models: TensorFlow Serving's configuration, a local server that speaks its protocol, a launcher for both."""
