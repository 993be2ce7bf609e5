"""The steps of the pipeline, one file each: plain functions from input artifacts to one new output folder."""
