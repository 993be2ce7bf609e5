"""A folder on a disk or a bucket at a URL, behind one protocol; the models, files and locks on it."""
