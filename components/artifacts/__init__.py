"""What stands on disk between steps: one module a format, with its type, how it is written and how it is read.

Imports nothing of the project but `components.storage.files` and `components.errors`; any step or room may import it.
"""
