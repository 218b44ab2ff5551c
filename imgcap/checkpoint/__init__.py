"""Checkpoints that a kill at any instant can't spoil: atomic save, verified load, retention."""
