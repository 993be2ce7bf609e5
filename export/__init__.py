"""From a trained Keras model to the files that are shipped."""
