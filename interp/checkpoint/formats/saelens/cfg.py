"""`cfg.json` of every version of SAELens, brought into today's form.

Before 6 everything lay at the top level under other names (`hook_point`, `activation_fn_str`), and topk was an activation
of the standard architecture.
"""

from typing import Any

from interp.checkpoint.formats.foreign import Settings, keys
from interp.checkpoint.formats.hooks import hook_of
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


def current(cfg: dict[str, Any]) -> dict[str, Any]:
    """A configuration in today's form; one that has the form already comes back as it is.

    As in SAELens, a configuration without a version of 6 or later is an old one.

    Raises InterpError for an activation function that is not computed here.
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
