"""Text: the tokeniser, and the vocabulary that turns its words into the rows of a batch."""

from imgcap.text.adaptation import adapted
from imgcap.text.tokeniser import Tokeniser
from imgcap.text.vocabulary import Vocabulary

__all__ = ["Tokeniser", "Vocabulary", "adapted"]
