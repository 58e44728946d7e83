"""Searches, features, neurons, spectra and the library on the command line."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from interp.cli.app import Asked, add, plain_parameters, print_json, register, showing
from interp.commands import COMMANDS, as_json
from interp.commands.finding import Answer, ShownFeature, TokenFirings
from interp.commands.labelling import in_words
from interp.render.terminal import narrow, say, table, tell, write
from interp.render.words import counted

if TYPE_CHECKING:
    from interp.commands.finding import Entry, Hits
    from interp.views import Example, FeaturePage, NeuronPage

PARTIAL = "partial: this index keeps examples only (`interp index SAE` builds the full one)"


def _search(**given: Any) -> None:
    faces = {key: given.pop(key) for key in ("as_json", "as_csv", "wide")}
    answer: Any = COMMANDS["search"].call(**given)
    hits = answer.hits
    partial = PARTIAL if hits.partial else ""
    if faces["as_json"]:
        print_json(as_json(hits) if not answer.since else {"hits": hits} | {k: getattr(answer, k) for k in CHANGES})
    if faces["as_csv"]:
        write(hits.to_csv())
    if faces["as_json"] or faces["as_csv"]:
        for sentence in filter(None, (partial, *hits.notes)):
            say(sentence)  # beside the data, on standard error
        if faces["as_csv"] and answer.since:
            say(_since(answer))
        return
    title = "; ".join([counted(hits.total, "feature") + (f", {partial}" if partial else ""), *hits.notes])
    if not hits:
        tell(title)
        return
    _show_hits(hits, title, faces["wide"])
    if answer.since:
        tell(_since(answer))


CHANGES = ("since", "came", "went")


def _show_hits(hits: "Hits", title: str, wide: bool) -> None:
    short = narrow(wide)
    mark = " *" if short else " (automatic)"
    columns: dict[str, Callable[[Any], Any]] = {
        "feature": lambda hit: hit.feature,
        "label": lambda hit: hit.label + (mark if hit.automatic else ""),
        "score": lambda hit: hit.score,
        "density": lambda hit: hit.density,
        "max": lambda hit: hit.max,
        "why": lambda hit: "; ".join(hit.why.values()),
    }
    if not any(hit.scores for hit in hits):
        del columns["score"]  # no condition measures anything
    rows = [[cell(hit) for cell in columns.values()] for hit in hits]
    table(list(columns), rows, title, shorten=("label", "why"), drop=("max", "density"), wide=wide)
    if short and any(hit.automatic for hit in hits):
        tell("* automatic description, untested")


def _since(answer: Answer) -> str:
    came, went = (", ".join(map(str, numbers)) or "none" for numbers in (answer.came, answer.went))
    return f"since {answer.since}: came {came}; went {went}"


def _keys(keys: dict[str, str], _: Asked) -> None:
    title = "finds features whose …" if "at" in keys else "holds where …"
    table(["key", title], [[key if ":" in key else f"{key}:", about] for key, about in keys.items()])
    tell("Conditions are joined by and (or nothing), or, not and parentheses.")


def _feature(shown: ShownFeature, _: Asked) -> None:
    page = shown.page
    tell(f"feature {page.feature}: {_called(page)}")
    where = f"{counted(page.fires, 'time')} in {counted(page.documents, 'document')}"
    tell(f"density {page.density:.3g}, max {page.max:.4g}, fires {where}")
    if page.clean_sentence():
        tell(page.clean_sentence())
    tell(f"detection: {shown.detected}")
    for said in page.tested():
        tell(f"{'shown' if said.shown else 'not shown'}: {said.text}")
    for each in page.says:
        table(each.heads, [[_cell(value) for value in row] for row in each.rows()])
        tell(each.how)
    table(["nearest", "cosine"], [list(pair) for pair in page.nearest[:5]])
    together = [[c.feature, f"{c.count} of {c.of}", c.lift] for c in page.coactive[:5]]
    table(["fires together with", "tokens", "times chance"], together)
    table(["aligned neuron", "cosine"], [[f"{layer}.{n}", cosine] for layer, n, cosine in page.neurons])
    _examples(page.examples[:10])


def _cell(value: str | float | None) -> str | float:
    """An entry of a table; a count with its thousands."""
    return "" if value is None else f"{value:,}" if isinstance(value, int) else value


def _feature_json(shown: ShownFeature, _: Asked) -> str:
    page: Any = as_json(shown.page)
    return json.dumps(page | {"detection": as_json(shown.detection)}, indent=2, ensure_ascii=False)


def _examples(shown: "Sequence[Example]") -> None:
    def text(e: "Example") -> str:
        before, after = ("".join(part).replace("\n", "↵") for part in (e.tokens[: e.peak], e.tokens[e.peak + 1 :]))
        return f"{before[-60:]}«{e.tokens[e.peak]}»{after[:30]}"

    rows = [[e.value, text(e), e.title, e.trained_on] for e in shown]
    table(["value", "example", "document", "trained on"], rows)
    for said in dict.fromkeys(e.unread for e in shown if e.unread):
        tell(said)


def _neuron(page: "NeuronPage", asked: Asked) -> None:
    for sign, side in page.signs.items():
        tell(f"neuron {asked['name']}, {sign}: {side.description} (automatic, untested)")
        tell(f"density {side.density:.3g}, entropy of its tokens {side.token_entropy:.2f} nats")
        _examples(side.examples[:5])
        here = [(e, page.untangled.get(e.position, [])) for e in side.examples[:5]]
        rows = [[e.value, e.tokens[e.peak], ", ".join(f"{f} ({name})" for f, _, name in firing)] for e, firing in here]
        table(["value", "token", "features that fire there"], rows)
    tell("The features nearest to what it writes:")
    rows = [[f.feature, cosine, f.density, f.token_entropy, _called(f)] for f, cosine in page.features]
    table(["feature", "cosine", "density", "entropy", "label or automatic description"], rows)


def _called(page: "FeaturePage") -> str:
    return in_words(page.label) if page.label else f"{page.description} (untested)"


def _spectrum(tokens: list[TokenFirings], _: Asked) -> None:
    rows = [
        [
            each.position,
            repr(each.token)[1:-1],
            "  ".join(f"{x.feature} ({x.value:.1f})" for x in each.features) or "left out (sink)",
        ]
        for each in tokens
    ]
    table(["", "token", "strongest features (activation)"], rows)


def _library(entries: "list[Entry]", asked: Asked) -> None:
    head = ["name", "model", "hook", "features", "MiB", "L0", "EV", "ΔCE", "labels", "verified"]
    rows = [
        [e.name, e.model, e.hook, e.features, e.mib, e.l0, e.ev, e.delta_ce, e.labels, e.verified]
        for e in entries
        if not e.problem
    ]
    whole = [["" if cell is None else cell for cell in row] for row in rows]
    table(head, whole, shorten=("name", "model", "hook"), drop=("MiB", "model", "hook"), wide=asked["wide"])
    for entry in entries:
        if entry.problem:
            tell(f"{entry.folder}: {entry.problem}")


SEARCH = COMMANDS["search"]
add(
    _search,
    "search",
    "interp search SAE 'token:/^ ?(Paris|Rome)$/ density:1e-5..1e-2'",
    SEARCH,
    [*plain_parameters(SEARCH), *showing("as_json", "as_csv", "wide")],
)
register("keys", _keys, "interp keys")
register("feature", _feature, "interp feature SAE 1234", to_json=_feature_json)
register("neuron", _neuron, "interp neuron SAE 15.3")
register("spectrum", _spectrum, "interp spectrum SAE 'The Eiffel Tower is in'")
register("library", _library, "interp library saes", face=("as_json", "wide"))
