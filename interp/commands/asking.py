"""A search taken apart and put together again, for pages whose buttons stand for its conditions."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Condition:
    """One of the conditions that all must hold."""

    key: str
    """Empty for one that is joined of several."""
    text: str
    """As it is written."""
    without: str
    """The search without it."""


def conditions(query: str) -> list[Condition]:
    """The conditions of a search, those that all must hold apart, and its order last.

    Raises InterpError for a search that cannot be read.
    """
    from interp.search.query import And, Query, Term, parse

    if not query.strip():
        return []
    asked = parse(query)
    items = asked.root.items if isinstance(asked.root, And) else (asked.root,)
    found = []
    for place, item in enumerate(items):
        rest = Query(And(items[:place] + items[place + 1 :]), asked.sort)
        text = str(And((item,)))  # an `or` in parentheses, so that others may stand beside it
        found.append(Condition(item.key if isinstance(item, Term) else "", text, str(rest).strip()))
    if asked.sort != "score":
        found.append(Condition("sort", f"sort:{asked.sort}", str(Query(asked.root)).strip()))
    return found


def narrowed(query: str, condition: str) -> str:
    """The search with one condition more, in the place of one of the same key if it has it.

    Raises InterpError for a search or condition that cannot be read.
    """
    new = conditions(condition)
    keys = {each.key for each in new} - {""}
    kept = [each.text for each in conditions(query) if each.key not in keys]
    return " ".join([*kept, *(each.text for each in new)])
