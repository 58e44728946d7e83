"""The keys of the query language: each marks the features that pass, with a score of its own kind and the reason.

A key is a function of a term and the collection, in the file of what it looks at, and a line in HANDLERS; its help is a line
in `query.KEYS`.
"""

from interp.lenses.lens import LATER
from interp.search.answer import Handler
from interp.search.keys import facts, placed, positions, running, tested, weights, words

HANDLERS: dict[str, Handler] = {
    "text": words.find_text,
    "token": positions.find_token,
    "context": positions.find_context,
    "at": positions.find_at,
    "fires": running.find_fires,
    "only": running.find_only,
    "promotes": weights.find_effects(1.0, "raises"),
    "suppresses": weights.find_effects(-1.0, "lowers"),
    "later": weights.find_effects(1.0, "raises", LATER),
    "like": weights.find_like,
    "with": positions.find_with,
    "neuron": weights.find_neuron,
    "contrast": running.find_contrast,
    "topic": positions.find_topic,
    "density": facts.find_range("density"),
    "max": facts.find_range("max"),
    "status": facts.find_label("status"),
    "author": facts.find_label("author"),
    "tag": facts.find_tag,
    "starred": facts.find_starred,
    "dead": facts.find_dead,
    "labelled": facts.find_labelled,
    "confirmed": tested.find_confirmed,
    "verdict": tested.find_verdict,
    "scope": tested.find_scope,
    "effect": tested.find_effect,
    "exceeds": tested.find_exceeds,
    "replicates": tested.find_replicates,
    "map": placed.find_map,
}
