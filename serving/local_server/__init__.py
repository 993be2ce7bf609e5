"""A server that speaks TensorFlow Serving's protocol, over gRPC and REST, for machines without Docker.

Its behaviour follows the source of TensorFlow Serving (github.com/tensorflow/serving), error texts included: a client
that was written for one works with the other.
"""
