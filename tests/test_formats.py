"""Other libraries' checkpoints, against files and numbers of those libraries' own code (tests/fixtures/peers)."""

import gc
import json
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.checkpoint import load
from interp.checkpoint.formats import FORMATS, Foreign, compare, convert, read
from interp.types import InterpError
from tests.conftest import HOOK
from tests.fixtures.peers.ours import sae

PEERS = Path(__file__).parent / "fixtures" / "peers"
X = load_file(PEERS / "inputs.safetensors")["x"]
THEIRS = sorted(
    path.parent.relative_to(PEERS / "theirs").as_posix() for path in PEERS.glob("theirs/**/expected.safetensors")
)
OURS = sorted(path.parent.name for path in PEERS.glob("ours/*/expected.safetensors"))
TOLERANCE = 2e-6
"""Of the largest number: float32, sums in another order."""


def close(found, expected, name):
    error = float(((found - expected).abs().max() / expected.abs().max()).detach())
    print(f"{name}: largest error {error:.1e} of the largest number")  # noqa: T201  (seen with -s)
    assert error < TOLERANCE


def test_a_file_that_cannot_be_read_is_not_left_open(tmp_path, monkeypatch):
    """NumPy leaves a broken archive open that it was given by name."""
    left: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda said: left.append(str(said.exc_value)))
    for name, content in (("params.npz", b"PK\x03\x04 no archive"), ("ae.pt", b"no pickle"), ("cfg.json", b"{")):
        (tmp_path / name).write_bytes(content)
        with warnings.catch_warnings(action="error", category=ResourceWarning), pytest.raises(InterpError):
            read(tmp_path / name)
        gc.collect()
    assert left == []


def test_every_format_has_files_of_its_librarys_own_code():
    assert {name.partition("-old")[0].partition("/")[0].split("-")[0] for name in THEIRS} == {
        "saelens", "sparsify", "dictionary_learning", "llamascopium", "circuit",
    }  # fmt: skip
    assert {name.rpartition("-")[0] for name in OURS} == {name for name, known in FORMATS.items() if known.write}


@pytest.mark.parametrize("name", THEIRS)
def test_a_file_of_their_code_computes_what_their_code_computed(name):
    expected = load_file(PEERS / "theirs" / name / "expected.safetensors")
    found, foreign = read(_without_expected(PEERS / "theirs" / name))
    assert found.replace("-", "_") in name.replace("-", "_")
    assert 0 < int((expected["code"] > 0).sum()) < expected["code"].numel()
    code = foreign.sae.encode(X)
    if (
        name == "llamascopium-topk"
    ):  # selects by activation times decoder norm: that is the activation here, and said so
        code = code / load_file(PEERS / "theirs" / name / "sae_weights.safetensors")["W_D"].norm(dim=1)
    close(code, expected["code"], f"{name} code")
    close(foreign.sae.reconstruct(X), expected["out"], f"{name} reconstruction")


def _without_expected(folder):
    """The folder as its library wrote it; circuit-tracer's is told by its .safetensors files."""
    return folder / "layer_15.safetensors" if folder.name.startswith("circuit-tracer") else folder


@pytest.mark.parametrize("name", OURS)
def test_what_their_code_makes_of_our_file_is_what_we_compute(name, tmp_path):
    """The committed file is the one their code opened; writing it again gives the same tensors."""
    library, _, rule = name.rpartition("-")
    expected = load_file(PEERS / "ours" / name / "expected.safetensors")
    ours = sae(rule)
    close(ours.encode(X), expected["code"], f"{name} code")
    close(ours.reconstruct(X), expected["out"], f"{name} reconstruction")
    FORMATS[library].write(Foreign(sae=ours, model="smollm2"), tmp_path)
    for path in tmp_path.iterdir():
        committed = PEERS / "ours" / name / path.name
        if path.suffix == ".json":
            assert json.loads(path.read_text()) == json.loads(committed.read_text())
        else:
            again, before = _tensors(path), _tensors(committed)
            assert set(again) == set(before)
            for key in again:  # what is folded is a sum, whose last bits are another processor's own
                torch.testing.assert_close(again[key], before[key], rtol=1e-5, atol=1e-6)


def _tensors(path):
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


@pytest.mark.parametrize("target", [name for name, known in FORMATS.items() if known.write])
@pytest.mark.parametrize("rule", ["topk", "jumprelu"])
def test_there_and_back_on_real_activations_of_a_trained_sae(checkpoint, store, tmp_path, target, rule):
    source = load(checkpoint)
    if rule == "topk":
        parts = {name: getattr(source, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        source = type(source)(**parts, k=4, reads=HOOK)
    x = next(iter(store.in_order(HOOK)))[1].float()
    FORMATS["saelens"].write(Foreign(sae=source), (tmp_path / "a").resolve())
    if target == "sparsify" and rule == "jumprelu":
        with pytest.raises(InterpError, match="sparsify has no place for thresholds"):
            convert(tmp_path / "a", target, tmp_path / "b")
        assert not (tmp_path / "b").exists()
        return
    there = convert(tmp_path / "a", target, tmp_path / "b")
    back = convert(tmp_path / "b", "saelens", tmp_path / "c")
    size = float(source.encode(x).max())
    for error in (there.error(x), back.error(x), compare(source, load(tmp_path / "c"), x)):
        assert error["codes"] < 1e-5 * size
        assert error["reconstruction"] < 1e-4
        assert error["come_or_go"] <= 1e-5 * error["active"]
    assert there.lost


def test_a_conversion_keeps_float16_only_where_it_loses_nothing(checkpoint, tmp_path):
    convert(checkpoint, "saelens", tmp_path / "half")
    convert(PEERS / "theirs" / "llamascopium-topk", "saelens", tmp_path / "full")
    assert load_file(tmp_path / "half" / "sae_weights.safetensors")["W_enc"].dtype == torch.float16
    assert load_file(tmp_path / "full" / "sae_weights.safetensors")["W_enc"].dtype == torch.float32


def test_what_a_format_cannot_hold_is_listed():
    lost = " | ".join(read(PEERS / "theirs" / "dictionary_learning-MatryoshkaBatchTopKSAE")[1].lost)
    assert "groups [4, 8]" in lost
    assert "buffer" in lost
    assert "blocks.15.hook_resid_post was read from 'resid_post_layer_15'" in lost
    lost = " | ".join(read(PEERS / "theirs" / "sparsify" / "layers.15.mlp")[1].lost)
    assert "multi_topk" in lost
    assert "blocks.15.hook_mlp_out was read from the folder's name" in lost
    assert "decoder norms are 1 now" in " ".join(read(PEERS / "theirs" / "llamascopium-topk")[1].lost)


def test_hook_points_come_along():
    foreign = read(PEERS / "theirs" / "circuit-tracer-jumprelu" / "layer_15.safetensors")[1]
    assert (foreign.sae.hook_name, foreign.sae.hook_name_out) == ("blocks.15.mlp.hook_in", "blocks.15.hook_mlp_out")
    assert foreign.model == "smollm2"
    assert read(PEERS / "theirs" / "saelens-old-topk")[1].sae.hook_name == "blocks.8.hook_resid_pre"


def test_gemma_scopes_spellings_of_a_transcoder_give_the_same(tmp_path):
    import numpy as np

    own = load_file(PEERS / "theirs" / "circuit-tracer-jumprelu" / "layer_15.safetensors")
    shared = {"b_enc": own["b_enc"], "b_dec": own["b_dec"], "threshold": own["activation_function.threshold"]}
    two = shared | {"w_enc": own["W_enc"].T.contiguous(), "w_dec": own["W_dec"]}
    save_file(two, tmp_path / "two.safetensors")
    np.savez(
        tmp_path / "one.npz",
        W_enc=own["W_enc"].T.numpy(),
        W_dec=own["W_dec"].numpy(),
        **{k: v.numpy() for k, v in shared.items()},
    )
    expected = load_file(PEERS / "theirs" / "circuit-tracer-jumprelu" / "expected.safetensors")
    for name in ("two.safetensors", "one.npz"):
        close(read(tmp_path / name)[1].sae.encode(X), expected["code"], name)


def test_a_pickle_that_would_run_code_is_refused_and_nothing_is_run(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    folder = tmp_path / "t"
    shutil.copytree(PEERS / "theirs" / "dictionary_learning-AutoEncoder", folder)
    torch.save({"encoder.weight": Evil()}, folder / "ae.pt")
    with pytest.raises(InterpError, match="cannot be read as weights"):
        read(folder)
    (folder / "ae.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InterpError, match="cannot be read as weights"):
        read(folder)
    assert not (tmp_path / "ran").exists()


def edited(tmp_path, name, config, **changes):
    shutil.copytree(PEERS / "theirs" / name, tmp_path / "s")
    value = json.loads((tmp_path / "s" / config).read_text())
    value.get("trainer", value).update(changes)
    (tmp_path / "s" / config).write_text(json.dumps(value))
    return tmp_path / "s"


@pytest.mark.parametrize(
    ("name", "config", "changes", "message"),
    [
        ("sparsify/layers.15", "cfg.json", {"activation": "groupmax"}, "topk only"),
        ("sparsify/layers.15", "cfg.json", {"k": 99}, "k is 99, with 12 features"),
        ("sparsify/layers.15", "cfg.json", {"k": "3"}, "a number from 1 on is needed"),
        ("llamascopium-topk", "config.json", {"act_fn": "batchtopk"}, "over a batch"),
        ("llamascopium-topk", "config.json", {"norm_activation": "token-wise"}, "cannot be folded"),
        ("llamascopium-topk", "config.json", {"sae_type": "clt"}, "plain SAEs"),
        ("llamascopium-jumprelu", "config.json", {"hook_point_in": "x"}, "its weights do not hold them"),
        ("dictionary_learning-AutoEncoder", "config.json", {"dict_class": "AutoEncodr"}, "did you mean AutoEncoder"),
        ("dictionary_learning-AutoEncoder", "config.json", {"dict_class": "BatchTopKSAE"}, "has no tensor b_dec, threshold"),
        ("saelens-old-standard", "cfg.json", {"activation_fn_str": "tanh"}, "activation function 'tanh'"),
        ("saelens-old-standard", "cfg.json", {"normalize_activations": True}, "normalises its inputs"),
        ("saelens-old-standard", "cfg.json", {"d_sae": 13}, "cfg.json says W_enc is"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_here_is_refused(tmp_path, name, config, changes, message):
    with pytest.raises(InterpError, match=message):
        read(edited(tmp_path, name, config, **changes))


def test_a_cross_layer_transcoder_and_a_folder_of_several_are_refused(tmp_path):
    for name in ("W_enc_0.safetensors", "W_dec_0.safetensors"):
        save_file({"b_enc_0": torch.zeros(2)}, tmp_path / name)
    with pytest.raises(InterpError, match="cross-layer transcoder"):
        read(tmp_path)
    for path in tmp_path.iterdir():
        path.rename(path.with_name(path.name.replace("W_enc", "layer").replace("W_dec_0", "layer_1")))
    with pytest.raises(InterpError, match="holds 2 transcoders"):
        read(tmp_path)


def test_unknown_formats_and_places_are_answered_with_what_exists(tmp_path):
    with pytest.raises(InterpError, match="did you mean saelens"):
        convert(PEERS / "theirs" / "saelens-topk", "saelen", tmp_path / "x")
    with pytest.raises(InterpError, match="is read and not written here"):
        convert(PEERS / "theirs" / "saelens-topk", "circuit-tracer", tmp_path / "x")
    with pytest.raises(InterpError, match="there is nothing at"):
        read(tmp_path / "nowhere")
    with pytest.raises(InterpError, match="of no format that is known here"):
        read(tmp_path)


def test_a_scale_that_is_not_folded_is_folded_when_it_is_given(tmp_path):
    folder = edited(tmp_path, "saelens-old-standard", "cfg.json", normalize_activations="expected_average_only_in")
    plain = read(PEERS / "theirs" / "saelens-old-standard")[1].sae
    folded = load(folder, scale=0.25)
    close(folded.encode(X), plain.encode(X * 0.25), "codes of scaled inputs")
    close(folded.reconstruct(X), plain.reconstruct(X * 0.25) / 0.25, "reconstruction, scaled back")
    convert(folder, "saelens", tmp_path / "out", scale=0.25)
    close(load(tmp_path / "out").encode(X), folded.encode(X), "codes once converted")


def test_a_converted_checkpoint_opens_verifies_and_answers_like_ones_own(checkpoint, tiny_folder, tmp_path):
    from interp import workbench

    workbench.convert(checkpoint, "llamascopium", tmp_path / "theirs")
    done = workbench.convert(tmp_path / "theirs", "saelens", tmp_path / "mine", model=str(tiny_folder), hook_name=HOOK)
    assert "activations of tiny-llama" in done["error"]["inputs"]
    assert done["error"]["come_or_go"] == 0
    assert 0 <= done["error"]["codes"] < 1e-4
    wb = workbench.Workbench.open(tmp_path / "mine", labels="sqlite://")
    ours = workbench.Workbench.open(checkpoint, labels="sqlite://").spectrum("The capital of France is Paris.")
    theirs = wb.spectrum("The capital of France is Paris.")
    assert theirs.features.tolist() == ours.features.tolist()
    assert workbench.verify(tmp_path / "mine").verdict in ("verified", "files only")
    assert not workbench.verify(tmp_path / "mine").differs
    plain = workbench.convert(PEERS / "theirs" / "saelens-topk", "saelens", tmp_path / "plain", model="/nowhere")
    assert "drawn at random" in plain["error"]["inputs"]
    assert "no card was written" in " ".join(plain["lost"])
