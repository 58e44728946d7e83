"""README.md of a checkpoint on a hub: what it is, what was measured, how to open it here and in sae-lens, its licences."""

import json
import re
from pathlib import Path
from typing import Any

from interp.checkpoint.card import Card
from interp.checkpoint.formats.saelens.tensors import OWN

SPDX = re.compile(r"(apache-2\.0|mit|cc-by-4\.0|cc-by-sa-4\.0|cc0-1\.0|bsd-3-clause|gpl-3\.0)\b", re.IGNORECASE)
MEASURES = {
    "fvu": "FVU",
    "l0": "L0",
    "delta_ce": "ΔCE, nats a token",
    "recovered_zero": "CE recovered against zero ablation",
    "dead_share": "features that fire nowhere in the text measured",
    "tokens": "counted tokens",
}


def readme(card: Card, cfg: dict[str, Any], address: str) -> str:
    """The text of a model card; `address` is where the checkpoint will be found."""
    licence = SPDX.match(card.licences.get("weights", "").strip())
    base = [f"base_model: {json.dumps(card.model)}"] if re.fullmatch(r"[^/:]+/[^/:]+", card.model) else []
    head = [
        "---",
        f"license: {licence.group(1).lower() if licence else 'other'}",
        "library_name: saelens",
        "tags: [sparse-autoencoder, sae, saelens, mechanistic-interpretability]",
        *base,
        "---",
    ]
    facts = {
        "model": f"{model_name(card.model)} (weights {card.model_sha256})",
        "hook point": card.hook_name + (f" → {card.hook_name_out}" if card.hook_name_out else ""),
        "features": f"{cfg.get('d_sae')}, of width {cfg.get('d_in')}",
        "trained as": f"{card.architecture}; saved as {cfg.get('architecture')}",
        "text": str(card.corpus.get("name", "not said")),
        "harvested in": f"{card.dtype}, {card.attention} attention",
        "left out": f"position 0, token {card.separator} between documents, norms over {card.norm_cutoff:.4g}",
        "SAE weights, SHA-256": card.sae_sha256,
    }
    lines = [*head, f"# {_plain(card.name)}", "", "A sparse autoencoder, packed and described by `interp`.", ""]
    lines += _table(("", ""), facts) + _metrics(card) + _loading(card, cfg, address) + ["## Licences", ""]
    lines += [f"- {_plain(what)}: {_plain(text)}" for what, text in card.licences.items()] or ["- not said"]
    return "\n".join(lines) + "\n"


def _metrics(card: Card) -> list[str]:
    """Tables of each set of figures in the card, with their 95 % intervals."""
    lines = []
    sets = {name: value for name, value in card.metrics.items() if isinstance(value, dict)} or {"": card.metrics}
    for name, found in sets.items():
        rows = {}
        for key, said in MEASURES.items():
            if isinstance(found.get(key), int | float):
                low_high = found.get(f"{key}_interval")
                interval = (
                    " ({:.4g} to {:.4g})".format(*low_high) if isinstance(low_high, list) and len(low_high) == 2 else ""
                )
                rows[said] = f"{found[key]:.4g}{interval}" if isinstance(found[key], float) else f"{found[key]:,}"
        if rows:
            lines += [
                f"## Measured, {_plain(name.replace('_', ' ')) or 'as the card says'}",
                "",
                *_table(("", ""), rows),
            ]
    return lines


def _loading(card: Card, cfg: dict[str, Any], address: str) -> list[str]:
    lines = [
        "## To open it",
        "",
        "```bash",
        *(
            [f"interp pull {address} --into saes/theirs"]
            if address
            else ["# in the folder that holds this one as saes/theirs"]
        ),
        "interp verify saes/theirs",
        "```",
        "",
    ]
    if cfg.get("architecture") in OWN:
        return [*lines, f"SAELens has no {cfg['architecture']}, so only `interp` opens this folder.", ""]
    lines += [
        "```python",
        "from sae_lens import SAE",
        'sae = SAE.load_from_disk("saes/theirs")  # computes in float32',
        "```",
        "",
    ]
    return [*lines, "No BOS is put in front: the separator is (see `left out`), and no scale is to be applied.", ""]


def _table(head: tuple[str, str], rows: dict[str, str]) -> list[str]:
    return [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {_plain(a)} | {_plain(b)} |" for a, b in rows.items()), ""]


def model_name(model: str) -> str:
    """A model's name; of a folder on the maker's machine, the folder's own. That it is a random copy goes before it."""
    random, own = re.fullmatch(r"(random-\d+:)?(.*)", model, re.DOTALL).groups(default="")  # type: ignore[union-attr]
    return random + (Path(own).name if Path(own).is_absolute() else own)


def _plain(text: str) -> str:
    """One line in which Markdown finds no table, link or element."""
    return re.sub(r"([|\\`*_<>\[\]#])", r"\\\1", " ".join(str(text).split()))


def describe(folder: Path, address: str) -> str:
    from interp import places

    return readme(Card.read(folder), places.read_json(folder / "cfg.json"), address)
