"""SAEs as people publish them, in folders laid out by hand here, against sae-lens' own loaders or the formula written slowly."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from interp.checkpoint import load, save_weights
from interp.checkpoint.formats import FORMATS, Foreign, convert, read
from interp.checkpoint.formats.hooks import hook_of, hooks_of
from interp.models import Site
from interp.sae import SAE
from interp.steering import Clamp
from interp.steering.compiling import model_edit
from interp.types import InterpError
from tests.test_formats import X, close

D, F, K = 8, 12, 3


def drawn(*shape, seed=0, scale=0.4):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


W_ENC, W_DEC, B_ENC, B_DEC = drawn(D, F), drawn(F, D, seed=1), drawn(F, seed=2), drawn(D, seed=3)
CUT = drawn(F, seed=4).abs() + 0.05
PLAIN = {"W_enc": W_ENC, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
SCOPE = {"w_enc": W_ENC, "b_enc": B_ENC, "w_dec": W_DEC, "b_dec": B_DEC, "threshold": CUT}


def folder_of(path, **json_files):
    path.mkdir(parents=True, exist_ok=True)
    for name, value in json_files.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return path


def whole(tensors):
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def jumprelu(pre, cut):
    return torch.where(pre > cut, pre, 0.0).clamp_min(0.0)


def topk(pre, k):
    """The k largest of a row, one row after the other."""
    out = torch.zeros_like(pre)
    for row, values in zip(out, pre, strict=True):
        for at in sorted(range(len(values)), key=lambda i: -float(values[i]))[:k]:
            row[at] = max(float(values[at]), 0.0)
    return out


def same(sae, code, out, name):
    assert 0 < int((code > 0).sum()) < code.numel()
    close(sae.encode(X), code, f"{name} code")
    close(sae.reconstruct(X), out, f"{name} reconstruction")


@pytest.fixture
def sae_lens_of(monkeypatch):
    """What one of sae-lens' loaders makes of local files, with the sizes of these instead of the published ones."""
    loaders = pytest.importorskip("sae_lens.loading.pretrained_sae_loaders")
    from sae_lens import SAE as Theirs

    def made(loader, root, folder, repo="x", **overrides):
        def local(repo_id=None, filename=None, subfolder="", **_):
            return str(root / (subfolder or "") / filename)

        monkeypatch.setattr(loaders, "hf_hub_download", local)
        given = {"d_in": D, "d_sae": F, "dtype": "float32", **overrides}
        config, state, _ = loaders.NAMED_PRETRAINED_SAE_LOADERS[loader](repo, folder, device="cpu", cfg_overrides=given)
        sae = Theirs.from_dict(loaders.handle_config_defaulting(config | given))
        sae.load_state_dict(state)
        return sae, config

    return made


# ---- Gemma Scope ----


@pytest.mark.parametrize(
    ("repository", "hooks", "model"),
    [
        ("gemma-scope-2b-pt-res", ("blocks.20.hook_resid_post", ""), "google/gemma-2-2b"),
        ("gemma-scope-9b-it-res", ("blocks.20.hook_resid_post", ""), "google/gemma-2-9b-it"),
        ("gemma-scope-2b-pt-mlp", ("blocks.20.hook_mlp_out", ""), "google/gemma-2-2b"),
        ("gemma-scope-2b-pt-att", ("blocks.20.attn.hook_z", ""), "google/gemma-2-2b"),
        ("gemma-scope-2b-pt-transcoders", ("blocks.20.ln2.hook_normalized", "blocks.20.hook_mlp_out"), "google/gemma-2-2b"),
        ("somewhere", ("", ""), ""),
    ],
)  # fmt: skip
def test_gemma_scope_1(tmp_path, sae_lens_of, repository, hooks, model):
    place = folder_of(tmp_path / repository / "layer_20" / "width_16k" / "average_l0_71")
    np.savez(place / "params.npz", **{n.replace("w_", "W_"): tensor.numpy() for n, tensor in SCOPE.items()})
    name, foreign = read(place)
    assert (name, foreign.sae.hook_name, foreign.sae.hook_name_out, foreign.model) == ("gemma-scope", *hooks, model)
    pre = X @ W_ENC + B_ENC
    code = jumprelu(pre, CUT)
    same(foreign.sae, code, code @ W_DEC + B_DEC, name)
    assert ("give it with --hook" in " ".join(foreign.lost)) == (not hooks[0])
    if repository.endswith("-res"):
        theirs, config = sae_lens_of("gemma_2", tmp_path / repository, "layer_20/width_16k/average_l0_71", repository)
        assert config["hook_name"] == hooks[0]
        same(foreign.sae, theirs.encode(X), theirs(X), name)
    close(read(place / "params.npz")[1].sae.encode(X), code, "the file by itself")


MLP_5 = ("blocks.5.mlp.hook_in", "blocks.5.hook_mlp_out")


@pytest.mark.parametrize(
    ("folder", "said", "hooks", "affine"),
    [
        ("resid_post/layer_17_width_16k_l0_small", "output", ("blocks.17.hook_resid_post", ""), False),
        ("mlp_out_all/layer_3_width_16k_l0_big", "post_feedforward_layernorm.output", ("blocks.3.hook_mlp_out", ""), False),
        ("attn_out/layer_9_width_65k_l0_big", "self_attn.o_proj.input", ("blocks.9.attn.hook_z", ""), False),
        ("transcoder_all/layer_5_width_16k_l0_big", "pre_feedforward_layernorm.output", MLP_5, False),
        ("transcoder/layer_5_width_65k_l0_big_affine", "pre_feedforward_layernorm.output", MLP_5, True),
    ],
)  # fmt: skip
def test_gemma_scope_2_with_and_without_its_config(tmp_path, sae_lens_of, monkeypatch, folder, said, hooks, affine):
    number, transcoder = folder.split("layer_")[1].split("_")[0], "transcoder" in folder
    skip = drawn(D, D, seed=9)
    config = {"architecture": "jump_relu", "model_name": "google/gemma-3-1b-pt", "width": F, "l0": 20,
              "type": "transcoder" if transcoder else "sae", "affine_connection": affine,
              "hf_hook_point_in": f"model.layers.{number}.{said}",
              "hf_hook_point_out": f"model.layers.{number}.{'post_feedforward_layernorm.output' if transcoder else said}"}  # fmt: skip
    place = folder_of(tmp_path / folder, config=config)
    save_file(SCOPE | ({"affine_skip_connection": skip} if affine else {}), place / "params.safetensors")
    name, foreign = read(place)
    assert (name, foreign.model, foreign.unknown) == ("gemma-scope", "google/gemma-3-1b-pt", [])
    assert (foreign.sae.hook_name, foreign.sae.hook_name_out) == hooks
    code = jumprelu(X @ W_ENC + B_ENC, CUT)
    same(foreign.sae, code, code @ W_DEC + B_DEC + (X @ skip if affine else 0.0), folder)
    loaders = pytest.importorskip("sae_lens.loading.pretrained_sae_loaders")
    shapes = {n: list(t.shape) for n, t in SCOPE.items()}
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", lambda *_: shapes)
    theirs, _ = sae_lens_of("gemma_3", tmp_path, folder, "google/gemma-scope-2-1b-pt")
    same(foreign.sae, theirs.encode(X), theirs(X), folder)
    (place / "config.json").unlink()
    without = read(place)[1]
    assert (without.sae.hook_name, without.sae.hook_name_out) == hooks
    close(load(place).encode(X), code, "opened as it lies")


def test_cross_layer_and_other_kinds_of_gemma_scope_2_are_refused(tmp_path):
    place = folder_of(tmp_path / "clt" / "layer_3", config={"architecture": "jump_relu", "type": "clt"})
    save_file(SCOPE, place / "params.safetensors")
    with pytest.raises(InterpError, match="sets type to 'clt' .*computes type sae or transcoder only"):
        read(place)
    (place / "config.json").unlink()
    save_file(SCOPE | {"w_dec": drawn(F, 2, D)}, place / "params.safetensors")
    with pytest.raises(InterpError, match="cross-layer transcoder"):
        read(place)


# ---- Llama Scope ----


def llama_scope(tmp_path, W_dec=W_DEC, **changes):
    config = {
        "hook_point_in": "blocks.15.hook_resid_post", "hook_point_out": "blocks.15.hook_resid_post", "d_model": D, "d_sae": F,
        "expansion_factor": 1.5, "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False, "act_fn": "jumprelu",
        "jump_relu_threshold": 0.35, "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True, "top_k": 50,
        "dataset_average_activation_norm": {"in": 3.5, "out": 3.5}, "use_glu_encoder": False, **changes,
    }  # fmt: skip
    folder = folder_of(tmp_path / "Llama3_1-8B-Base-L15R-8x", hyperparams=config)
    (folder / "checkpoints").mkdir(exist_ok=True)
    weights = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "decoder.weight": W_dec.T, "decoder.bias": B_DEC}
    save_file(whole(weights), folder / "checkpoints" / "final.safetensors")
    return folder


def test_llama_scope_is_what_sae_lens_makes_of_it_where_that_looks_at_all_there_is(tmp_path, sae_lens_of):
    folder = llama_scope(tmp_path, W_DEC / W_DEC.norm(dim=1, keepdim=True))
    name, foreign = read(folder)
    assert (name, foreign.sae.hook_name, foreign.lost, foreign.unknown) == (
        "llama-scope",
        "blocks.15.hook_resid_post",
        [],
        [],
    )
    theirs, _ = sae_lens_of("llama_scope", tmp_path, folder.name, normalize_activations="none")
    theirs.fold_activation_norm_scaling_factor(math.sqrt(D) / 3.5)
    same(foreign.sae, theirs.encode(X), theirs(X), name)
    close(load(folder).encode(X), foreign.sae.encode(X), "opened as it lies")
    close(read(folder / "checkpoints" / "final.safetensors")[1].sae.encode(X), foreign.sae.encode(X), "by its weights")


@pytest.mark.parametrize("with_norms", [True, False])
def test_llama_scopes_transcoders_select_in_the_units_of_what_they_write(tmp_path, with_norms):
    """lm-saes folds the norms of the data, then makes decoder rows 1 long where they are part of the selection, then compares."""
    folder = llama_scope(
        tmp_path,
        hook_point_in="blocks.8.ln2.hook_normalized",
        hook_point_out="blocks.8.hook_mlp_out",
        dataset_average_activation_norm={"in": 3.5, "out": 0.8},
        sparsity_include_decoder_norm=with_norms,
    )
    into, out = math.sqrt(D) / 3.5, math.sqrt(D) / 0.8
    bias, rows = B_ENC / into, W_DEC * into / out
    norm = rows.norm(dim=1) if with_norms else torch.ones(F)
    pre = (X @ W_ENC + bias) * norm
    code = torch.where(pre > 0.35, pre, 0.0)
    foreign = read(folder)[1]
    assert (foreign.sae.hook_name, foreign.sae.hook_name_out) == (
        "blocks.8.ln2.hook_normalized",
        "blocks.8.hook_mlp_out",
    )
    same(foreign.sae, code / norm * into, code @ (rows / norm[:, None]) + B_DEC / out, "transcoder")


def test_llama_scope_refuses_what_it_would_compute_otherwise(tmp_path):
    for change, message in (
        ({"use_glu_encoder": True}, "a second encoder gates the first"),
        ({"apply_decoder_bias_to_pre_encoder": True}, "taken off the input"),
        ({"norm_activation": "token-wise"}, "its own norm"),
        ({"act_fn": "relu"}, "computes act_fn jumprelu or topk only"),
        ({"d_sae": F + 1}, "says d_sae is 13, and its weights read 8 and have 12 features"),
        ({"dataset_average_activation_norm": {"in": 3.0}}, "gives out the value None"),
    ):
        with pytest.raises(InterpError, match=message):
            read(llama_scope(tmp_path, **change))


def test_the_r1_distill_release_takes_a_scale_that_its_files_do_not_hold(tmp_path, sae_lens_of):
    config = {"sae_type": "sae", "d_model": D, "expansion_factor": F / D, "act_fn": "jumprelu", "norm_activation": "dataset-wise",
              "sparsity_include_decoder_norm": False, "hook_point_in": "blocks.3.hook_resid_post",
              "hook_point_out": "blocks.3.hook_resid_post"}  # fmt: skip
    folder = folder_of(tmp_path / "L3R", config=config)
    weights = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "decoder.weight": W_DEC.T, "decoder.bias": B_DEC}
    save_file(whole(weights | {"log_jumprelu_threshold": CUT.log()}), folder / "sae_weights.safetensors")
    with pytest.raises(InterpError, match="--scale takes √d by the norm"):
        read(folder)
    theirs, _ = sae_lens_of("llama_scope_r1_distill", tmp_path, "L3R", normalize_activations="none")
    theirs.fold_activation_norm_scaling_factor(0.6)
    same(read(folder, scale=0.6)[1].sae, theirs.encode(X), theirs(X), "R1 distill")


# ---- single .pt files ----


def test_qwen_scope_takes_k_from_the_repositorys_name(tmp_path, sae_lens_of):
    repository = folder_of(tmp_path / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_3")
    file = repository / "layer4.sae.pt"
    torch.save({"W_enc": W_ENC.T, "b_enc": B_ENC, "W_dec": W_DEC.T, "b_dec": B_DEC}, file)
    name, foreign = read(file)
    assert (name, foreign.sae.hook_name, foreign.model) == (
        "qwen-scope",
        "blocks.4.hook_resid_post",
        "Qwen/Qwen3-1.7B-Base",
    )
    code = topk(X @ W_ENC + B_ENC, K)
    same(foreign.sae, code, code @ W_DEC + B_DEC, name)
    theirs, _ = sae_lens_of("qwen_scope", repository, file.name, f"Qwen/{repository.name}")
    same(foreign.sae, theirs.encode(X), theirs(X), name)
    close(read(repository)[1].sae.encode(X), code, "the only file of a folder")
    torch.save({}, repository / "layer5.sae.pt")
    with pytest.raises(InterpError, match=r"holds 2 files of SAEs \(layer4.sae.pt, layer5.sae.pt…\); name one"):
        read(repository)
    file.rename(tmp_path / file.name)
    with pytest.raises(InterpError, match="does not hold k, which its publisher has in the repository's name"):
        read(tmp_path / file.name)


def openai(tmp_path, **said):
    place = folder_of(tmp_path / "gpt2-small" / "resid_post_attn_v4" / "autoencoders")
    tensors = {"pre_bias": B_DEC, "latent_bias": B_ENC, "encoder.weight": W_ENC.T, "decoder.weight": W_DEC.T}
    torch.save(tensors | {"stats_last_nonzero": torch.zeros(F, dtype=torch.long)} | said, place / "5.pt")
    return place / "5.pt"


def test_openais_relu_files_are_read_and_their_topk_is_refused_for_its_normalisation(tmp_path):
    name, foreign = read(openai(tmp_path, activation="ReLU"))
    assert (name, foreign.sae.hook_name, foreign.model) == ("openai", "blocks.5.hook_resid_mid", "gpt2")
    code = ((X - B_DEC) @ W_ENC + B_ENC).clamp_min(0.0)
    same(foreign.sae, code, code @ W_DEC + B_DEC, name)
    with pytest.raises(InterpError, match="takes the mean off each input and divides it by its standard") as refused:
        read(openai(tmp_path, activation="TopK", activation_state_dict={"k": 32, "postact_fn": "ReLU"}))
    assert "--scale" not in str(refused.value)
    with pytest.raises(InterpError, match="computes ReLU of OpenAI's files only"):
        read(openai(tmp_path, activation="Identity"))
    with pytest.raises(InterpError, match="holds normalize, which no SAE of this kind has"):
        read(openai(tmp_path, normalize=True))


@pytest.mark.parametrize(
    ("loader", "file", "part", "repository"),
    [
        ("goodfire", "Llama-3.1-8B-Instruct-SAE-l19.pth", "_linear", "Goodfire/Llama-3.1-8B-Instruct-SAE-l19"),
        (
            "deepseek_r1",
            "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt",
            "",
            "qresearch/DeepSeek-R1-Distill-Llama-8B-SAE-l19",
        ),
    ],
)
def test_two_linear_layers(tmp_path, sae_lens_of, loader, file, part, repository):
    layers = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "decoder.weight": W_DEC.T, "decoder.bias": B_DEC}
    torch.save({name.replace(".", f"{part}."): tensor for name, tensor in layers.items()}, tmp_path / file)
    name, foreign = read(tmp_path / file)
    assert (name, foreign.sae.hook_name) == ("linear", "blocks.19.hook_resid_post")
    theirs, config = sae_lens_of(loader, tmp_path, file, repository)
    assert config["hook_name"] == foreign.sae.hook_name
    same(foreign.sae, theirs.encode(X), theirs(X), name)


def test_attention_saes_with_their_configuration_beside_them(tmp_path, sae_lens_of):
    (tmp_path / "gpt2-small_L5_Hcat_z_v9_cfg.json").write_text(
        json.dumps({"act_size": D, "dict_size": F, "act_name": "blocks.5.attn.hook_z", "l1_coeff": 1.8})
    )
    torch.save(PLAIN, tmp_path / "gpt2-small_L5_Hcat_z_v9.pt")
    name, foreign = read(tmp_path / "gpt2-small_L5_Hcat_z_v9.pt")
    assert (name, foreign.sae.hook_name, foreign.model, foreign.unknown) == (
        "attn-saes",
        "blocks.5.attn.hook_z",
        "gpt2",
        [],
    )
    theirs, _ = sae_lens_of("connor_rob_hook_z", tmp_path, "gpt2-small_L5_Hcat_z_v9.pt", reshape_activations="none")
    same(foreign.sae, theirs.encode(X), theirs(X), name)


# ---- SAELens ----


def saelens(tmp_path, tensors=PLAIN, name="s", **changes):
    config = {"architecture": "standard", "d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
              "normalize_activations": "none", "metadata": {"sae_lens_version": "6.54.12", "hook_name": "blocks.3.hook_resid_pre"},
              **changes}  # fmt: skip
    folder = folder_of(tmp_path / name, cfg=config)
    save_file(whole(tensors), folder / "sae_weights.safetensors")
    return folder


@pytest.mark.parametrize("rescales", [True, False])
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka_batchtopk", "topk"])
def test_a_run_that_was_not_finished_opens_as_sae_lens_would_finish_it(tmp_path, kind, scale, rescales):
    sae_lens = pytest.importorskip("sae_lens")
    from sae_lens.registry import get_sae_training_class

    made, config = get_sae_training_class(kind)
    given = {"matryoshka_widths": [4, F]} if kind.startswith("matryoshka") else {}
    normalises = "none" if scale is None else "expected_average_only_in"
    run = made(
        config(d_in=D, d_sae=F, k=K, rescale_acts_by_decoder_norm=rescales, normalize_activations=normalises, **given)
    )
    with torch.no_grad():
        for name, tensor in PLAIN.items():
            getattr(run, name).copy_(tensor)
        if kind != "topk":
            run.topk_threshold.fill_(0.4)
    run.cfg.metadata.hook_name = "blocks.3.hook_resid_pre"
    run.save_model(tmp_path / "checkpoint")
    if scale is not None:
        with pytest.raises(InterpError, match="fold the scale in first"):
            load(tmp_path / "checkpoint")
        (tmp_path / "checkpoint" / "activation_scaler.json").write_text(json.dumps({"scaling_factor": scale}))
        run.fold_activation_norm_scaling_factor(scale)
    run.save_inference_model(tmp_path / "finished")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "finished")
    foreign = read(tmp_path / "checkpoint")[1]
    assert (foreign.sae.hook_name, foreign.unknown) == ("blocks.3.hook_resid_pre", [])
    same(foreign.sae, theirs.encode(X), theirs(X), kind)
    same(load(tmp_path / "checkpoint"), theirs.encode(X), theirs(X), kind)


@pytest.mark.parametrize("kind", ["standard", "gated", "jumprelu"])
@pytest.mark.parametrize("centred", [True, False])
def test_whitening_beside_the_weights_is_folded_as_sae_lens_folds_it(tmp_path, kind, centred):
    sae_lens = pytest.importorskip("sae_lens")
    tensors = dict(PLAIN)
    if kind == "gated":
        tensors = {"W_enc": W_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
        tensors |= {name: drawn(F, seed=at) for at, name in enumerate(("b_gate", "b_mag", "r_mag"))}
    tensors |= {"threshold": CUT} if kind == "jumprelu" else {}
    plain = saelens(tmp_path, tensors, "plain", architecture=kind, apply_b_dec_to_input=centred)
    folder = saelens(
        tmp_path, tensors, architecture=kind, apply_b_dec_to_input=centred, normalize_activations="covariance_whitening"
    )
    matrix = torch.eye(D) + drawn(D, D, seed=11, scale=0.1)
    white = {"mean": drawn(D, seed=12), "matrix": matrix, "inverse_matrix": matrix.inverse()}
    with pytest.raises(InterpError, match="there is no file .*activation_whitening"):
        load(folder)
    save_file(whole(white), folder / "activation_whitening.safetensors")
    theirs = sae_lens.SAE.load_from_disk(plain)
    theirs.fold_activation_whitening(*white.values())
    same(load(folder), theirs.encode(X), theirs(X), kind)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalize_activations": "layer_norm"}, "takes the mean off each input"),
        ({"normalize_activations": "constant_norm_rescale"}, "scales each input to one norm"),
        ({"normalize_activations": "constant_scalar_rescale"}, "'constant_scalar_rescale', which is not known here"),
        ({"architecture": "abstopk", "k": 3}, "'abstopk' .the k largest by magnitude pass and keep their sign"),
        ({"architecture": "matching_pursuit"}, "one after the other"),
        ({"architecture": "temporal"}, "attends to earlier positions"),
        ({"activation_fn": "tanh-relu"}, "activation function 'tanh-relu'"),
        ({"metadata": {}, "activation_fn_str": "tanh-relu", "architecture": "gated"}, "activation function 'tanh-relu'"),
        ({"metadata": {}, "activation_fn_str": "topk", "activation_fn_kwargs": {}}, "gives no k"),
        ({"metadata": {}, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3, "signed": True}}, "'topk' with {'signed': True}"),
        ({"reshape_activations": "flatten"}, "computes reshape_activations none or hook_z only"),
        ({"activation_fn": "topk", "activation_fn_kwargs": {"k": 3}}, "says 'standard' and asks for the activation function 'topk'"),
        ({"metadata": {}, "activation_fn_str": "relu", "activation_fn_kwargs": {"k": 3}}, "'relu' with {'k': 3}"),
        ({"architecture": "jumprelu"}, "has no tensor threshold"),
        ({"architecture": "transcoder", "d_out": D}, "apply_b_dec_to_input the value True, which is none for a transcoder"),
        ({"d_sae": F + 1}, "cfg.json says W_enc is"),
    ],
)  # fmt: skip
def test_saelens_settings_that_are_not_computed_are_refused_and_no_scale_is_advised(tmp_path, changes, message):
    folder = saelens(tmp_path, **changes)
    for opens in (load, read, lambda path: read(path, scale=0.5)):
        with pytest.raises(InterpError, match=message) as refused:
            opens(folder)
        assert "--scale" not in str(refused.value)


def test_tanh_relu_of_before_6_is_computed_and_written_nowhere(tmp_path):
    folder = saelens(tmp_path, metadata={}, activation_fn_str="tanh-relu")
    sae = load(folder)
    code = torch.where((X - B_DEC) @ W_ENC + B_ENC > 0, (X - B_DEC) @ W_ENC + B_ENC, 0.0).tanh()
    same(sae, code, code @ W_DEC + B_DEC, "tanh-relu")
    active = sae.active(X)
    close(torch.zeros_like(code).index_put((active.rows, active.features), active.values), code, "active")
    feature = int(code.sum(0).argmax())
    close(sae.encode_feature(X, feature), code[:, feature], "one feature")
    edit = model_edit(Clamp(feature=feature, strength=0.5), sae, norm_cutoff=1e9, separator=-1)
    real = torch.ones(1, len(X), dtype=torch.bool)
    site = Site(
        torch.ones(1, len(X), dtype=torch.int64), real, torch.arange(1, len(X) + 1)[None], torch.tensor([len(X)])
    )
    close(edit.apply(X[None], site)[0], X + (0.5 - code[:, feature])[:, None] * W_DEC[feature], "clamped")
    for target in ("saelens", "dictionary_learning"):
        with pytest.raises(InterpError, match="has no tanh-relu"):
            convert(folder, target, tmp_path / target)
    with pytest.raises(InterpError, match="has no tanh-relu, so nothing was saved"):
        save_weights(sae, tmp_path / "saved")
    assert not (tmp_path / "saelens").exists()


def test_tensors_that_no_such_sae_has_are_refused(tmp_path):
    with pytest.raises(InterpError, match="holds W_skip, threshold, which no SAE of this kind has"):
        load(saelens(tmp_path, PLAIN | {"threshold": CUT, "W_skip": drawn(D, D)}))
    factors = PLAIN | {"scaling_factor": drawn(F).abs()}
    with pytest.raises(InterpError, match="scaling_factor of each feature, and cfg.json says that none is used"):
        load(saelens(tmp_path, factors, finetuning_scaling_factor=False))
    found = load(saelens(tmp_path, factors, finetuning_scaling_factor=True))
    code = ((X - B_DEC) @ W_ENC + B_ENC).clamp_min(0.0)
    same(found, code, (code * factors["scaling_factor"]) @ W_DEC + B_DEC, "finetuned")
    same(load(saelens(tmp_path, PLAIN | {"scaling_factor": torch.ones(F)})), code, code @ W_DEC + B_DEC, "factors of 1")


def test_saelens_places_in_other_words(tmp_path):
    old = {"metadata": {}, "hook_point": "blocks.{layer}.hook_mlp_out", "hook_point_layer": 7}
    assert load(saelens(tmp_path, **old)).hook_name == "blocks.7.hook_mlp_out"
    meta = {"sae_lens_version": "6.5.0", "hook_name": "model.layers.8", "model_class_name": "AutoModelForCausalLM"}
    assert load(saelens(tmp_path, metadata=meta)).hook_name == "blocks.8.hook_resid_post"
    opened = {"model_from_pretrained_kwargs": {"center_writing_weights": True, "fold_ln": False}, "hook_head_index": 3}
    lost = " | ".join(read(saelens(tmp_path, metadata=meta | opened, dtype="bfloat16"))[1].lost)
    assert "opened with center_writing_weights=True, which changes activations" in lost
    assert "hook_head_index 3" in lost
    assert "dtype 'bfloat16', in which SAELens computes" in lost
    assert "blocks.8.hook_resid_post was read from 'model.layers.8'" in lost


def test_a_threshold_of_inf_is_a_feature_that_never_fires_wherever_it_goes(tmp_path):
    cut = CUT.clone()
    cut[[2, 7]] = torch.inf
    code = jumprelu((X - B_DEC) @ W_ENC + B_ENC, cut)
    folder = saelens(tmp_path, PLAIN | {"threshold": cut}, architecture="jumprelu")
    sae = load(folder)
    same(sae, code, code @ W_DEC + B_DEC, "inf")
    for bfloat16 in (True, False):
        active = sae.active(X, bfloat16=bfloat16)
        assert not {2, 7} & set(active.padded()[1][active.padded()[0] > 0].tolist())
    for target in ("saelens", "dictionary_learning", "llamascopium"):
        convert(folder, target, tmp_path / target)
        back = read(tmp_path / target)[1].sae
        assert back.threshold[[2, 7]].tolist() == [torch.inf] * 2
        same(back, code, code @ W_DEC + B_DEC, target)
    for bad in (torch.nan, -torch.inf):
        cut[2] = bad
        with pytest.raises(InterpError, match="threshold holds values that are not finite"):
            load(saelens(tmp_path, PLAIN | {"threshold": cut}, architecture="jumprelu"))


# ---- the others, and what holds for all ----


def sparsify(tmp_path, name, tensors=None, **config):
    folder = folder_of(tmp_path / name, cfg={"num_latents": F, "k": K, "d_in": D} | config)
    kept = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    save_file(whole(kept | (tensors or {})), folder / "sae.safetensors")
    return folder


def dictionary(tmp_path, submodule, layer, *, name="trainer_0", buffer=None, **trainer):
    said = {
        "dict_class": "AutoEncoder",
        "activation_dim": D,
        "dict_size": F,
        "layer": layer,
        "submodule_name": submodule,
    }
    folder = folder_of(tmp_path / name, config={"trainer": said | trainer, "buffer": buffer or {"ctx_len": 128}})
    tensors = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "decoder.weight": W_DEC.T, "bias": B_DEC}
    torch.save(tensors, folder / "ae.pt")
    return folder


def circuit(tmp_path, config, tensors=None, name="layer_1.safetensors"):
    folder = folder_of(tmp_path / "set")
    save_file(
        whole({"W_enc": W_ENC.T, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC} | (tensors or {})), folder / name
    )
    hooks = "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    (folder / "config.yaml").write_text("model_name: me/model\n" + hooks + config)
    return folder / name


@pytest.mark.parametrize(
    ("place", "layer", "reads", "transcodes"),
    [
        ("blocks.8.hook_resid_pre", None, "blocks.8.hook_resid_pre", ("blocks.8.hook_resid_pre",) * 2),
        ("blocks.8.ln2.hook_normalized", 8, "blocks.8.ln2.hook_normalized", ("blocks.8.ln2.hook_normalized",) * 2),
        ("blocks.{layer}.hook_mlp_out", 4, "blocks.4.hook_mlp_out", ("blocks.4.hook_mlp_out",) * 2),
        ("mlp_out_layer1", 1, "blocks.1.hook_mlp_out", ("blocks.1.hook_mlp_out",) * 2),
        ("attn_out_layer3", 3, "blocks.3.hook_attn_out", ("blocks.3.hook_attn_out",) * 2),
        ("resid_post_layer_1", 1, "blocks.1.hook_resid_post", ("blocks.1.hook_resid_post",) * 2),
        ("resid_out_layer2", None, "blocks.2.hook_resid_post", ("blocks.2.hook_resid_post",) * 2),
        ("resid_pre_layer_2", None, "blocks.2.hook_resid_pre", ("blocks.2.hook_resid_pre",) * 2),
        ("h.1.mlp", None, "blocks.1.hook_mlp_out", ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")),
        ("gpt_neox.layers.3.attention", None, "blocks.3.hook_attn_out", ("", "blocks.3.hook_attn_out")),
        ("model.layers.17.output", None, "blocks.17.hook_resid_post", ("blocks.17.hook_resid_post",) * 2),
        ("layers.15", None, "blocks.15.hook_resid_post", ("blocks.15.hook_resid_pre", "blocks.15.hook_resid_post")),
        ("embed_tokens", None, "hook_embed", ("", "hook_embed")),
        ("resid_post_layer_1", 2, "", ("", "")),
        ("layers.3.mlp.act_fn", None, "", ("", "")),
        ("vision_tower.layers.3", None, "", ("", "")),
        ("mlp_layer_3", 3, "", ("", "")),
        ("layer 3", 3, "", ("", "")),
        ("", 5, "", ("", "")),
    ],
)  # fmt: skip
def test_names_of_places(place, layer, reads, transcodes):
    assert hook_of(place, layer) == reads
    assert hooks_of(place, layer) == transcodes


def test_a_sparsify_transcoder_reads_its_modules_input(tmp_path):
    folder_of(tmp_path / "run", config={"model": "EleutherAI/pythia-160m", "dataset": "pile"})
    foreign = read(sparsify(tmp_path / "run", "h.1.mlp", transcode=True))[1]
    assert (foreign.sae.hook_name, foreign.sae.hook_name_out) == ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")
    assert foreign.model == "EleutherAI/pythia-160m"
    code = topk(X @ W_ENC + B_ENC, K)
    same(foreign.sae, code, code @ W_DEC + B_DEC, "transcoder")
    assert read(sparsify(tmp_path, "h.2.mlp/seed1"))[1].sae.hook_name == "blocks.2.hook_mlp_out"
    attention = read(sparsify(tmp_path, "layers.3.self_attn", transcode=True))[1]
    assert (attention.sae.hook_name, attention.sae.hook_name_out) == ("", "")
    asked = read(sparsify(tmp_path, "expert_3", transcode=True))[1]
    assert (asked.sae.hook_name, asked.sae.hook_name_out) == ("", "")
    assert "'expert_3' is no name of a place that is known here; give it with --hook and --hook-out" in asked.lost[-1]
    done = convert(
        tmp_path / "expert_3",
        "saelens",
        tmp_path / "o",
        hook_name="blocks.3.mlp.hook_in",
        hook_name_out="blocks.3.hook_mlp_out",
    )
    assert not [phrase for phrase in done.lost if phrase.startswith("no hook point")]
    assert load(tmp_path / "o").hook_name_out == "blocks.3.hook_mlp_out"


def test_dictionary_learnings_places_are_those_that_it_names(tmp_path):
    for submodule, layer, wanted in (
        ("mlp_out_layer1", 1, "blocks.1.hook_mlp_out"),
        ("resid_post_layer_1", 1, "blocks.1.hook_resid_post"),
        ("model.layers.3.mlp", 3, "blocks.3.hook_mlp_out"),
        ("resid_post_layer_1", 2, ""),
        ("somewhere", 1, ""),
        (None, 5, ""),
    ):
        foreign = read(dictionary(tmp_path, submodule, layer))[1]
        assert foreign.sae.hook_name == wanted
        assert ("give it with --hook" in foreign.lost[-1]) == (not wanted)
    folder = dictionary(tmp_path, None, 4, name="mlp_out_layer4/10_32768")
    assert read(folder)[1].sae.hook_name == "blocks.4.hook_mlp_out"
    inputs = dictionary(tmp_path, "model.layers.3.mlp", 3, buffer={"io": "in"})
    assert read(inputs)[1].sae.hook_name == "blocks.3.mlp.hook_in"
    (folder / "config.json").unlink()
    assert "its tensors are those of AutoEncoder" in " ".join(read(folder)[1].lost)
    tensors = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "decoder.weight": W_DEC.T, "b_dec": B_DEC}
    torch.save(tensors | {"k": torch.tensor(K), "threshold": torch.tensor(0.3)}, folder / "ae.pt")
    with pytest.raises(InterpError, match="names no dict_class .* may be of several"):
        read(folder)
    with pytest.raises(InterpError, match="config.json says k is 5, and ae.pt says 3"):
        folder_of(folder, config={"trainer": {"dict_class": "AutoEncoderTopK", "k": 5}})
        read(folder)


def test_circuit_tracers_rule_is_the_one_that_its_configuration_names(tmp_path):
    foreign = read(circuit(tmp_path, "activation: topk\nk: 3\n").parent)[1]
    assert (foreign.sae.rule, foreign.sae.k) == ("topk", 3)
    assert (foreign.sae.hook_name, foreign.sae.hook_name_out) == ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")
    code = topk(X @ W_ENC + B_ENC, K)
    same(foreign.sae, code, code @ W_DEC + B_DEC, "topk")
    same(read(circuit(tmp_path, "", {"k": torch.tensor(K)}))[1].sae, code, code @ W_DEC + B_DEC, "topk of the file")
    code = (X @ W_ENC + B_ENC).clamp_min(0.0)
    same(read(circuit(tmp_path, "activation: relu\n"))[1].sae, code, code @ W_DEC + B_DEC, "relu")
    for config, tensors, message in (
        ("activation: topk\n", {}, "gives k the value None"),
        ("activation: topk\nk: 4\n", {"k": torch.tensor(3)}, "says k is 3, and config.yaml 4"),
        (
            "activation: relu\n",
            {"activation_function.threshold": CUT},
            "activation is relu, and thresholds are in the file",
        ),
        ("activation: jump_relu\n", {}, "thresholds are not in the file"),
        ("activation: gelu\n", {}, "sets activation to 'gelu'"),
        ("model_kind: cross_layer_transcoder\n", {}, "each feature writes several layers"),
        ("", {"gate": CUT}, "holds gate, which no SAE of this kind has"),
    ):
        with pytest.raises(InterpError, match=message):
            read(circuit(tmp_path, config, tensors))


def test_a_layer_is_the_nearest_one_in_the_path_and_a_square_file_of_another_name_is_not_guessed_at(tmp_path):
    file = circuit(tmp_path / "layer_9_of_something", "")
    assert read(file)[1].sae.hook_name == "blocks.1.mlp.hook_in"
    square = {name: drawn(D, D) for name in ("W_enc", "W_dec")} | {"b_enc": drawn(D), "b_dec": drawn(D)}
    assert read(circuit(tmp_path / "a", "", square))[1].sae.d_sae == D
    with pytest.raises(InterpError, match="square W_enc, which does not show whether features are its rows"):
        read(circuit(tmp_path / "b", "", square, name="final.safetensors".replace("final", "mine")))


SETTINGS = {
    "saelens": lambda path, **more: saelens(path, **more),
    "sparsify": lambda path, **more: sparsify(path, "layers.1", **more),
    "dictionary_learning": lambda path, **more: dictionary(path, "resid_post_layer_1", 1, **more),
    "llama-scope": lambda path, **more: llama_scope(path, **more),
    "circuit-tracer": lambda path, **more: circuit(path, "".join(f"{k}: {v}\n" for k, v in more.items())).parent,
}


def test_settings_beside_those_of_the_dictionary_are_looked_at_too(tmp_path):
    folder = dictionary(tmp_path, "resid_post_layer_1", 1, buffer={"ctx_len": 128, "io": "out", "gain": 2})
    config = json.loads((folder / "config.json").read_text())
    folder_of(folder, config=config | {"norm_factor": 17.5})
    assert read(folder)[1].unknown == ["gain = 2", "norm_factor = 17.5"]
    with pytest.raises(InterpError, match="activations are scaled as they are collected"):
        read(dictionary(tmp_path, "resid_post_layer_1", 1, buffer={"rescale_acts": True}))
    assert read(saelens(tmp_path, k=3))[1].unknown == ["k = 3 of a standard"]


@pytest.mark.parametrize("format_", SETTINGS)
def test_a_setting_that_is_not_known_is_listed_by_name_and_opens_nothing_by_itself(tmp_path, format_):
    plain = SETTINGS[format_](tmp_path)
    assert read(plain)[0] == format_
    assert read(plain)[1].unknown == []
    folder = SETTINGS[format_](tmp_path, input_gain=2.5)
    assert read(folder)[1].unknown == ["input_gain = 2.5"]
    done = convert(folder, "saelens", tmp_path / "out")
    assert "input_gain = 2.5 is a setting that this version does not know: if it changes numbers" in " ".join(done.lost)
    with pytest.raises(InterpError, match=r"does not know \(input_gain = 2.5\)"):
        load(folder)
    assert load(tmp_path / "out").d_sae == F


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"signed": True},
            "the k largest by magnitude pass and keep their sign.; this version computes signed false only",
        ),
        ({"activation": "groupmax"}, "topk only"),
        ({"gram_lookup": True}, "n-grams"),
        ({"embed_skip": True}, "embedding"),
        ({"d_in": D + 1}, "says d_in is 9, and its weights read 8"),
        ({"num_latents": 99}, "says num_latents is 99"),
        ({"skip_connection": True}, "disagree on whether there is a skip connection"),
        ({"transcode": "yes"}, "where true or false is needed"),
    ],
)
def test_sparsify_settings_that_change_numbers_are_refused(tmp_path, config, message):
    with pytest.raises(InterpError, match=message):
        read(sparsify(tmp_path, "layers.1", **config))
    assert read(sparsify(tmp_path, "layers.1", signed=False, num_latents=0, expansion_factor=1))[1].unknown == []


def test_a_folder_of_several_checkpoints_and_tensors_of_several_layers_are_answered_with_what_there_is(tmp_path):
    for layer in range(8):
        sparsify(tmp_path / "run", f"layers.{layer}")
    folder_of(tmp_path / "run", config={"model": "x"})
    with pytest.raises(InterpError, match=r"holds 8 checkpoints \(layers.0, .*layers.5 and 2 more\); name one of them"):
        read(tmp_path / "run")
    with pytest.raises(InterpError, match="an SAE reads one place of one layer"):
        read(sparsify(tmp_path, "layers.1", {"encoder.weight": drawn(2, F, D)}))
    several = {"W_enc": drawn(2, D, F), "W_dec": drawn(2, F, D)}
    with pytest.raises(InterpError, match=r"the weights are \(\(2, 8, 12\), \(2, 12, 8\)\)"):
        load(saelens(tmp_path, PLAIN | several))


@pytest.mark.parametrize("target", ["sparsify", "dictionary_learning"])
def test_an_sae_that_takes_no_b_dec_off_is_written_as_one_that_does(tmp_path, target):
    """Of Qwen Scope, say: both libraries' topk SAEs take it off, so the bias holds it."""
    sae = SAE(**PLAIN, k=K, centred=False, reads="blocks.3.hook_resid_post")
    FORMATS[target].write(Foreign(sae=sae), folder_of(tmp_path / "out"))
    code = topk(X @ W_ENC + B_ENC, K)
    back = read(tmp_path / "out")[1].sae
    assert back.centred
    same(back, code, code @ W_DEC + B_DEC, target)


def test_who_takes_another_librarys_folder_for_a_checkpoint_is_told_what_it_is(tmp_path):
    from interp import workbench

    folder = llama_scope(tmp_path)
    for opens in (workbench.resolve, workbench.verify, workbench.Workbench.open):
        with pytest.raises(
            InterpError, match="has no cfg.json; it is of the format llama-scope, of which `interp convert`"
        ):
            opens(folder)
    assert load(sparsify(tmp_path, "layers.1")).hook_name == "blocks.1.hook_resid_post"


def test_weights_without_the_configuration_that_belongs_to_them_are_of_no_format(tmp_path):
    folder = saelens(tmp_path, {name: drawn(D, D) if name.startswith("W") else drawn(D) for name in PLAIN})
    (folder / "cfg.json").unlink()
    with pytest.raises(InterpError, match="is not a checkpoint: it has no cfg.json"):
        load(folder)
    for place in (folder, folder / "sae_weights.safetensors"):
        with pytest.raises(InterpError, match="of no format that is known here"):
            read(place)
