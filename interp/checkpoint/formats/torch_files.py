"""Single .pt files as they were published, told by the names of their tensors; W is (F, D) unless it says otherwise.

    openai      relu((x - pre_bias) W + latent_bias); with `TopK` the input is normalised besides, which is refused here
    linear      relu(x W + b), two linear layers: Goodfire's (`encoder_linear.weight`) and others' (`encoder.weight`)
    qwen-scope  the k largest of relu(x W + b), in `layer<n>.sae.pt`; k is in the repository's name alone (`…-L0_50`)
    attn-saes   relu((x - b_dec) W + b), W (D, F), with `<name>_cfg.json` beside it (Kissane et al. 2024)

Files are read by `torch.load(weights_only=True)`: tensors and plain values, no code.
"""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.checkpoint.formats.foreign import (
    Foreign,
    Settings,
    check_sizes,
    config_of,
    contents_of,
    floats,
    keys,
    make,
    transposed,
    whole_tensors,
)
from interp.checkpoint.formats.hooks import HOOK, hook_of, last_number, told
from interp.sae import SAE
from interp.types import InterpError

OPENAI = ("pre_bias", "latent_bias", "encoder.weight", "decoder.weight")
STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
GOODFIRE = tuple(name.replace(".", "_linear.") for name in LINEAR)
PLAIN = ("W_enc", "b_enc", "W_dec", "b_dec")
LOCATIONS = {
    "resid_post_mlp": "hook_resid_post",
    "resid_post_attn": "hook_resid_mid",
    "resid_delta_mlp": "hook_mlp_out",
    "resid_delta_attn": "hook_attn_out",
    "mlp_post_act": "mlp.hook_post",
}
"""OpenAI's names of places, which are those of folders: `resid_post_mlp_v5_32k/autoencoders/5.pt`."""
QWEN = re.compile(r"SAE-Res-(.+)-W\d+K-L0_(\d+)")
ATTN_SETTINGS = Settings(
    read=frozenset({"act_size", "dict_size", "act_name"}),
    harmless=keys(
        "seed batch_size buffer_mult buffer_size buffer_batches lr num_tokens l1_coeff beta1 beta2 dict_mult seq_len "
        "enc_dtype model_name site layer device head reinit reinit_every resample resample_mode resample_scheme re_init_every "
        "model_batch_size remove_rare_dir anthropic_resample_last anthropic_resample_batches anthropic_resample_look_back_steps "
        "wandb_project_name wandb_entity save_state_dict_every b_dec_init sched_type sched_epochs sched_lr_factor "
        "sched_warmup_epochs sched_finish run_name log_every save_every n_resampled_features dec_init_norm nr"
    ),
)


def detect(kind: str) -> Callable[[Path], bool]:
    """Whether a path is a file of this kind, or a folder of such files."""
    tell: Callable[[Path], bool] = {
        "openai": lambda file: "pre_bias" in names_in(file),
        "linear": lambda file: (
            {"encoder_linear.weight", "decoder_linear.bias"} <= names_in(file) or set(LINEAR) <= names_in(file)
        ),
        "qwen-scope": lambda file: re.fullmatch(r"layer\d+\.sae\.pt", file.name) is not None,
        "attn-saes": lambda file: file.with_name(file.stem + "_cfg.json").exists(),
    }[kind]
    return lambda path: any(tell(file) for file in files(path)[:1])


def files(path: Path) -> list[Path]:
    """The file itself, or a folder's .pt and .pth files by name."""
    if path.is_file():
        return [path] if path.suffix in (".pt", ".pth") else []
    return sorted(file for file in path.glob("*.pt*") if file.suffix in (".pt", ".pth"))


def names_in(file: Path) -> set[str]:
    """Those of the known tensors' names that occur in a file, without reading its tensors."""
    try:
        with zipfile.ZipFile(file) as packed:
            (pickled,) = [name for name in packed.namelist() if name.endswith("/data.pkl")]
            head = packed.read(pickled)
    except (zipfile.BadZipFile, ValueError, KeyError, OSError, RuntimeError, NotImplementedError, EOFError):
        with file.open("rb") as raw:
            head = raw.read(2**16)
    return {name for name in (*OPENAI, *LINEAR, *GOODFIRE) if name.encode() in head}


def _only(path: Path) -> Path:
    found = files(path)
    if len(found) != 1:
        raise InterpError(
            f"{path} holds {len(found)} files of SAEs ({', '.join(f.name for f in found[:4])}…); name one."
        )
    return found[0]


def _contents(
    path: Path, needed: tuple[str, ...], known: tuple[str, ...] = ()
) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """(file, its tensors, its other values)."""
    file = _only(path)
    found = contents_of(file)
    raw = floats(file, found, needed)
    whole_tensors(file, raw, (*needed, *known))
    return file, raw, {str(name): value for name, value in found.items() if not isinstance(value, Tensor)}


def read_openai(path: Path) -> Foreign:
    """OpenAI's ReLU SAEs; InterpError for their TopK, which normalises each input on its own."""
    file, raw, said = _contents(path, OPENAI, STATISTICS)
    whole_tensors(file, said, ("activation", "activation_state_dict"))
    rule = said.get("activation", "ReLU")
    if rule == "TopK":
        state = said.get("activation_state_dict")
        k = state.get("k") if isinstance(state, dict) else None
        raise InterpError(
            f"{file} is OpenAI's TopK (k {k}), which takes the mean off each input and divides it by its standard "
            "deviation: that differs from input to input, so no weights hold it, and this version does not compute it."
        )
    if rule != "ReLU":
        raise InterpError(f"{file} has the activation {rule!r}, and this version computes ReLU of OpenAI's files only.")
    W_enc, W_dec = transposed(file, raw["encoder.weight"]), transposed(file, raw["decoder.weight"])
    t = {"W_enc": W_enc, "b_enc": raw["latent_bias"], "W_dec": W_dec, "b_dec": raw["pre_bias"]}
    place = next((p for p in reversed(file.resolve().parts[:-1]) if p.partition("_v")[0] in LOCATIONS), "")
    hook = f"blocks.{file.stem}.{LOCATIONS[place.partition('_v')[0]]}" if place and file.stem.isdigit() else ""
    lost = [told((hook,), "the names ", f"{place}/{file.name}")]
    return Foreign(
        sae=_relu(file, t, centred=True, reads=hook),
        model="gpt2" if "gpt2-small" in file.resolve().parts else "",
        lost=lost,
    )


def read_linear(path: Path) -> Foreign:
    """Goodfire's and others' two linear layers."""
    file = _only(path)
    names = GOODFIRE if "encoder_linear.weight" in names_in(file) else LINEAR
    file, raw, said = _contents(file, names)
    whole_tensors(file, said, ())
    W_enc, b_enc, W_dec, b_dec = (raw[name] for name in names)
    t = {"W_enc": transposed(file, W_enc), "b_enc": b_enc, "W_dec": transposed(file, W_dec), "b_dec": b_dec}
    named = re.search(r"^(.+)-SAE-l(\d+)$", file.stem)
    hook = f"blocks.{named[2]}.hook_resid_post" if named else ""
    return Foreign(
        sae=_relu(file, t, centred=False, reads=hook),
        lost=[
            told((hook,), "the file's name ", file.name),
            *([f"the model's full name; the file's has {named[1]}"] if named else []),
        ],
    )


def read_qwen_scope(path: Path) -> Foreign:
    """TopK SAEs of Qwen Scope; InterpError where no folder above names k."""
    file, raw, said = _contents(path, PLAIN)
    whole_tensors(file, said, ())
    named = [QWEN.search(part) for part in reversed(file.resolve().parts)]
    repository = next((found for found in named if found), None)
    if repository is None:
        raise InterpError(
            f"{file} does not hold k, which its publisher has in the repository's name alone; keep the file in a folder "
            "of that name, such as SAE-Res-Qwen3-1.7B-Base-W32K-L0_50."
        )
    t = raw | {name: transposed(file, raw[name]) for name in ("W_enc", "W_dec")}
    number = last_number(Path(file.name), r"layer(\d+)")
    hook = f"blocks.{number}.hook_resid_post" if number is not None else ""
    sae = make(file, t, k=int(repository[2]), centred=False, reads=hook, name=file.name.partition(".")[0])
    return Foreign(sae=sae, model=f"Qwen/{repository[1]}", lost=[told((hook,), "the file's name ", file.name)])


def read_attn_saes(path: Path) -> Foreign:
    """ReLU SAEs of attention outputs (hook_z), with their `NAME_cfg.json`."""
    file, raw, said = _contents(path, PLAIN)
    whole_tensors(file, said, ())
    beside = file.with_name(file.stem + "_cfg.json")
    config = config_of(beside)
    unknown = ATTN_SETTINGS.check(beside, config)
    place = str(config.get("act_name") or "")
    hook = hook_of(place) if HOOK.fullmatch(place) else ""
    sae = _relu(file, dict(raw), centred=True, reads=hook)
    check_sizes(beside, {"act_size": config.get("act_size"), "dict_size": config.get("dict_size")}, sae)
    lost = [] if hook else [told((), "act_name ", place)]
    return Foreign(sae=sae, model="gpt2" if file.name.startswith("gpt2-small") else "", lost=lost, unknown=unknown)


def _relu(file: Path, t: dict[str, Tensor], *, centred: bool, reads: str) -> SAE:
    return make(file, t | {"threshold": torch.zeros_like(t["b_enc"])}, name=file.stem, centred=centred, reads=reads)
