"""The thin client of the served classifier. Imports nothing of the rest of the project, and can be installed alone."""
