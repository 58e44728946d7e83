"""Hook points out of the names that other libraries give places; a name that is not known here gives none.

Three spellings are known: TransformerLens' own (`blocks.8.hook_resid_pre`, also with a `{layer}` to fill in), a module's
path in the Hugging Face model (`model.layers.8.mlp`, `h.8`), of which an SAE reads the output, and names such as
`mlp_out_layer3`. A guess would be trained, indexed and steered upon, so what is none of these is asked for.
"""

import re
from collections.abc import Sequence
from pathlib import Path

HOOK = re.compile(r"(?:\w+\.)*hook_\w+")
ROOTS = "model|transformer|gpt_neox|language_model|text_model|decoder|base_model|backbone|module|_orig_mod"
MODULE = re.compile(rf"(?:(?:{ROOTS})\.)*(?:layers?|h|blocks?)[._](\d+)(?:\.(\w+(?:\.\w+)*))?")
INSIDE = {
    "": ("hook_resid_pre", "hook_resid_post"),
    "mlp": ("mlp.hook_in", "hook_mlp_out"),
    "attn": ("", "hook_attn_out"),
    "self_attn": ("", "hook_attn_out"),
    "attention": ("", "hook_attn_out"),
    "self_attention": ("", "hook_attn_out"),
    "pre_feedforward_layernorm": ("", "mlp.hook_in"),
    "post_feedforward_layernorm": ("", "hook_mlp_out"),
    "self_attn.o_proj": ("attn.hook_z", ""),
}
"""A module inside a block, with the hook points at its input and at its output where TransformerLens has one."""
SITE = re.compile(r"(resid_pre|resid_mid|resid_post|resid_out|mlp_in|mlp_out|attn_out)_layer_?(\d+)")
SITES = {"resid_out": "hook_resid_post", "mlp_in": "mlp.hook_in"}
EMBEDDING = re.compile(rf"(?:(?:{ROOTS})\.)*(?:embed|embed_tokens|embed_in|wte)")


def hook_of(place: str, layer: int | None = None) -> str:
    """The hook point an SAE of a place reads and writes; empty when the name is not known, or is of another layer."""
    return hooks_of(place, layer)[1]


def hooks_of(place: str, layer: int | None = None) -> tuple[str, str]:
    """The hook points at a place's input and output, the same for a name that is of one; empty where there is none."""
    name = place.replace("{layer}", str(layer)) if layer is not None else place
    if HOOK.fullmatch(name):
        return _same_layer(name, name, layer)
    if EMBEDDING.fullmatch(name):
        return "", "hook_embed"
    if site := SITE.fullmatch(name):
        hook = f"blocks.{site[2]}.{SITES.get(site[1], 'hook_' + site[1])}"
        return _same_layer(hook, hook, layer)
    name, _, side = name.rpartition(".") if name.endswith((".input", ".output")) else (name, "", "")
    module = MODULE.fullmatch(name)
    if module is None or (module[2] or "") not in INSIDE:
        return "", ""
    read, written = (f"blocks.{module[1]}.{hook}" if hook else "" for hook in INSIDE[module[2] or ""])
    chosen = {"input": (read, read), "output": (written, written)}.get(side, (read, written))
    return _same_layer(*chosen, layer)


def _same_layer(read: str, written: str, layer: int | None) -> tuple[str, str]:
    """Both, or neither when they are of another layer than the file says besides."""
    number = layer_of(read or written)
    return (read, written) if layer is None or number is None or number == layer else ("", "")


def layer_of(hook_name: str) -> int | None:
    """The number in `blocks.N.`; None where the name has none."""
    number = re.match(r"blocks\.(\d+)\.", hook_name)
    return int(number[1]) if number else None


def last_number(path: Path, pattern: str) -> int | None:
    """The number in the nearest part of a path, its own name first, in which `pattern` (with one group) occurs."""
    for part in reversed(path.parts):
        if number := re.search(pattern, part):
            return int(number[1])
    return None


def told(hooks: Sequence[str], where: str, place: object, *, transcoder: bool = False) -> str:
    """The sentence of a conversion about the hook points that were read from a name (one, a transcoder's two), or that are
    to be given."""
    names = [hook for hook in hooks if hook]
    if len(names) == (2 if transcoder else 1):
        inside = [hook for hook in names if hook.endswith(("hook_mlp_out", "hook_attn_out"))]
        part = inside[0].split("_")[1] if inside and MODULE.fullmatch(str(place)) else ""
        norm = (
            f"; where the block normalises what its {part} writes (Gemma 2 and 3) it is {part}.hook_out" if part else ""
        )
        return f"no hook point is in the files; {' → '.join(names)} was read from {where}{place!r}{norm}"
    option = "--hook and --hook-out" if transcoder else "--hook"
    return f"no hook point: {where}{place!r} is no name of a place that is known here; give it with {option}"
