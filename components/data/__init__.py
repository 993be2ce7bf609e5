"""Labelled photos on their way to batches of pixels: sources, examination, duplicates, splits, `tf.data`, augmentation.

Imports `components.artifacts` and `components.storage`. `beam` runs any work on Apache Beam.
"""
