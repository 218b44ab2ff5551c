"""Engines drive the model on the ranks: one protocol, chosen by `engine.name`."""
