"""The test run's own checker refuses what jaxtyping's would, with arrays and without."""

from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from interp.sae.rows import random_rows
from tests.shapes import SHAPED, check, checked

Rows, Row = Float[Tensor, "row d"], Float[Tensor, "row"]


def test_sizes_of_one_letter_are_compared_where_arrays_are_spoken_of():
    @checked(typechecker=check)
    def product(a: list[Rows], b: Float[Tensor, "d out"] | None) -> float:
        return 1.0

    assert product([torch.ones(2, 3)], torch.ones(3, 4)) == 1.0
    with pytest.raises(TypeError, match="product"):
        product([torch.ones(2, 3)], torch.ones(4, 4))


def test_types_are_compared_where_no_array_is_spoken_of():
    @checked(typechecker=check)
    def length(of: str, *, times: float = 1) -> int:
        return len(of)

    assert length("ab", times=2) == 2
    with pytest.raises(TypeError, match="of"):
        length(2)
    with pytest.raises(TypeError, match="times"):
        length("ab", times="2")

    @checked(typechecker=check)
    @dataclass
    class Named:
        name: str

    assert Named("a").name == "a"
    with pytest.raises(TypeError, match="name"):
        Named(3)


def test_a_hint_that_cannot_be_told_is_left_to_jaxtyping():
    @checked(typechecker=check)
    def quoted(rows: "Rows", also: "Row") -> None:
        return None

    quoted(torch.ones(2, 3), torch.ones(2))
    with pytest.raises(TypeError, match="quoted"):
        quoted(torch.ones(2, 3), torch.ones(3))


def test_the_package_is_under_the_check():
    assert SHAPED is not checked
    with pytest.raises(TypeError, match="count"):
        random_rows("3", 4, 0)
