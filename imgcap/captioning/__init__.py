"""Captions of whole folders and shard sets: on any number of ranks, gone on with after a kill, in one file."""

from imgcap.captioning.batch import Summary, caption_all
from imgcap.captioning.contact_sheet import write_contact_sheet
from imgcap.captioning.inputs import Inputs, open_inputs

__all__ = ["Inputs", "Summary", "caption_all", "open_inputs", "write_contact_sheet"]
