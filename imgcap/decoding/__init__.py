"""From features to captions: searches and sampling over batches, and captions of one's own pictures."""
