"""The tokeniser: spaCy's rule-based one, in lower case."""

import importlib
import sys
from importlib import metadata
from typing import Any

from imgcap.errors import UserError


class Tokeniser:
    """Splits a caption into lower-case words; tokens of nothing but white space are dropped.

    It can be pickled to worker processes: spaCy is imported, and its rules are built, at the first
    call in each of them. `language` is a code that `spacy.blank` knows; another raises UserError.
    """

    def __init__(self, language: str = "en") -> None:
        self.language = language
        self._pipeline: Any = None

    @property
    def name(self) -> str:
        """The identity that a shard set records: equal names split equal captions into equal tokens."""
        version = ".".join(metadata.version("spacy").split(".")[:2])
        return f"spacy-{version}-blank-{self.language} lower"

    def __call__(self, caption: str) -> list[str]:
        if self._pipeline is None:
            self._pipeline = _blank_pipeline(self.language)
        # Lower case comes last: the rules for "U.S." or "I'm" go by the capitals.
        return [token.text.lower() for token in self._pipeline.make_doc(caption) if not token.is_space]

    def __getstate__(self) -> dict[str, Any]:
        return {"language": self.language, "_pipeline": None}


def _blank_pipeline(language: str) -> Any:
    spacy = _spacy()
    try:
        return spacy.blank(language)
    except ImportError as error:  # an unknown code, or a language that needs a package of its own
        reason = str(error).splitlines()[0]
        raise UserError(f"language {language!r} has no spaCy tokeniser here ({reason}); try 'en' or 'xx'") from error


def _spacy() -> Any:
    """Import spaCy, which takes a second, and only the processes that tokenise need it.

    It is kept from importing torch, where nobody has: its models would, for another second, and a tokeniser is none.
    """
    if "torch" in sys.modules or "spacy" in sys.modules:
        return importlib.import_module("spacy")
    sys.modules["torch"] = None  # type: ignore[assignment]  # imports of it fail, as if it were not installed
    try:
        return importlib.import_module("spacy")
    finally:
        del sys.modules["torch"]
