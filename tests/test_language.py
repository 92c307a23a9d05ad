"""The language of the package: the field's words as names, one class for a name, lines and files
that can be read."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import froster

PACKAGE = Path(froster.__file__).parent
TEXTS = {path.relative_to(PACKAGE): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
WORDS = """
found own there said met taken told here whole each mix look read gains origin identity advice
strangers watch watched
"""
"""Words that name no variable, parameter, attribute, function or class."""
CLASSES = {"Asker", "Book", "Judgement", "Seen", "Sighting"}
PROMISED = {("training/options.py", "look"), ("video/reader.py", "read")}
"""The option --no-look, and the method of a video."""
# The command, and the share of a run's validation videos in the files of 0.1.
PROMISED |= {("cli/watch.py", "watch"), ("training/run_folder.py", "watch")}
# As `av.open` wants it.
PROMISED |= {("utils/ranges.py", "read"), ("video/container.py", "read")}


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of all that a file gives a name to."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.lineno, node.name


@cache
def trees() -> dict[Path, ast.AST]:
    return {path: ast.parse(text) for path, text in TEXTS.items()}


def listed(places: list[tuple[Path, int, str]]) -> str:
    return "\n".join(f"{path}:{line}: {what}" for path, line, what in places)


def test_names_are_the_fields_words() -> None:
    wrong = [
        (path, line, name)
        for path, tree in trees().items()
        for line, name in names(tree)
        if (name.strip("_") in WORDS.split() or name in CLASSES)
        and (path.as_posix(), name) not in PROMISED
    ]
    assert not wrong, listed(wrong)


def test_a_class_name_is_defined_once() -> None:
    homes = defaultdict(list)
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(path.as_posix())
    assert not {name: files for name, files in homes.items() if len(files) > 1}


def test_lines_have_100_columns_at_most() -> None:
    long = [
        (path, number, f"{len(line)} columns")
        for path, text in TEXTS.items()
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > 100
    ]
    assert not long, listed(long)


def test_files_have_400_lines_at_most() -> None:
    counts = {path.as_posix(): len(text.splitlines()) for path, text in TEXTS.items()}
    assert not {p: count for p, count in counts.items() if count > 400}
