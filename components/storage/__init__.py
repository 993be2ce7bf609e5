"""A folder on a disk or a bucket at a URL, behind one protocol; the models, files and locks on it.

Imports nothing of the project but `components.errors`. `files` is free of what knows buckets.
"""
