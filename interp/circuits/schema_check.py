"""Whether a JSON value is an attribution graph: the first place that is not as it must be is named.

What is asked is what circuit-tracer's and Neuronpedia's schemas ask, and what drawing and computing need: ids of their own, known kinds,
positions in the prompt, finite numbers, bounded sizes.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from interp.circuits.graph import ERROR, FEATURE, LOGIT, TOKEN
from interp.types import InterpError

MOST_NODES = 6_000
"""Edges are a matrix of so many squared numbers of 4 bytes."""
MOST_LINKS = 1_000_000
MOST_TOKENS = 20_000
MOST_LAYERS = 9_999
LARGEST = 1e38
"""Of a number, which float32 holds."""
TYPES = {
    "cross layer transcoder": FEATURE,
    "transcoder": FEATURE,
    "mlp reconstruction error": ERROR,
    "embedding": TOKEN,
    "logit": LOGIT,
}
Object = Mapping[str, Any]


def check_graph(value: Any) -> None:
    """Raises InterpError for the first place of a JSON value that is not as an attribution graph has it."""
    top = check_object(value, "", {"metadata": dict, "qParams": dict, "nodes": list, "links": list})
    about = {"slug": str, "scan": str, "prompt_tokens": list, "prompt": str}
    metadata = check_object(top["metadata"], "metadata", about)
    _bounded(metadata["prompt_tokens"], "metadata.prompt_tokens", MOST_TOKENS)
    for at, token in enumerate(metadata["prompt_tokens"]):
        _kind(token, f"metadata.prompt_tokens[{at}]", (str,))
    _check_asked(top["qParams"])
    _bounded(top["nodes"], "nodes", MOST_NODES)
    _bounded(top["links"], "links", MOST_LINKS)
    ids: set[str] = set()
    for at, node in enumerate(top["nodes"]):
        _check_node(node, f"nodes[{at}]", len(metadata["prompt_tokens"]), ids)
        ids.add(node["node_id"])
    for at, link in enumerate(top["links"]):
        each = check_object(link, f"links[{at}]", {"source": str, "target": str, "weight": (int, float)})
        if abs(each["weight"]) > LARGEST:
            refuse(f"links[{at}].weight", each["weight"], f"it is larger than {LARGEST:g}")
        for end in ("source", "target"):
            if each[end] not in ids:
                refuse(f"links[{at}].{end}", each[end], "no node of that id is among the nodes")


_NODE = {
    "node_id": str, "feature": (int, type(None)), "layer": (str, int), "ctx_idx": int, "feature_type": str, "clerp": (str, type(None)),
}  # fmt: skip


def _check_node(node: Any, where: str, tokens: int, ids: set[str]) -> None:
    each = check_object(node, where, _NODE)
    if each["node_id"] in ids:
        refuse(f"{where}.node_id", each["node_id"], "another node has it too, so their links cannot be told apart")
    if each["feature_type"] not in TYPES:
        refuse(f"{where}.feature_type", each["feature_type"], f"known are {', '.join(TYPES)}")
    if not 0 <= each["ctx_idx"] < tokens:
        refuse(f"{where}.ctx_idx", each["ctx_idx"], f"the prompt has {tokens} tokens")
    if TYPES[each["feature_type"]] != TOKEN and not re.fullmatch(r"\d{1,4}", str(each["layer"])):
        refuse(f"{where}.layer", each["layer"], "it is no number of a layer")
    if each["feature"] is not None and abs(each["feature"]) >= 2**62:
        refuse(f"{where}.feature", each["feature"], "it is too large for a feature")
    for name in ("influence", "activation", "token_prob"):
        if each.get(name) is not None:
            _kind(each[name], f"{where}.{name}", (int, float))
            if abs(each[name]) > LARGEST:
                refuse(f"{where}.{name}", each[name], f"it is larger than {LARGEST:g}")


def _check_asked(asked: Mapping[str, Any]) -> None:
    for name in ("pinnedIds", "supernodes"):
        _kind(asked.get(name, []), f"qParams.{name}", (list,))
        _bounded(asked.get(name, []), f"qParams.{name}", MOST_NODES)
    for at, each in enumerate(asked.get("pinnedIds", [])):
        _kind(each, f"qParams.pinnedIds[{at}]", (str,))
    for at, group in enumerate(asked.get("supernodes", [])):
        _kind(group, f"qParams.supernodes[{at}]", (list,))
        if not group:
            refuse(f"qParams.supernodes[{at}]", group, "a supernode begins with its name")
        for n, each in enumerate(group):
            _kind(each, f"qParams.supernodes[{at}][{n}]", (str,))


def check_object(value: Any, where: str, kinds: Mapping[str, Any]) -> Object:
    """The value, if it is an object that has these, each of its kind. Raises InterpError when it is not."""
    if not isinstance(value, dict):
        refuse(where or "the file", value, "an object is needed there")
    for name, kind in kinds.items():
        at = f"{where}.{name}".lstrip(".")
        if name not in value:
            raise InterpError(f"this is no attribution graph: {at} is missing.")
        _kind(value[name], at, kind if isinstance(kind, tuple) else (kind,))
    return value


def _kind(value: Any, where: str, kinds: tuple[type, ...]) -> None:
    flag = isinstance(value, bool)
    infinite = isinstance(value, float) and not math.isfinite(value)
    huge = isinstance(value, int) and abs(value) > 2**63
    if flag or infinite or huge or not isinstance(value, kinds):
        words = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object"}
        refuse(where, value, f"{' or '.join(words.get(kind, 'null') for kind in kinds)} is needed there")


def _bounded(value: Sequence[Any], where: str, most: int) -> None:
    if len(value) > most:
        raise InterpError(f"{where} has {len(value):,} entries, and a graph has {most:,} at most; prune it first.")


def refuse(where: str, value: Any, why: str) -> NoReturn:
    """Raises InterpError that names the place, what stands there, and what is wrong with it."""
    raise InterpError(f"this is no attribution graph: {where} is {str(value)[:60]!r}; {why}.")


def check_numbers(own: Object, name: str, count: int, kind: type, most: float = LARGEST) -> None:
    """Raises InterpError unless `own[name]` is a list of so many numbers, none larger than `most`."""
    _kind(own[name], f"metadata.interp.{name}", (list,))
    if len(own[name]) != count:
        refuse(f"metadata.interp.{name}", f"{len(own[name])} numbers", f"{count} are needed")
    for at, each in enumerate(own[name]):
        _kind(each, f"metadata.interp.{name}[{at}]", (int,) if kind is int else (int, float))
        if abs(each) > most:
            refuse(f"metadata.interp.{name}[{at}]", each, f"it is larger than {most:g}")
