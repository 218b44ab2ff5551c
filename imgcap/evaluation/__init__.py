"""Evaluation: distributed decoding of a split, its scores, and the signature that makes them comparable."""
