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


def names_in(path: Path) -> set[str]:
    """The functions and classes of a file, methods as Class.method."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            names |= {f"{node.name}.{inner.name}" for inner in ast.walk(node) if isinstance(inner, ast.FunctionDef)}
    return names


def journeys() -> dict[str, list[tuple[str, str]]]:
    """The tables of docs/house.md by heading: files, and names in them."""
    sections = re.split(r"^## ", (CHECKOUT / "docs" / "house.md").read_text(), flags=re.MULTILINE)
    row = r"^\| `([\w/]+\.py)` \| `([\w.]+)` \|"
    return {section.partition("\n")[0]: re.findall(row, section, flags=re.MULTILINE) for section in sections}


def test_the_house_is_as_its_page_says() -> None:
    rows = [row for rows in journeys().values() for row in rows]
    assert len(rows) > 30
    lost = [f"{file}: {name}" for file, name in rows if name not in names_in(CHECKOUT / file)]
    assert not lost


def test_a_step_is_followed_in_twelve_files() -> None:
    assert 8 <= len({file for file, _ in journeys()["A step"]}) <= 12


@pytest.mark.parametrize("page", ["docs/house.md", "README.md"])
def test_the_maps_name_every_room(page: str) -> None:
    rooms = [folder.name for folder in (CHECKOUT / "imgcap").iterdir() if (folder / "__init__.py").exists()]
    text = (CHECKOUT / page).read_text()
    assert not [room for room in rooms if not re.search(rf"\b{room}\b", text)]
