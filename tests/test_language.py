"""The language of the package: the field's words as names, a name for one class, lines and files
that can be read."""

import ast
from collections.abc import Iterator
from pathlib import Path

import froster

PACKAGE = Path(froster.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
WORDS = """
found own there said met taken told here whole each mix look read gains origin identity advice
strangers
"""
"""Words that name nothing: no variable, parameter, attribute, function or class is called so."""
CLASSES = frozenset({"Asker", "Book", "Judgement", "Seen", "Sighting"})


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


def test_names_are_the_fields_words() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in FILES
        for line, name in names(ast.parse(path.read_text()))
        if name.strip("_") in WORDS.split() or name in CLASSES
    ]
    assert not wrong, "\n".join(wrong)


def test_a_class_name_is_defined_once() -> None:
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert not {name: files for name, files in homes.items() if len(files) > 1}


def test_lines_have_100_columns_and_files_400_lines() -> None:
    lines = {path.relative_to(PACKAGE): path.read_text().splitlines() for path in FILES}
    assert not [
        f"{path}:{number}"
        for path, texts in lines.items()
        for number, text in enumerate(texts, 1)
        if len(text) > 100
    ]
    assert not [f"{path}: {len(texts)}" for path, texts in lines.items() if len(texts) > 400]
