"""What the pages say is there, is there: the tests and files that they name."""

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
TOOLS = [*sorted((CHECKOUT / "launch").glob("*.py")), *sorted((CHECKOUT / "tools").glob("*.py"))]
PAGES = [CHECKOUT / "README.md", CHECKOUT / "shards" / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    lost = [link for link in links if not (page.parent / link).exists()]
    assert not lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_are_named_exist(page: Path) -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        assert (CHECKOUT / path).is_file(), path
        functions = [node.name for node in ast.parse((CHECKOUT / path).read_text()).body if hasattr(node, "name")]
        assert not name or name in functions, f"{path}::{name}"


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_every_tool_has_an_example_in_its_help_and_a_page(tool: Path) -> None:
    text, name = tool.read_text(), str(tool.relative_to(CHECKOUT))
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert name in docstring and "description=__doc__" in text
    assert any(name in page.read_text() for page in PAGES)
