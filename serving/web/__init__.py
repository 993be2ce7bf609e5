"""The web page: a person with a photo gets an answer, and an operator a small service that can be trusted.

It stands on the thin client, so it asks TensorFlow Serving, the local server, or a LiteRT file with no server at all,
and needs nothing of TensorFlow. Uploads stay in memory: no photo, name or address is written to disk or logged.
"""
