"""Settings travel through the training as dataclasses: no function takes more than six parameters."""

import ast
from pathlib import Path

import froster

MOST = 6


def parameters(function: ast.FunctionDef) -> int:
    """Beside `self` and `cls`; `*args` and `**kwargs` count as one each."""
    a = function.args
    names = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if arg]
    return len([name for name in names if name not in ("self", "cls")])


def test_training_functions_are_small() -> None:
    long = [
        f"{path.name}:{node.lineno}: {node.name}"
        for path in (Path(froster.__file__).parent / "training").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and parameters(node) > MOST
    ]
    assert not long, "\n".join(long)
