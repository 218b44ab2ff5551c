"""What the pages say is there, is there: the tests and files that they name."""

import ast
import re
from pathlib import Path

import pytest

from imgcap.commands.main import NAMES

CHECKOUT = Path(__file__).resolve().parent.parent
OLDER = [*sorted((CHECKOUT / "launch").glob("*.py")), *sorted((CHECKOUT / "tools").glob("*.py"))]
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


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_an_example_in_its_help_and_a_page(name: str) -> None:
    text = (CHECKOUT / f"imgcap/commands/{name.replace('-', '_')}.py").read_text()
    assert f"    imgcap {name} " in (ast.get_docstring(ast.parse(text)) or "") and "parser_for(__doc__)" in text
    assert any(f"imgcap {name} " in page.read_text() for page in PAGES)


@pytest.mark.parametrize("older", OLDER, ids=lambda older: older.name)
def test_every_older_name_is_on_a_page(older: Path) -> None:
    name = str(older.relative_to(CHECKOUT))
    assert older.name in (ast.get_docstring(ast.parse(older.read_text())) or "")
    assert any(name in page.read_text() for page in PAGES)


def test_the_readme_ends_with_the_tree() -> None:
    tree = PAGES[0].read_text().split("```")[-2].splitlines()
    named = {line.split()[0].strip("/") for line in tree if line.split()}
    rooms = {path.name for path in (CHECKOUT / "imgcap").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms | {"configs", "docs", "imgcap", "launch", "shards", "tests", "tools"} <= named
