"""What the trainers share: backbones, heads, the loop and its checkpoints, hardware, several workers.

Imports `components.data.transform`, `components.artifacts` and `components.storage`.
"""
