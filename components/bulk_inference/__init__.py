"""Any number of images through a LiteRT file or a server, to a table on a disk or in a bucket.

Imports the client, `components.storage` and `components.data.beam`.
"""
