"""What stands on disk between steps: a module a format, with its type, how it is written and how it is read."""
