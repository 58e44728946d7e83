"""What evaluations of an SAE came to, kept on this machine until they are published with it."""

import hashlib
from typing import Any

from interp import places
from interp.types import InterpError


def keep(sae_sha256: str, figures: dict[str, Any]) -> None:
    """Keep figures of an SAE on a text (`text` and `tokens_sha256` say which); a newer set replaces that of the same text."""
    text = f"{figures['text']['name']} {figures['text'].get('split')}"
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    places.write_json(places.data() / "evaluations" / sae_sha256 / f"{name}.json", figures)


def kept(sae_sha256: str) -> dict[str, dict[str, Any]]:
    """The kept figures by the name they have in a card: `held_out`, and for further texts `held_out, TEXT`."""
    dated = []
    for path in (places.data() / "evaluations" / sae_sha256).glob("*.json"):
        try:
            value = places.read_json(path)
        except InterpError:
            continue
        if isinstance(value, dict) and isinstance(value.get("text"), dict):
            dated.append((path.stat().st_mtime, value))
    texts = [value for _, value in sorted(dated, key=lambda pair: -pair[0])]
    return {"held_out" if i == 0 else f"held_out, {value['text'].get('name')}": value for i, value in enumerate(texts)}
