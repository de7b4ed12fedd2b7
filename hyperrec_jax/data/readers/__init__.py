"""Batches by step, as pure functions."""
