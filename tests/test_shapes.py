"""Shapes as types: the checks are on in the tests, and off elsewhere."""

import subprocess
import sys

import jaxtyping
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from froster.methods import Features, pool
from shapes import check_shapes


def test_a_tensor_of_another_shape_is_refused_in_the_tests() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="batch time embed"):
        pool(torch.zeros(2, 3), "frame_unit")
    with pytest.raises(jaxtyping.TypeCheckError, match="batch embed"):
        Features(torch.zeros(2, 4, 3), torch.zeros(2, 3), torch.zeros(2, 5))


def test_a_result_is_checked_too_and_so_is_another_one_of_the_same_call() -> None:
    given = [torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(5, 3)]

    def following(x: Float[Tensor, "batch embed"], size: int) -> Float[Tensor, "batch {size}"]:
        return given.pop(0)

    call = jaxtyping.jaxtyped(typechecker=check_shapes)(following)
    for _ in range(2):
        assert call(torch.zeros(2, 7), 3).shape == (2, 3)
    for _ in range(2):
        with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
            call(torch.zeros(2, 7), 3)
    with pytest.raises(jaxtyping.TypeCheckError, match="parameters"):
        call(torch.zeros(7), 3)


def test_help_needs_no_shapes_and_use_no_checks() -> None:
    """Nor does a network without memory, as each is that is loaded, need PyTorch's compiler."""
    code = """
import sys
import froster, froster.cli
assert "jaxtyping" not in sys.modules and "torch" not in sys.modules
import froster.methods
assert "beartype" not in sys.modules
from froster.report.methods import facts
facts(froster.methods.METHODS["vita-clip"]())
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
