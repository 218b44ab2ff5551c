"""Captions of whole folders and shard sets: on any number of ranks, gone on with after a kill, in one file."""

from imgcap.batch_captioning.batch import Summary, caption_all
from imgcap.batch_captioning.contact_sheet import write_contact_sheet
from imgcap.batch_captioning.inputs import Inputs, open_inputs

__all__ = ["Inputs", "Summary", "caption_all", "open_inputs", "write_contact_sheet"]
