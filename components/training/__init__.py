"""The network and how it learns: backbones and head, fitting, checkpoints, hardware, several workers."""
