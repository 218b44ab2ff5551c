"""docs/commands.md and docs/api.md: the help of every command, and what Python imports, as they are today."""

import ast
import importlib
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import imgcap
from imgcap.commands.main import NAMES, overview

DOCS = Path(__file__).resolve().parents[2] / "docs"
RENEW = "IMGCAP_RENEW_DOCS=1 python -m pytest -q tests/commands/test_reference_pages.py"
OLDER = {
    "train": "launch/train.py",
    "evaluate": "launch/evaluate.py",
    "caption": "tools/caption.py`, with `--out` also `launch/caption.py",
    "serve": "tools/demo.py",
    "build": "tools/build_shards.py",
    "index": "tools/index_shards.py",
    "verify": "tools/verify_shards.py",
    "inspect": "tools/inspect_shards.py",
    "cache-features": "tools/cache_features.py",
    **{name: f"tools/{name}.py" for name in ("download", "export", "score", "compare", "sweep")},
}
COMMANDS_HEAD = """# Commands

What `imgcap COMMAND --help` prints, for every command. Several processes are started by
`torchrun ... -m imgcap COMMAND`, or `deepspeed ... --module imgcap COMMAND`. The older names take the same options,
print the same, and stay.

Exit codes: 0 done, 2 your mistake (one line says what and how to mend it), 75 stopped and saved, 130 stopped,
141 nobody reads stdout any more (`... | head`), 1 a fault of ours (`imgcap verify`: damage). A stderr that nobody reads
ends no command.
"""
API_HEAD = """# Python

```python
import imgcap

captioner = imgcap.load("artefacts/demo")  # also a run, or user/name on the Hugging Face hub
for caption in captioner.caption(["one.jpg", "two.jpg"], beam=5):
    print(caption.text, caption.score)
```

`import imgcap` is quick: what takes long is imported where it is first used. More examples:
[artefacts](export.md#from-python). What is not on this page may change from version to version.
"""


def commands_page(printed: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The overview, and the help of each command as a terminal of 100 columns shows it."""
    monkeypatch.setenv("COLUMNS", "100")
    parts = [COMMANDS_HEAD, f"```\n{overview()}\n```\n"]
    for name in NAMES:
        monkeypatch.setattr(sys, "argv", [f"imgcap {name}", "--help"])
        with pytest.raises(SystemExit):
            importlib.import_module(f"imgcap.commands.{name.replace('-', '_')}").main()
        older = f"Older name: `{OLDER[name]}`.\n\n" if name in OLDER else ""
        parts.append(f"## imgcap {name}\n\n{older}```\n{printed().strip()}\n```\n")
    return "\n".join(parts)


def api_page() -> str:
    parts = [API_HEAD]
    for name in sorted(imgcap.__all__, key=lambda name: (name != "load", name.lower())):
        if not name.startswith("__"):
            parts += described(f"imgcap.{name}", getattr(imgcap, name), "##")
    return "\n".join(parts)


def described(name: str, thing: Any, heading: str) -> list[str]:
    """Heading, signature and docstring of a function or class, then those of a class's fields and methods."""
    text = inspect.getdoc(thing)
    assert text, f"{name} has no docstring"
    parts = [f"{heading} {name}\n", f"{text}\n"]
    if inspect.isfunction(thing):
        parts.insert(1, f"```python\n{signature_of(thing)}\n```\n")
    if is_dataclass(thing):
        parts += ["\n".join(f"- `{field.name}`: `{type_name(field.type)}`" for field in fields(thing)) + "\n"]
    elif inspect.isclass(thing):
        for method, function in vars(thing).items():
            if not method.startswith("_") and inspect.isfunction(function):
                parts += described(f"{name}.{method}", function, "###")
    return parts


def signature_of(function: Any) -> str:
    """How a function is defined, as its source has it, without what a method is called on."""
    source = textwrap.dedent(inspect.getsource(function))
    head = source.splitlines()[: ast.parse(source).body[0].body[0].lineno - 1]  # type: ignore[attr-defined]
    return re.sub(r"(?<=\()self(, )?|\n +self,", "", "\n".join(head)).rstrip(":")


def type_name(annotation: Any) -> str:
    return (
        annotation.__name__ if inspect.isclass(annotation) and annotation.__module__ == "builtins" else str(annotation)
    )


def compare(name: str, now: str, but_spaces: bool = False) -> None:
    """Hold a page against what it should be, or renew it. Versions of Python break the lines of a help elsewhere."""
    page = DOCS / name
    if os.environ.get("IMGCAP_RENEW_DOCS"):
        page.write_text(now, encoding="utf-8")
    kept = page.read_text(encoding="utf-8")
    same = "".join(kept.split()) == "".join(now.split()) if but_spaces else kept == now
    assert same, f"docs/{name} is stale; renew it by: {RENEW}"


def test_the_page_of_commands_is_of_today(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = commands_page(lambda: capsys.readouterr().out, monkeypatch)
    assert all(f"## imgcap {name}\n" in page for name in NAMES)
    compare("commands.md", page, but_spaces=True)


def test_the_page_of_python_is_of_today() -> None:
    compare("api.md", api_page())
