"""Text: the tokeniser, and the vocabulary that turns its words into the rows of a batch."""
