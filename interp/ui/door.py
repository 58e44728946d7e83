"""Who sees the pages: whoever reaches the address, or only who has logged in by Streamlit's own authentication.

That asks an OpenID Connect provider, which has the passwords, and is set up in `.streamlit/secrets.toml` (docs/dashboard.md).
Where it is set up, or `--login` was given, nothing is shown to anybody else; `[interp] allow` there names who may come in.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

LOGIN = "INTERP_LOGIN"
"""Set to anything, it lets nobody in who has not logged in (`interp dashboard --login`)."""


def shut() -> bool:
    """Whether the pages stay hidden from who looks; then what is drawn says how to come in."""
    secrets: Mapping[str, Any] = st.secrets if st.secrets.load_if_toml_exists() else {}
    if "auth" not in secrets:
        if os.environ.get(LOGIN):
            _say(
                "Nobody can log in yet",
                "This was started with --login, and .streamlit/secrets.toml has no [auth]; docs/dashboard.md says how it is set up.",
            )
        return bool(os.environ.get(LOGIN))
    if not st.user.get("is_logged_in"):
        with _say("Log in to see this", "These pages are shown to people who have an account here."):
            if st.button("Log in", type="primary", icon=":material/login:"):
                st.login()
        return True
    allowed = secrets.get("interp", {}).get("allow")
    return False if allowed is None or _is_named(allowed) else _turn_away()


def _is_named(allowed: str | Sequence[str]) -> bool:
    """Whether who logged in is on the list, by an address that the provider does not call unconfirmed."""
    address, confirmed = str(st.user.get("email") or "").lower(), st.user.get("email_verified")
    names = [allowed] if isinstance(allowed, str) else allowed
    return bool(address) and confirmed is not False and address in [str(name).lower() for name in names]


def _turn_away() -> bool:
    with _say(
        "Not for this account", "You are logged in, and this account is not among those that may see these pages."
    ):
        if st.button("Log out"):
            st.logout()
    return True


def _say(title: str, text: str) -> "DeltaGenerator":
    """The box in which it is said, for a button."""
    box = st.container(key="empty-door")
    with box:
        st.markdown(f"**{title}**")
        st.caption(text)
    return box
