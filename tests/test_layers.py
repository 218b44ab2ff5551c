"""The plan of the house, read off the source: who imports whom, and how long things are."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
FLOORS: tuple[set[str], ...] = (
    {"config", "types", "errors"},
    {"dist", "ops", "remote", "scenes"},
    {"text", "shards", "checkpoint"},
    {"models", "data", "optim", "monitor"},
    {"engine", "decode", "inspection"},
    {"evaluation", "feature_cache", "captioning", "batch_captioning"},
    {"train", "comparison", "export", "loading", "page"},
    {"bench", "sweep"},
)
DISTRIBUTED_ALLOWED = {"dist", "engine"}
MAX_FILE, MAX_FUNCTION, MAX_LAUNCH = 400, 60, 80

PACKAGE = sorted((CHECKOUT / "imgcap").rglob("*.py"))
LAUNCH = sorted((CHECKOUT / "launch").rglob("*.py"))
ALL = [*PACKAGE, *LAUNCH, *sorted((CHECKOUT / "tools").rglob("*.py"))]


def name(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno} imports relatively"
            # `from imgcap import dist` imports imgcap.ranks; the name may also be a class, which does no harm.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def room(dotted: str) -> str | None:
    """The folder or file right under imgcap/ that a module name lies in."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "imgcap" and len(parts) > 1 else None


def floor(of: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if of in rooms)


def test_every_room_has_a_floor() -> None:
    rooms = {path.relative_to(CHECKOUT / "imgcap").parts[0].removesuffix(".py") for path in PACKAGE} - {"__init__"}
    assert rooms <= set().union(*FLOORS)
    assert sum(len(rooms) for rooms in FLOORS) == len(set().union(*FLOORS))


@pytest.mark.parametrize("path", PACKAGE, ids=name)
def test_imports_go_downward_only(path: Path) -> None:
    own = path.relative_to(CHECKOUT / "imgcap").parts[0].removesuffix(".py")
    wrong = []
    for line, module in imported_modules(path):
        other = room(module)
        if other is None or other == own or own == "__init__":
            continue
        if FLOORS[0] >= {own, other}:  # the ground floor is one room: the schema may raise the errors of errors.py
            continue
        if floor(other) >= floor(own):
            wrong.append(f"{name(path)}:{line} imports {module}, which is not on a floor below")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", PACKAGE, ids=name)
def test_torch_distributed_stays_in_its_rooms(path: Path) -> None:
    own = path.relative_to(CHECKOUT / "imgcap").parts[0]
    if own in DISTRIBUTED_ALLOWED:
        return
    for line, module in imported_modules(path):
        assert not module.startswith("torch.distributed"), f"{name(path)}:{line}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr == "distributed":
            assert not (isinstance(node.value, ast.Name) and node.value.id == "torch"), f"{name(path)}:{node.lineno}"


@pytest.mark.parametrize("path", ALL, ids=name)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_FILE, f"{name(path)} has {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION, f"{name(path)}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize("path", LAUNCH, ids=name)
def test_launch_files_are_shorter(path: Path) -> None:
    assert path.read_text().count("\n") < MAX_LAUNCH


@pytest.mark.parametrize("path", ALL, ids=name)
def test_every_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{name(path)} has no docstring"


@pytest.mark.parametrize("path", sorted((CHECKOUT / "imgcap").rglob("__init__.py")), ids=name)
def test_a_package_s_face_is_a_docstring(path: Path) -> None:
    """Imports name the module, so that nobody waits for a neighbour's imports, nor looks for a name twice."""
    docstring, *rest = ast.parse(path.read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert not rest or path.parent.name in ("imgcap", "config"), f"{name(path)}:{rest[0].lineno}"
