"""Any number of images through a pushed model, to a table on disk or in a bucket.

Imports the client and, of the project, `components.storage`, `components.data.beam` and `components.errors`.
"""
