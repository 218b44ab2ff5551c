"""Checkpoints that a kill at any instant can't spoil: atomic save, verified load, retention."""

from imgcap.checkpoint.load import Checkpoint, load, load_folder, newest
from imgcap.checkpoint.save import save
from imgcap.checkpoint.saver import Saver

__all__ = ["Checkpoint", "Saver", "load", "load_folder", "newest", "save"]
