"""What the pages say is there, is there: the tests and files that they name. They are a site, and all on it."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from imgcap.commands.main import GO_ON, NAMES

CHECKOUT = Path(__file__).resolve().parent.parent
OLDER = [*sorted((CHECKOUT / "launch").glob("*.py")), *sorted((CHECKOUT / "tools").glob("*.py"))]
DOCS = sorted((CHECKOUT / "docs").glob("*.md"))
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CHANGELOG.md", CHECKOUT / "shards" / "README.md", *DOCS]


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


def test_the_readme_names_the_commands_that_go_on() -> None:
    (told,) = (part for part in (CHECKOUT / "README.md").read_text().split("\n\n") if "they go on" in part)
    named = set(re.findall(r"`(\S+?)(?: --out)?`", told[told.index("`build`, ") :]))
    assert named == set(GO_ON) and "`caption --out`" in told


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


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_the_readme_leads_to_every_page(page: Path) -> None:
    assert f"](docs/{page.name})" in PAGES[0].read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as a site, built as `make docs` builds them: a link or heading that isn't there is an error.

    Not with --quiet, which takes the warnings from --strict too.
    """
    pytest.importorskip("material", reason="the site is built with mkdocs-material")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_has_every_page(site: Path) -> None:
    places = {page: site / page.relative_to(CHECKOUT).with_suffix("") / "index.html" for page in PAGES}
    places[PAGES[0]] = site / "index.html"
    places[CHECKOUT / "shards/README.md"] = site / "shards/index.html"
    assert not [page for page, place in places.items() if not place.exists()]


def test_no_list_or_table_of_the_site_is_a_paragraph(site: Path) -> None:
    """Code hosts begin them behind any line; the site wants an empty one before."""
    lost = []
    for page in site.rglob("index.html"):
        for paragraph in re.findall(r"<p>(.*?)</p>", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            lost += re.findall(r"^(?:- |\d+\. |\| ).*", paragraph, flags=re.MULTILINE)
    assert not lost
