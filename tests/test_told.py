"""Numbers and sentences as the pages tell them."""

import pytest

from interp.render.words import density, strength
from interp.ui.shared import said


@pytest.mark.parametrize(
    ("value", "told"),
    [(65.25, "65.2"), (0.314, "0.31"), (1024.5, "1,024"), (9.999, "10.0"), (99.96, "100"), (0.0, "0.00")],
)
def test_an_activation_has_the_digits_that_half_precision_keeps(value, told):
    assert strength(value) == told


@pytest.mark.parametrize(
    ("share", "told"), [(0.131, "0.131"), (1.46e-4, "1.46e-4"), (0.0, "0"), (1e-3, "0.001"), (3.9e-12, "3.90e-12")]
)
def test_a_small_share_has_a_power_without_a_nought_before_it(share, told):
    assert density(share) == told


def test_only_what_stands_between_backticks_is_code():
    assert (
        said("there is *none*; `interp index a_b` builds it.") == "There is \\*none\\*; `interp index a_b` builds it\\."
    )
    assert said("an odd ` mark [x](y)") == "an odd \\` mark \\[x\\]\\(y\\)"
