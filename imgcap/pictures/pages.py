"""Writing HTML from templates, which lie beside the code that fills them, and pictures as parts of it."""

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def template(name: str) -> Template:
    """Load a template by its path under imgcap/. It escapes what it is filled with; a missing value is an error."""
    return _ENVIRONMENT.get_template(name)


def data_url(data: bytes, kind: str = "jpeg") -> str:
    """Encode a picture's file as a `data:` URL, which holds all of it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
