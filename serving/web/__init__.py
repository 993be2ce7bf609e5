"""The web page: it classifies a person's photos, and is a small service that its operator can trust.

It uses the client, so it queries TensorFlow Serving, the local server, or a LiteRT file with no server at all, and
needs nothing of TensorFlow. Uploads stay in memory: no name or address is written to disk or logged, and a
photo or its result only where the operator asks for it (`--capture`), which the page then says.
"""
