"""The plan of the house, read off the source: who imports whom, and how long things are."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
FLOORS: tuple[set[str], ...] = (
    {"config", "errors", "types"},
    {"files", "pictures", "ranks"},
    {"shards", "text", "checkpoint"},
    {"models", "data"},
    {"decoding"},
    {"evaluation", "captioning"},
    {"training", "export"},
    {"commands"},
    {"__main__"},
)
# Inside of a room, from the ground up; what isn't named stands on top of these.
SUB_FLOORS: dict[str, tuple[set[str], ...]] = {
    "models": (
        {"kernels"},
        {"precision", "packed"},
        {"losses"},
        {"encoders", "decoders"},
        {"captioner"},
        {"trained"},
        {"transfer"},
    ),
    "shards": ({"scenes", "source", "place", "parallel"}, {"sources", "manifest", "sample"}),
    "evaluation": (
        {"metrics"},
        {"signature"},
        {"coco_files", "results", "batches", "table"},
        {"comparison", "evaluator"},
    ),
    "captioning": (
        {"batch", "pictures", "inputs", "journal"},
        {"captioner", "bulk", "contact_sheet"},
        {"page", "loading"},
    ),
    "training": ({"objectives", "optim", "monitor"}, {"engines"}),
}
DISTRIBUTED_ALLOWED = ("imgcap/ranks", "imgcap/training/engines")
MAX_ROOMS, MAX_LOOSE_FILES = 15, 3
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


def parts_of(path: Path) -> tuple[str, ...]:
    """The room and what lies in it, as an import names them: ("models", "encoders", "base")."""
    return path.relative_to(CHECKOUT / "imgcap").with_suffix("").parts


def room(dotted: str) -> str | None:
    """The folder or file right under imgcap/ that a module name lies in."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "imgcap" and len(parts) > 1 else None


def floor(of: str, floors: tuple[set[str], ...] = FLOORS) -> int:
    """The number of the floor that holds a room; one above all where none does."""
    return next((number for number, rooms in enumerate(floors) if of in rooms), len(floors))


def test_every_room_has_a_floor() -> None:
    rooms = {parts_of(path)[0] for path in PACKAGE} - {"__init__"}
    assert rooms <= set().union(*FLOORS)
    assert sum(len(rooms) for rooms in FLOORS) == len(set().union(*FLOORS))


def test_the_house_stays_small() -> None:
    folders = {parts_of(path)[0] for path in PACKAGE if len(parts_of(path)) > 1}
    files = {parts_of(path)[0] for path in PACKAGE if len(parts_of(path)) == 1} - {"__init__"}
    assert len(folders) <= MAX_ROOMS and len(files) <= MAX_LOOSE_FILES, (sorted(folders), sorted(files))


@pytest.mark.parametrize("path", PACKAGE, ids=name)
def test_imports_go_downward_only(path: Path) -> None:
    own = parts_of(path)[0]
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


def test_sub_rooms_are_there() -> None:
    for own, floors in SUB_FLOORS.items():
        for sub in set().union(*floors):
            folder = CHECKOUT / "imgcap" / own / sub
            assert folder.is_dir() or folder.with_suffix(".py").is_file(), f"imgcap/{own}/{sub}"


@pytest.mark.parametrize("path", [path for path in PACKAGE if parts_of(path)[0] in SUB_FLOORS], ids=name)
def test_imports_inside_of_a_room_go_downward_too(path: Path) -> None:
    own, sub = parts_of(path)[:2]
    floors, wrong = SUB_FLOORS[own], []
    for line, module in imported_modules(path):
        parts = module.split(".")
        if parts[:2] != ["imgcap", own] or parts[2] == sub or floor(sub, floors) == len(floors):
            continue
        if floor(parts[2], floors) >= floor(sub, floors):
            wrong.append(f"{name(path)}:{line} imports {module}, which is not on a floor of {own}/ below")
    assert not wrong, "\n".join(wrong)


def test_there_is_no_circle() -> None:
    imports: dict[str, set[str]] = {}
    for path in PACKAGE:
        parts = parts_of(path)
        own = ".".join(["imgcap", *(parts[:-1] if parts[-1] == "__init__" else parts)])
        imports[own] = set()
        for _, module in imported_modules(path):
            imports[own] |= {module, module.rpartition(".")[0]}
    while leaves := [module for module, others in imports.items() if not others & imports.keys() - {module}]:
        for module in leaves:
            del imports[module]
    assert not imports, f"these import each other in a circle, or stand on one: {sorted(imports)}"


@pytest.mark.parametrize("path", PACKAGE, ids=name)
def test_torch_distributed_stays_in_its_rooms(path: Path) -> None:
    if name(path).startswith(DISTRIBUTED_ALLOWED):
        return
    for line, module in imported_modules(path):
        assert not module.startswith("torch.distributed"), f"{name(path)}:{line}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr == "distributed":
            assert not (isinstance(node.value, ast.Name) and node.value.id == "torch"), f"{name(path)}:{node.lineno}"


@pytest.mark.parametrize("path", sorted((CHECKOUT / "imgcap" / "models" / "kernels").rglob("*.py")), ids=name)
def test_kernels_know_torch_alone(path: Path) -> None:
    for line, module in imported_modules(path):
        assert room(module) is None or module.startswith("imgcap.models.kernels"), f"{name(path)}:{line}"


def test_building_shards_imports_no_torch() -> None:
    program = "import sys; import imgcap.shards.builder, imgcap.shards.verify, imgcap.shards.sources.registry"
    program += ", imgcap.pictures.files, imgcap.config.load; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=CHECKOUT)


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
