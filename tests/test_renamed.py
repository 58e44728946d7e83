"""Names of before, with the warning that gives the new one."""

import pytest


def test_an_old_name_is_the_new_thing_and_says_so():
    import interp.search

    with pytest.warns(
        DeprecationWarning, match=r"interp\.search\.Sources is now interp\.search\.Collection; the old name"
    ):
        assert interp.search.Sources is interp.search.Collection
    with pytest.raises(AttributeError, match="module 'interp.search' has no attribute 'Sourcs'"):
        interp.search.Sourcs  # noqa: B018
    with pytest.raises(ImportError):
        from interp.search import Nothing  # noqa: F401
