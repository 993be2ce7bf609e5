"""The client for browsers: JavaScript that runs a LiteRT file there, and the Python that puts its files together.

The web page and `export.web_app` take it. Imports nothing but `classifier_client`, and is no part of its wheel.
"""
