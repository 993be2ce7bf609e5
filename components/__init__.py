"""The steps of the pipeline, one file each: plain functions from input artifacts to one new output folder.

Beside them the checks of their options and their errors. What steps share is in the folders, the rooms: each says what
belongs there and what it may import, and `make lint` holds it to that. No step imports a step.
"""
