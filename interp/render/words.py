"""Words for people: how many of what, how many bytes, how long, how strong; whether a document was trained on."""

TRAINED = {"yes": "trained on", "no": "not trained on", "unknown": "not known whether trained on"}
"""Short words for an example's `trained_on`."""
TRAINED_MEANS = {
    "yes": "The SAE was trained on this document.",
    "no": "The SAE was not trained on this document: what a feature shows here it did not learn from it.",
    "unknown": "The checkpoint does not say which documents it was trained on.",
}
"""The same, explained."""


PLACES = {
    "text": ("token", "tokens"),
    "pictures": ("patch", "patches"),
    "sound": ("frame", "frames"),
    "numbers": ("position", "positions"),
}
"""What positions are called, one and several, by the kind of what was indexed."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 document`, `2,000 documents`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def size(count: float) -> str:
    """Bytes in the unit that suits them: `512 bytes`, `1.4 MiB`, `12 GiB`; below one GiB never `0.0 GiB`."""
    for unit, bytes_ in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= bytes_:
            amount = count / bytes_
            return f"{amount:,.1f} {unit}" if amount < 9.95 else f"{amount:,.0f} {unit}"
    return counted(int(count), "byte")


def duration(seconds: float) -> str:
    """Time in the unit that suits it: `under a second`, `12 s`, `3.4 min`, `2.1 h`."""
    if seconds < 1:
        return "under a second"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def strength(value: float) -> str:
    """An activation with the three digits that an index, which keeps half precision, has of it: `65.2`, `0.31`, `1,024`."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def density(share: float) -> str:
    """A share of tokens that is mostly small: `0.131`, `1.46e-4`, `0`."""
    if share == 0.0 or share >= 1e-3:
        return f"{share:.3g}"
    digits, _, power = f"{share:.2e}".partition("e")
    return f"{digits}e{int(power)}"
