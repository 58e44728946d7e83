"""SAELens: `cfg.json`, `sae_weights.safetensors`; 6.x as it is, and folders of before 6 that carry no version.

Before 6 everything lay at the top level under other names (`hook_point`, `activation_fn_str`), topk was an activation of
the standard architecture, and a finetuning `scaling_factor` multiplied activations on their way to the decoder.
A checkpoint of a run that was not finished has the training's form: activations scaled or whitened by what lies in files
beside it, and for BatchTopK one `topk_threshold`, of activations times decoder norms; both are folded in.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.checkpoint.formats.foreign import Foreign, Settings, config_of, keys, number_of, tensors_of
from interp.checkpoint.formats.hooks import HOOK, hook_of, told
from interp.types import InterpError

OLD_NAMES = {
    "hook_point": "hook_name",
    "hook_point_layer": "hook_layer",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
ABOUT = (
    "model_name", "model_class_name", "model_from_pretrained_kwargs", "hook_name", "hook_name_out", "hook_head_index",
    "context_size", "prepend_bos", "dataset_path",
)  # fmt: skip
SETTINGS = Settings(
    read=keys(
        "architecture d_in d_sae d_out k metadata apply_b_dec_to_input normalize_activations rescale_acts_by_decoder_norm "
        "finetuning_scaling_factor activation_fn activation_fn_str activation_fn_kwargs hook_point hook_point_layer hook_layer "
        "hook_point_head_index widths hook_names dtype",
        *ABOUT,
    ),
    harmless=keys(
        "device sae_lens_version sae_lens_training_version neuronpedia_id hook_head_index_out hook_layer_out hf_hook_name "
        "hf_hook_name_out expansion_factor seqpos_slice exclude_special_tokens sequence_separator_token "
        "disable_concat_sequences dataset_trust_remote_code is_dataset_tokenized streaming use_cached_activations "
        "cached_activations_path context_size_override store_batch_size store_batch_size_prompts n_batches_in_buffer "
        "train_batch_size train_batch_size_tokens training_tokens total_training_tokens total_training_steps tokens_per_buffer "
        "eval_batch_size_prompts n_eval_batches n_eval_seqs seed verbose run_name release_name log_to_wandb wandb_project "
        "wandb_entity wandb_id wandb_log_frequency eval_every_n_wandb_logs log_tensors_to_wandb log_weights_to_wandb "
        "log_activations_store_to_wandb log_optimizer_state_to_wandb output_path checkpoint_path n_checkpoints "
        "resume resume_from_checkpoint save_final_checkpoint sae_path from_pretrained_path sparsity_path cfg_path weights_path "
        "act_store_device llm_device autocast autocast_lm autocast_data compile_llm compile_sae llm_compilation_mode "
        "sae_compilation_mode prefetch_llm_batches activations_mixing_fraction "
        "optimizer lr lr_end lr_scheduler_name lr_warm_up_steps lr_decay_steps n_restart_cycles adam_beta1 adam_beta2 "
        "l1_coefficient l1_coefficients l1_warm_up_steps l1_warmup_steps l0_coefficient l0_warm_up_steps lp_norm mse_loss_normalization "
        "mse_loss_type normalize_sae_decoder noise_scale scale_sparsity_penalty_by_decoder_norm finetuning_tokens finetuning_method "
        "b_dec_init_method init_encoder_as_decoder_transpose decoder_init_norm decoder_heuristic_init decoder_heuristic_init_norm "
        "decoder_orthogonal_init use_ghost_grads use_tied_weights feature_sampling_method feature_sampling_window feature_reinit_scale "
        "resample_batches dead_feature_window dead_feature_threshold dead_feature_estimation_method n_running_sparsity "
        "jumprelu_init_threshold jumprelu_bandwidth jumprelu_sparsity_loss_mode jumprelu_tanh_scale jumprelu_ste_to_input "
        "pre_act_loss_coefficient target_l0 use_sparse_activations aux_loss_coefficient topk_threshold_lr matryoshka_widths "
        "use_matryoshka_aux_loss d_sae_base ghost_grads multiple_runs log_every n_batches_for_norm_estimate "
        "hook_eval point source_model_name"
    ),
    only={"reshape_activations": ("none", "hook_z")},
)
"""Top-level keys, of all versions together."""
OTHERS = {
    "abstopk": "the k largest by magnitude pass and keep their sign",
    "matching_pursuit": "features are chosen one after the other, each on what the former ones left",
    "temporal": "it attends to earlier positions",
}
"""Architectures that are known and not computed here, with why."""
TANH = "tanh-relu"
"""An activation function of before 6: the hyperbolic tangent of what a ReLU lets through."""
PER_INPUT = {
    "layer_norm": "takes the mean off each input and divides it by its standard deviation",
    "constant_norm_rescale": "scales each input to one norm",
}
"""Ways of normalising that differ from input to input, so that no scale stands for them."""


def detect(path: Path) -> bool:
    return (path / "cfg.json").exists() and (path / "sae_weights.safetensors").exists()


def current(cfg: dict[str, Any]) -> dict[str, Any]:
    """A configuration in today's form; one that has the form already comes back as it is.

    As in SAELens, a configuration without a version of 6 or later is an old one.
    """
    about = cfg.get("metadata") if isinstance(cfg.get("metadata"), dict) else {}
    version = str((about or {}).get("sae_lens_version") or cfg.get("sae_lens_version") or "0")
    today = version.partition(".")[0].isdigit() and int(version.partition(".")[0]) >= 6
    old = dict(cfg) if today else {OLD_NAMES.get(key, key): value for key, value in cfg.items()}
    k = _topk_of(old, today)
    if today and k is not None and "topk" not in str(cfg.get("architecture")):
        raise InterpError(
            f"cfg.json says {cfg.get('architecture')!r} and asks for the activation function 'topk': which is it?"
        )
    if today:
        return cfg
    scale = old.get("normalize_activations")
    if isinstance(scale, bool) or scale is None:
        old["normalize_activations"] = "expected_average_only_in" if scale else "none"
    old.setdefault("architecture", "standard")
    old |= {} if k is None else {"architecture": "topk", "k": k}
    if "hook_z" in str(old.get("hook_name")):
        old.setdefault("reshape_activations", "hook_z")
    old["metadata"] = {"prepend_bos": True} | {key: old[key] for key in ABOUT if key in old}
    return old


def _topk_of(cfg: dict[str, Any], today: bool) -> Any:
    """k where topk is named as an activation function; InterpError for one that is not computed here."""
    name = cfg.get("activation_fn", cfg.get("activation_fn_str")) or "relu"
    options = cfg.get("activation_fn_kwargs") or {}
    options = options if isinstance(options, dict) else {"options": options}
    more = {key: value for key, value in options.items() if value not in (None, False) and (key, name) != ("k", "topk")}
    # What SAELens computes of a tanh-relu today is a ReLU; before 6, in standard SAEs, it was what it says.
    squashes = name == TANH and not today and cfg.get("architecture", "standard") == "standard"
    if not (name in ("relu", "topk") or squashes) or more:
        said = f"{name!r}" + (f" with {more}" if more else "")
        raise InterpError(f"cfg.json asks for the activation function {said}, which is not computed here.")
    if name in ("relu", TANH):
        return None
    k = options.get("k", cfg.get("k"))
    if k is None:
        raise InterpError("cfg.json asks for the activation function 'topk' and gives no k in activation_fn_kwargs.")
    return k


def place_of(cfg: dict[str, Any], key: str) -> str:
    """A hook point as a configuration names it, in TransformerLens' words where it is a template or a module's path.

    Any other name stays as it is: it is one, if not of TransformerLens, and whoever opens the model is told.
    """
    meta = cfg.get("metadata") if isinstance(cfg.get("metadata"), dict) else {}
    name, layer = (meta or {}).get(key), cfg.get("hook_layer")
    if not isinstance(name, str):
        return ""
    known = hook_of(name, layer if isinstance(layer, int) and not isinstance(layer, bool) else None)
    return known or (name if "{" not in name else "")


def fold_norms(t: dict[str, Tensor]) -> dict[str, Tensor]:
    """`rescale_acts_by_decoder_norm`: SAELens' code is topk of pre · ‖w‖, decoded by w / ‖w‖; so are these weights'."""
    norm = t["W_dec"].norm(dim=1).clamp_min(1e-8)
    return t | {"W_enc": t["W_enc"] * norm, "b_enc": t["b_enc"] * norm, "W_dec": t["W_dec"] / norm[:, None]}


def fold_finetuning(path: Path, cfg: dict[str, Any], t: dict[str, Tensor]) -> dict[str, Tensor]:
    """The finetuned factor of each feature, moved into its decoder row."""
    names = [name for name in ("scaling_factor", "finetuning_scaling_factor") if name in t]
    kept = {name: tensor for name, tensor in t.items() if name not in names}
    factor = t[names[0]].float() if names else None
    if factor is None or bool((factor == 1).all()):
        return kept
    if len(names) > 1 or factor.shape != t["W_dec"].shape[:1]:
        raise InterpError(
            f"{path} has {' and '.join(names)} of shape {tuple(factor.shape)}, where one factor a feature is needed."
        )
    if not cfg.get("finetuning_scaling_factor"):
        raise InterpError(f"{path} has a {names[0]} of each feature, and cfg.json says that none is used.")
    return kept | {"W_dec": t["W_dec"] * factor[:, None]}


def fold_scale(t: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Weights for raw inputs, of an SAE that was trained on inputs times `scale`."""
    if not 0 < scale < math.inf:
        raise InterpError(f"the scale is {scale}; it is the number that training multiplied activations by.")
    parts = {"W_enc": scale, "W_dec": 1 / scale, "b_dec": 1 / scale}
    return t | {name: t[name] * factor for name, factor in parts.items()}


def fold_whitening(path: Path, cfg: dict[str, Any], t: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights for raw inputs, of an SAE that was trained on (x - mean) M, with x̂ M⁻¹ + mean for its output."""
    white = tensors_of(path / "activation_whitening.safetensors", ("mean", "matrix", "inverse_matrix"))
    d_in = t["W_enc"].shape[0]
    if white["mean"].shape != (d_in,) or not white["matrix"].shape == white["inverse_matrix"].shape == (d_in, d_in):
        raise InterpError(f"{path}: activation_whitening.safetensors is not of {d_in} coordinates.")
    W_enc = white["matrix"] @ t["W_enc"]
    b_dec = t["b_dec"] @ white["inverse_matrix"] + white["mean"]
    folded = t | {"W_enc": W_enc, "W_dec": t["W_dec"] @ white["inverse_matrix"], "b_dec": b_dec}
    if cfg.get("apply_b_dec_to_input", True):
        return folded
    shift = white["mean"] @ W_enc
    gain = t["r_mag"].exp() if "r_mag" in t else 1.0
    parts = {"b_enc": shift, "b_gate": shift, "b_mag": shift * gain}
    return folded | {name: t[name] - part for name, part in parts.items() if name in t}


def for_raw_inputs(path: Path, cfg: dict[str, Any], t: dict[str, Tensor], scale: float | None) -> dict[str, Tensor]:
    """Tensors with the normalisation of inputs folded in; InterpError for one that is not a matter of weights."""
    how = cfg.get("normalize_activations")
    if isinstance(how, str) and how in PER_INPUT:
        raise InterpError(
            f"{path} {PER_INPUT[how]} ({how}): that differs from input to input, so no weights and no scale hold it, and "
            "this version does not compute it."
        )
    if how == "covariance_whitening":
        if scale is not None:
            raise InterpError(f"{path} whitens its inputs, of which a scale is no part; leave --scale out.")
        return fold_whitening(path, cfg, fold_norms(t) if rescales(cfg) else t)
    if how not in (None, "none", "expected_average_only_in"):
        raise InterpError(f"{path} normalises its inputs by {how!r}, which is not known here.")
    if how == "expected_average_only_in" and scale is None:
        scale = _kept_scale(path)
    if scale is None:
        return t
    folded = fold_scale(t, scale)
    if "topk_threshold" in t and rescales(
        cfg
    ):  # it is of activations times decoder norms, which were divided by the scale
        folded["topk_threshold"] = t["topk_threshold"] / scale
    return folded


def rescales(cfg: dict[str, Any]) -> bool:
    """Whether a topk chooses by activation times decoder norm: in training unless it says not, else where it says so."""
    kind = str(cfg.get("architecture"))
    return "topk" in kind and bool(cfg.get("rescale_acts_by_decoder_norm", kind.endswith("batchtopk")))


def _kept_scale(path: Path) -> float:
    """Of `activation_scaler.json`, which lies beside the weights of a run that was not finished."""
    file = path / "activation_scaler.json"
    if not file.exists():
        raise InterpError(
            f"{path} normalises its inputs (expected_average_only_in), which is not folded into its weights; "
            "fold the scale in first (`interp convert --scale`), or every activation would be wrong."
        )
    return number_of(file, config_of(file), "scaling_factor")


def read(path: Path, scale: float | None = None) -> Foreign:
    """As `checkpoint.load` reads both forms; a scale that is given is folded in."""
    from interp.checkpoint.folder import opened

    sae, cfg, unknown = opened(path, scale=scale)
    found = cfg.get("metadata")
    about: dict[str, Any] = found if isinstance(found, dict) else {}
    lost = []
    if about.get("prepend_bos"):
        lost.append("prepend_bos: it was trained with a BOS in front, where this project puts the separator")
    if cfg.get("reshape_activations") not in (None, "none"):
        lost.append(f"reshape_activations {cfg['reshape_activations']!r}: give it rows that are flat already")
    if about.get("hook_head_index") is not None:
        lost.append(f"hook_head_index {about['hook_head_index']!r}: it reads that head's part of the hook point alone")
    if str(cfg.get("dtype", "float32")).removeprefix("torch.") != "float32":
        lost.append(
            f"dtype {cfg['dtype']!r}, in which SAELens computes: here it is float32, on the weights as they are stored"
        )
    lost += _processing(about.get("model_from_pretrained_kwargs"))
    hooks = [
        (about.get(key), hook) for key, hook in (("hook_name", sae.hook_name), ("hook_name_out", sae.hook_name_out))
    ]
    lost += [
        told((hook,), "", name) for name, hook in hooks if isinstance(name, str) and name and not HOOK.fullmatch(name)
    ]
    if not hooks[0][0] and not (path / "card.json").exists():
        lost.append("no hook point is in cfg.json; give it with --hook")
    return Foreign(sae=sae, model=str(about.get("model_name") or ""), lost=lost, unknown=unknown)


def _processing(options: Any) -> list[str]:
    """What to say of a model that was opened with its weights changed (`center_writing_weights`, `fold_ln` …)."""
    if not isinstance(options, dict):
        return []
    harmless = ("trust_remote_code", "device", "device_map", "revision", "n_devices", "move_to_device", "cache_dir")
    changed = [
        f"{key}={value!r}" for key, value in options.items() if value not in (None, False) and key not in harmless
    ]
    if not changed:
        return []
    return [
        f"model_from_pretrained_kwargs: it was trained on a model opened with {', '.join(changed)}, which changes activations; "
        "here models are opened as they were published"
    ]


def write(foreign: Foreign, folder: Path) -> list[str]:
    """In float16 where that loses nothing, else in float32."""
    from interp.checkpoint.folder import OWN, architecture_of, save_weights

    sae = foreign.sae
    if len(sae.reads) > 1:
        raise InterpError("SAELens has no format for crosscoders, so this one stays in ours.")
    tensors = [tensor for tensor in sae.state_dict().values() if tensor is not None]
    exact = all(bool((tensor.half().float() == tensor).all()) for tensor in tensors)
    dtype = torch.float16 if exact else torch.float32
    save_weights(sae, folder, dtype=dtype, model=foreign.model)
    kind = architecture_of(sae)
    own = [f"SAELens itself has no {kind}: only this project opens the folder"] if kind in OWN else []
    return [*own, "the card, the index and the labels: `interp pack` takes the whole folder"]
