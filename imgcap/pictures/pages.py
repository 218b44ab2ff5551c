"""HTML from templates, which lie beside the code that fills them, and pictures as parts of it."""

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
    """The template at a path under imgcap/. It escapes what it is filled with; a value that is missing is an error."""
    return _ENVIRONMENT.get_template(name)


def data_url(data: bytes, kind: str = "jpeg") -> str:
    """An address that holds a picture's file itself."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
