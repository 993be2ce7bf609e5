"""Labelled photos: where they come from, how they are examined, and how they become batches of pixels."""
