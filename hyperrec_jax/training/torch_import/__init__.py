"""Checkpoints of the PyTorch original, MTReclib with its PO-MoE fork, as runs of this project."""
