"""A folder on a disk or a bucket at a URL, behind one protocol; pushed models, local copies, files and locks on it.

Imports `components.errors` alone; `files` imports nothing, so that what reads a file does not depend on buckets.
"""
