"""Samples in a reproducible order, decoded, augmented and batched."""
