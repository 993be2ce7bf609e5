"""What people read, and the numbers in it: metrics, plots, and the pages with their templates.

Imports `components.artifacts`.
"""
