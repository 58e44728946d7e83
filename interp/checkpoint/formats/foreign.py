"""What every format is read into and written from: an `SAE`, and what its file says besides.

Each format's file states its own formula. Where it differs from `SAE`'s, the difference is folded into the weights, so
that the numbers stay: codes and reconstructions are the same functions of the same inputs. What cannot be folded is
refused; what is merely not held (training settings, groups, a card) is listed.

A configuration says more than a reader uses, and some of it changes numbers. So a format lists its keys as `Settings`:
those it honours, those that change no number, and those of which it computes some values only. Whatever else a file
says is listed by name when it is converted, and refused where nothing could list it (`interp.load`).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from interp import places
from interp.sae import SAE
from interp.sae.dictionary import reads_what_it_writes
from interp.types import Hooks, InterpError


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """An SAE out of some file."""

    sae: SAE
    model: str = ""
    """Model it was made for, as the file says; empty when it does not."""
    lost: list[str] = field(default_factory=list)
    """What the file holds and an `SAE` does not, or what had to be guessed: a sentence each."""
    unknown: list[str] = field(default_factory=list)
    """Settings of the file that this version does not know, with their values, so that nobody can say what they do."""

    def not_held(self) -> list[str]:
        """All of it, for who converts the file."""
        said = "is a setting that this version does not know: if it changes numbers, those here are not theirs"
        return self.lost + [f"{setting} {said}" for setting in self.unknown]


def keys(*lists: str) -> frozenset[str]:
    """Names out of lists of names with spaces between them."""
    return frozenset(name for names in lists for name in names.split())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys that a format's configuration may have."""

    read: frozenset[str]
    """Those its reader honours."""
    harmless: frozenset[str] = frozenset()
    """Those that change no number: names, training, storage."""
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Those that change numbers, with the values that are computed here; null is as if the key were not there."""
    why: Mapping[str, str] = field(default_factory=dict)
    """What other values of such a key would do, for the error."""

    def check(self, path: Path, config: dict[str, Any]) -> list[str]:
        """What is set and not known, as `key = value`; InterpError for what is known and not computed here."""
        for key, values in self.only.items():
            value = config.get(key)
            if value is not None and not any(value is v if isinstance(v, bool) else value == v for v in values):
                why = f" ({self.why[key]})" if key in self.why else ""
                said = " or ".join(json.dumps(v).strip('"') for v in values)
                raise InterpError(
                    f"{path} sets {key} to {_short(value)}{why}; this version computes {key} {said} only."
                )
        known = self.read | self.harmless | set(self.only)
        return [f"{key} = {_short(value)}" for key, value in config.items() if key not in known and value is not None]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def check_sizes(path: Path, said: Mapping[str, Any], sae: SAE) -> None:
    """Raises InterpError where a configuration's width or number of features is not that of the tensors.

    Null, or 0 where that means "as the factor says", is no claim.
    """
    for key, value in said.items():
        size = sae.d_in if key in ("d_in", "d_model", "activation_dim", "act_size") else sae.d_sae
        if value and (not isinstance(value, int) or isinstance(value, bool) or value != size):
            raise InterpError(
                f"{path} says {key} is {_short(value)}, and its weights read {sae.d_in} and have {sae.d_sae} features."
            )


def whole_tensors(path: Path, names: Iterable[str], known: Iterable[str]) -> None:
    """Raises InterpError for tensors that nothing here reads; their own libraries refuse such a file too."""
    strange = sorted(set(names) - set(known))
    if strange:
        raise InterpError(
            f"{path} holds {', '.join(strange[:6])}, which no SAE of this kind has: it computes something else."
        )


def tensors_of(path: Path, needed: tuple[str, ...]) -> dict[str, Tensor]:
    """Float32 tensors of a .safetensors file, or of a .pt file read without running any code it may hold.

    Raises InterpError for a file that cannot be read, or lacks a tensor that is needed.
    """
    contents = contents_of(path)
    if not all(isinstance(value, Tensor) for value in contents.values()):
        raise InterpError(f"{path} does not hold tensors by name.")
    return floats(path, contents, needed)


def floats(path: Path, contents: dict[str, Any], needed: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors among a file's values, as float32; InterpError when one that is needed is missing."""
    missing = [name for name in needed if not isinstance(contents.get(name), Tensor)]
    if missing:
        raise InterpError(f"{path} has no tensor {', '.join(missing)}; it has {', '.join(map(str, contents))}.")
    tensors = {str(name): value for name, value in contents.items() if isinstance(value, Tensor)}
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def contents_of(path: Path) -> dict[str, Any]:
    """What a file of weights holds by name: tensors, and in a .pt file perhaps plain values beside them.

    Raises InterpError for a file that is not there or cannot be read; nothing in it is run.
    """
    if not path.exists():
        raise InterpError(f"there is no file {path}; give the folder that holds it.")
    try:
        if path.suffix == ".safetensors":
            raw: Any = load_file(path)
        elif path.suffix == ".npz":
            raw = _npz(path)
        else:
            raw = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load answers a broken file with whatever its reader stumbles on
        raise InterpError(
            f"{path} cannot be read as weights: {str(error).splitlines()[0] if str(error) else error!r}."
        ) from None
    contents = raw.get("state_dict", raw) if isinstance(raw, dict) else None
    if not isinstance(contents, dict):
        raise InterpError(f"{path} does not hold tensors by name.")
    return contents


def _npz(path: Path) -> dict[str, Tensor]:
    import numpy as np

    # Opened here, for NumPy leaves a broken file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def config_of(path: Path) -> dict[str, Any]:
    """The settings in a JSON file; InterpError when it holds no object."""
    value = places.read_json(path)
    if not isinstance(value, dict):
        raise InterpError(f"{path} is no object of settings.")
    return value


def make(
    path: Path,
    tensors: dict[str, Tensor],
    *,
    k: int | None = None,
    centred: bool = True,
    name: str = "sae",
    reads: Hooks = (),
    writes: Hooks | None = None,
    tanh: bool = False,
) -> SAE:
    """The SAE of W_enc (D, F), b_enc, W_dec (F, O), b_dec, with threshold or k; InterpError when shapes disagree.

    An empty `writes` is none: the file names no other hook point than it reads.
    """
    W_enc, W_dec = tensors["W_enc"], tensors["W_dec"]
    if W_enc.ndim != 2 or W_dec.ndim != 2 or min(W_enc.shape) < 1:
        shapes = f"W_enc has shape {tuple(W_enc.shape)} and W_dec {tuple(W_dec.shape)}"
        raise InterpError(f"{path}: {shapes}, no matrices; an SAE reads one place of one layer.")
    (d_in, d_sae), d_out = W_enc.shape, W_dec.shape[1]
    wanted = {
        "b_enc": (d_sae,),
        "W_dec": (d_sae, d_out),
        "b_dec": (d_out,),
        "threshold": (d_sae,),
        "W_skip": (d_out, d_in),
    }
    for key, shape in wanted.items():
        if key in tensors and tuple(tensors[key].shape) != shape:
            raise InterpError(f"{path}: {key} has shape {tuple(tensors[key].shape)}, where W_enc asks for {shape}.")
    if centred and d_in != d_out:
        raise InterpError(f"{path}: an SAE that reads {d_in} and writes {d_out} is no autoencoder.")
    for key, tensor in tensors.items():
        bad = ~tensor.isfinite()
        if key == "threshold":  # a feature that was switched off for good: nothing is above +inf
            bad &= tensor != torch.inf
        if bool(bad.any()):
            raise InterpError(f"{path}: {key} holds values that are not finite.")
    if k is not None and not 1 <= k <= d_sae:
        raise InterpError(f"{path}: k is {k}, with {d_sae} features.")
    kept: dict[str, Any] = {key: tensors[key].contiguous() for key in ("W_enc", "b_enc", "W_dec", "b_dec")}
    extra: dict[str, Any] = {key: tensors[key] for key in ("threshold", "W_skip") if key in tensors}
    if "threshold" in extra:  # below 0 it passes what is positive, in every library
        extra["threshold"] = extra["threshold"].clamp_min(0.0)
    return SAE(**kept, **extra, k=k, centred=centred, name=name, reads=reads, writes=writes or None, tanh=tanh)


def transposed(path: Path, tensor: Tensor) -> Tensor:
    """A matrix turned; InterpError for what is none, such as those of several layers in one tensor."""
    if tensor.ndim != 2:
        raise InterpError(
            f"{path} has a tensor of shape {tuple(tensor.shape)} for a matrix; an SAE reads one place of one layer."
        )
    return tensor.T


def number_of(path: Path, config: Mapping[str, Any], key: str) -> float:
    """A positive, finite number out of a configuration.

    Raises InterpError, naming the key, for anything else.
    """
    value = config.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e30:
        raise InterpError(f"{path} gives {key} the value {_short(value)}, where a number above 0 is needed.")
    return float(value)


def gated(path: Path, t: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gate and magnitude as one threshold: a feature is on where x·w > -b_gate, and gives e^r x·w + b_mag if positive.

    With pre = e^r x·w + b_mag that is pre > max(b_mag - e^r b_gate, 0).

    Raises InterpError when shapes do not belong together.
    """
    gain = t["r_mag"].exp()
    if (
        t["W_enc"].ndim != 2
        or gain.shape != t["W_enc"].shape[1:]
        or not t["b_mag"].shape == t["b_gate"].shape == gain.shape
    ):
        raise InterpError(f"{path}: r_mag, b_mag, b_gate and W_enc have shapes that do not belong together.")
    threshold = (t["b_mag"] - gain * t["b_gate"]).clamp_min(0.0)
    kept = {name: t[name] for name in ("W_dec", "b_dec")}
    return kept | {"W_enc": t["W_enc"] * gain, "b_enc": t["b_mag"], "threshold": threshold}


def is_transcoder(sae: SAE) -> bool:
    """Whether it writes another place than it reads; an SAE may do without taking b_dec off, too."""
    return not reads_what_it_writes(sae) or sae.W_skip is not None or sae.d_in != sae.d_out


def centred(sae: SAE) -> tuple[Tensor, Tensor]:
    """(W_enc, b_enc) that give the same pre-activations from x - b_dec as the SAE's do from what it takes."""
    return sae.W_enc, sae.b_enc if sae.centred else sae.b_enc + sae.b_dec @ sae.W_enc


def uncentred(sae: SAE) -> tuple[Tensor, Tensor]:
    """(W_enc, b_enc) that give the same pre-activations from x as the SAE's from x - b_dec."""
    return sae.W_enc, sae.b_enc - sae.b_dec @ sae.W_enc if sae.centred else sae.b_enc


def write_json(folder: Path, name: str, value: dict[str, Any]) -> None:
    """Write a file of that name into the folder, with an indent of 2."""
    (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def integer(path: Path, config: dict[str, Any], key: str) -> int:
    """A whole number from 1 on out of a configuration; InterpError, naming the key, for anything else."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InterpError(f"{path} gives {key} the value {value!r}, where a number from 1 on is needed.")
    return value


def refuse(format_: str, what: str, try_: str) -> InterpError:
    """The error that a format cannot hold what is to be written, with what to do instead."""
    return InterpError(f"{format_} has no place for {what}; {try_}.")
