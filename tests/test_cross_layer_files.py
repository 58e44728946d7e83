"""Cross-layer transcoders of circuit-tracer: read as its own code computes them, written so that it opens them, refused where they are not whole."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.checkpoint.cross_layer import holds_cross_layer, load_cross_layer
from interp.checkpoint.formats import circuit_tracer_cross
from interp.circuits.attribute import attribute
from interp.circuits.crossed import replace_by_cross_layer
from interp.circuits.frozen import held_pass
from interp.circuits.graph import FEATURE
from interp.circuits.intervene import written_by
from interp.models import open_model
from interp.types import InterpError
from tests.families import save
from tests.transcoders import random_cross_layer

PEERS = Path(__file__).parent / "fixtures" / "peers"
THEIRS = PEERS / "cross_layer"


@pytest.fixture(scope="module")
def x_LND():
    x = load_file(PEERS / "inputs.safetensors")["x"]
    return torch.stack([x, x.flip(0), x.roll(1, 1)])


def said(transcoder, x_LND):
    """(codes (L, N, F), outputs (L, N, O))."""
    by_layer = transcoder.active_by_layer(torch.cat(list(x_LND), 1))
    return torch.stack([active.dense() for active in by_layer]), transcoder.decode_layers(by_layer)


@pytest.mark.parametrize("rule", ["jumprelu", "relu"])
def test_what_circuit_tracer_wrote_computes_what_its_own_code_does(rule, x_LND, tmp_path):
    made = load_cross_layer(THEIRS / rule)
    expected = load_file(THEIRS / rule / "expected.safetensors")
    code, out = said(made, x_LND)
    assert 0.1 < float((code > 0).float().mean()) < 0.9
    torch.testing.assert_close(code, expected["code"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out, expected["out"], atol=1e-5, rtol=1e-4)
    assert [str(hook) for hook in made.reads] == [f"blocks.{layer}.hook_resid_mid" for layer in range(3)]
    assert [str(hook) for hook in made.writes] == [f"blocks.{layer}.hook_mlp_out" for layer in range(3)]
    again = load_cross_layer(circuit_tracer_cross.write(made, tmp_path / "again", "smollm2"))
    for one, other in zip(said(again, x_LND), (code, out), strict=True):
        assert torch.equal(one, other)
    for file in (THEIRS / rule).glob("W_*.safetensors"):  # but for thresholds of 0, the same files
        theirs, ours = load_file(file), load_file(tmp_path / "again" / file.name)
        assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_one_of_ours_is_the_same_in_their_form_and_has_the_same_graph(tmp_path):
    model = open_model(str(save("llama", tmp_path / "llama")), dtype="float32")
    ours = random_cross_layer(model)
    folder = circuit_tracer_cross.write(ours, tmp_path / "theirs", "tiny")
    assert holds_cross_layer(folder)
    theirs = load_cross_layer(folder)
    tokens = torch.tensor(model.prompt("the blue city near the river"))
    one, other = (attribute(replace_by_cross_layer(model, each), tokens) for each in (ours, theirs))
    torch.testing.assert_close(one.edges_NN, other.edges_NN, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_what_is_read_before_the_mlps_norm_has_true_edges(family, tmp_path):
    """Most that are published read the stream itself."""
    model = open_model(str(save(family, tmp_path / family)), dtype="float32")
    transcoder = random_cross_layer(model)
    transcoder.set_hooks(tuple(f"blocks.{n}.hook_resid_mid" for n in range(3)), transcoder.writes)
    replacement = replace_by_cross_layer(model, transcoder)
    tokens = torch.tensor(model.prompt("the blue city near the river"))
    read = replacement.read(tokens)
    graph = attribute(replacement, tokens, read=read)
    n, tried = graph.nodes, 0
    sources = [node for node in range(len(n)) if n.kind_N[node] == FEATURE and n.layer_N[node] < 2]
    for source in sources[:: max(len(sources) // 5, 1)]:
        step = written_by(read, graph, source)
        added = {replacement.writes[m]: torch.zeros_like(read.layers[m].out_TD) for m in step.vectors}
        for m, vector_D in step.vectors.items():
            added[replacement.writes[m]][step.at] = vector_D
        cuts = replacement.cuts(read)
        held = held_pass(model, replacement.norms, read.clean, cuts, replacement.reads, added)
        for target in graph.edges_NN[:, source].abs().topk(3).indices.tolist():
            if n.kind_N[target] != FEATURE:
                continue
            name, at = replacement.reads[n.layer_N[target]], int(n.position_N[target])
            moved_D = (held.ends[name].detach() - read.clean.activations[name])[0, at]
            did = float(moved_D @ transcoder.layers[n.layer_N[target]].W_enc[:, n.index_N[target]])
            assert did == pytest.approx(float(graph.edges_NN[target, source]), abs=2e-4, rel=2e-3)
            tried += 1
    assert tried > 4


def lacks_config(folder):
    (folder / "config.yaml").unlink()


def lacks_layer(folder):
    (folder / "W_enc_1.safetensors").unlink()


def lacks_decoder(folder):
    (folder / "W_dec_2.safetensors").unlink()


def shorter(folder):
    save_file(
        {"W_dec_0": load_file(folder / "W_dec_0.safetensors")["W_dec_0"][:, :2].contiguous()},
        folder / "W_dec_0.safetensors",
    )


def skips(folder):
    one = load_file(folder / "W_enc_0.safetensors")
    save_file(one | {"W_skip_0": torch.eye(8)}, folder / "W_enc_0.safetensors")


def negative(folder):
    one = load_file(folder / "W_enc_2.safetensors")
    save_file(one | {"threshold_2": -one["threshold_2"]}, folder / "W_enc_2.safetensors")


def another_kind(folder):
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("cross_layer_transcoder", "transcoder_set"))


def setting(folder):
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text() + "scale_inputs: 3\n")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lacks_config, "no config.yaml"),
        (lacks_layer, r"encoders of layers \[0, 2\]"),
        (lacks_decoder, "W_dec_2.safetensors"),
        (shorter, r"decoder of \(12, 2, 8\)"),
        (skips, "W_skip_0"),
        (negative, "below 0"),
        (another_kind, "model_kind"),
        (setting, "scale_inputs"),
    ],
)
def test_one_that_is_not_whole_is_refused(spoil, what, tmp_path):
    shutil.copytree(THEIRS / "jumprelu", tmp_path / "clt")
    spoil(tmp_path / "clt")
    with pytest.raises(InterpError, match=what):
        load_cross_layer(tmp_path / "clt")


def test_layers_of_unlike_hook_points_are_not_written(tmp_path):
    made = load_cross_layer(THEIRS / "relu")
    made.set_hooks(("a.hook_one", "b.hook_two", "c.hook_one"), ())
    with pytest.raises(InterpError, match="one name for what all layers read"):
        circuit_tracer_cross.write(made, tmp_path / "no", "tiny")
    assert not (tmp_path / "no").exists()
