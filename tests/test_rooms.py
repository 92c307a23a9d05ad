"""The house: each module lies in a room, and a room imports only from the rooms above it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import froster

ROOMS = (
    *("errors", "utils", "encoders", "video", "text", "data", "methods", "evaluation"),
    *("inference", "training", "report", "world", "paper", "serve", "cli"),
)
PACKAGE = Path(froster.__file__).parent


def imports(path: Path) -> Iterator[str]:
    """The dotted names of this package's modules that a file imports, at its top or on use."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("froster."))
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            if node.module == "froster":
                yield from (f"froster.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith("froster."):
                yield node.module


def test_every_module_lies_in_a_room() -> None:
    assert {p.stem for p in PACKAGE.glob("*.py")} == {"__init__", "__main__", "errors"}
    assert {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))} == set(
        ROOMS[1:]
    )


def test_rooms_import_only_from_rooms_above() -> None:
    climbs = []
    for path in PACKAGE.glob("*/**/*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        for name in imports(path):
            target = name.split(".")[1]
            if target == "__version__":
                continue
            if target not in ROOMS or ROOMS.index(target) > ROOMS.index(room):
                climbs.append(f"{path.relative_to(PACKAGE)} -> {name}")
    assert not climbs, "\n".join(climbs)


KNOWN = {
    ("methods.closed_set", "methods"),  # a taught head names the method under it
    ("inference.embedder", "inference.int8"),  # `use_runtime` reads what export wrote
}
"""Imports on use that close a circle, and are left."""


def imported(path: Path, modules: dict[str, Path]) -> set[str]:
    """The modules that a file imports, at its top or on use, but for its annotations alone."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("froster."):
            room = str(node.module).removeprefix("froster.")
            names.update(
                inner if (inner := f"{room}.{alias.name}") in modules else room
                for alias in node.names
            )
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return names & modules.keys()


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.glob("*/**/*.py")
    }
    ways = {name: imported(path, modules) - {name} for name, path in modules.items()}
    for name, target in KNOWN:
        ways[name].remove(target)
    while ends := {name for name, to in ways.items() if not to & ways.keys()}:
        ways = {name: to for name, to in ways.items() if name not in ends}
    assert not ways, f"circles among {sorted(ways)}"


def test_there_is_one_of_each() -> None:
    """Tables are printed, templates filled and files locked by one piece of code."""
    homes = {
        "rich.table": {"utils/progress.py"},
        "jinja2": {"report/page.py"},
        "filelock": {"utils/files.py", "utils/caches.py"},  # one refuses, the other does without
    }
    texts = {p.relative_to(PACKAGE).as_posix(): p.read_text() for p in PACKAGE.rglob("*.py")}
    for library, files in homes.items():
        assert {path for path, text in texts.items() if f"from {library} import" in text} == files
