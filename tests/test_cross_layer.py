"""Cross-layer transcoders: the dictionary and its gradients against plain versions, what it learns that a transcoder a layer cannot, kills, files."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.activations import stream
from interp.checkpoint import Card, save
from interp.checkpoint.cross_layer import FILE, load_cross_layer, save_cross_layer
from interp.corpus import open_corpus
from interp.recipe.cross_layer import train_cross_layer_checkpoint
from interp.sae import SAE, Dictionary, join, split
from interp.sae.architecture import Moment
from interp.sae.cross_layer import CrossLayerTranscoder
from interp.sae.cross_layer_rule import CrossLayer
from interp.sae.metrics import reconstruction, reconstruction_by_layer
from interp.training import TrainConfig
from interp.training.cross_layer import begin, train_cross_layer
from interp.training.finish import finish_cross_layer
from interp.types import Hook, InterpError
from tests.conftest import ROOT

L, B, D, OUT, F, R, K = 4, 40, 6, 5, 12, 2, 3
READS = [f"blocks.{n}.mlp.hook_in" for n in range(L)]
WRITES = [f"blocks.{n}.hook_mlp_out" for n in range(L)]


def weights(rank=R, seed=0):
    draw = torch.Generator().manual_seed(seed)
    made = {
        "W_enc": torch.randn(L, D, F, generator=draw),
        "b_enc": torch.randn(L, F, generator=draw) * 0.3,
        "threshold": torch.rand(L, F, generator=draw),
        "W_dec": torch.randn(L, rank, F, OUT, generator=draw),
        "b_dec": torch.randn(L, OUT, generator=draw),
        "mix": torch.randn(L, rank, L, generator=draw),
    }
    made["mix"] *= torch.ones(L, L).triu()[:, None]
    return made


def rows(seed=1, count=B):
    return torch.randn(count, L * D, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def transcoder():
    return CrossLayerTranscoder(**weights(), reads=READS, writes=WRITES, name="clt")


def obvious(w, x):
    """(codes by layer, reconstructions by layer) with a dense decoder for every pair."""
    parts = x.split(D, dim=1)
    codes = [part @ W + b for part, W, b in zip(parts, w["W_enc"], w["b_enc"], strict=True)]
    codes = [pre * (pre > cut) for pre, cut in zip(codes, w["threshold"], strict=True)]
    said = []
    for m in range(L):
        total = w["b_dec"][m].expand(len(x), OUT)
        for source in range(m + 1):
            for r in range(w["mix"].shape[1]):
                total = total + w["mix"][source, r, m] * (codes[source] @ w["W_dec"][source, r])
        said.append(total)
    return codes, said


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_it_encodes_and_decodes_as_a_dense_decoder_for_every_pair_does(rank):
    w, x = weights(rank), rows()
    made = CrossLayerTranscoder(**w)
    codes, said = obvious(w, x)
    active = made.active(x)
    torch.testing.assert_close(active.dense(), torch.cat(codes, 1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.reconstruct(x), torch.cat(said, 1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made.decode_active(active, x), torch.cat(said, 1), atol=1e-4, rtol=1e-4)
    bias = made.b_dec.reshape(-1)
    torch.testing.assert_close(active.dense() @ made.W_dec + bias, torch.cat(said, 1), atol=1e-4, rtol=1e-4)
    for m in range(L):
        torch.testing.assert_close(made.decode_layer(active, m), said[m], atol=1e-4, rtol=1e-4)


def test_the_decode_of_a_layer_is_the_sum_of_its_sources_and_nothing_of_later_layers(transcoder):
    active = transcoder.active(rows())
    for m in range(L):
        total = transcoder.b_dec[m].repeat(B, 1)
        for source in range(L):
            part = transcoder.of_layer(active, source)
            share = part.decode(part.values, transcoder.decoder(source, m))
            assert bool(share.any()) == (source <= m)
            total += share
        torch.testing.assert_close(transcoder.decode_layer(active, m), total, atol=1e-5, rtol=1e-5)


def test_with_the_identity_for_mix_it_is_a_transcoder_for_each_layer():
    w, x = weights(rank=1) | {"mix": torch.eye(L)[:, None]}, rows()
    made, out = CrossLayerTranscoder(**w), []
    for n, part in enumerate(x.split(D, dim=1)):
        own = {name: w[name][n] for name in ("W_enc", "b_enc", "b_dec", "threshold")}
        one = SAE(**own, W_dec=w["W_dec"][n, 0], centred=False)
        out.append(one.reconstruct(part))
        assert torch.equal(made.of_layer(made.active(x), n).values, one.active(part).values)
    torch.testing.assert_close(made.reconstruct(x), torch.cat(out, 1), atol=1e-5, rtol=1e-5)


def test_it_is_a_dictionary_whose_features_have_a_direction_at_their_own_and_later_layers(transcoder):
    assert isinstance(transcoder, Dictionary)
    assert (transcoder.d_in, transcoder.d_out, transcoder.d_sae) == (L * D, L * OUT, L * F)
    assert transcoder.reads[1] == Hook(READS[1], D)
    by_hook = {hook: torch.full((2, D), float(n)) for n, hook in enumerate(READS)}
    assert join(transcoder, by_hook)[0].tolist() == [float(n) for n in range(L) for _ in range(D)]
    assert list(split(transcoder, torch.zeros(2, L * OUT))) == WRITES
    feature = F + 7  # of layer 1
    assert not transcoder.direction(feature, WRITES[0]).any()
    for m in range(1, L):
        torch.testing.assert_close(transcoder.direction(feature, WRITES[m]), transcoder.decoder(1, m)[7])
    with pytest.raises(InterpError, match="a direction without its hook point"):
        transcoder.direction(feature)
    with pytest.raises(InterpError, match="no hook point that clt writes 'blocks.9"):
        transcoder.direction(feature, "blocks.9.hook_mlp_out")


def test_a_layer_cannot_write_into_one_before_it():
    w = weights()
    w["mix"][2, 1, 0] = 0.5
    with pytest.raises(InterpError, match="write into one before it"):
        CrossLayerTranscoder(**w)
    with pytest.raises(InterpError, match="a hook point at each of its 4 layers; 3 were given"):
        CrossLayerTranscoder(**weights(), reads=READS[:3])


def parameters(rank, dtype=torch.float64, seed=2):
    draw = torch.Generator().manual_seed(seed)
    p = {
        "W_enc": torch.randn(L, F, D, generator=draw),
        "b_enc": torch.randn(L, F, generator=draw) * 0.1,
        "W_dec": torch.randn(L, rank, F, OUT, generator=draw),
        "b_dec": torch.randn(L, OUT, generator=draw),
        "mix": torch.randn(L, rank, L, generator=draw) * torch.ones(L, L).triu()[:, None],
    }
    u, y = (torch.randn(L, B, width, generator=draw) for width in (D, OUT))
    return {name: value.to(dtype) for name, value in p.items()}, u.to(dtype), y.to(dtype)


def chosen(rule, p, u):
    """The entries that pass, by the selection in float32, with values in the parameters' own type."""
    small = {name: value.float() for name, value in p.items()}
    moments = [Moment(0.5, torch.tensor(0.0), torch.float32)] * L
    by_layer, _ = rule.select(small, u.float(), moments)
    exact = []
    for n, active in enumerate(by_layer):
        pre = u[n] @ p["W_enc"][n].T + p["b_enc"][n]
        exact.append(type(active)(active.rows, active.features, pre[active.rows, active.features], active.offsets, F))
    return exact


@pytest.mark.parametrize(("rank", "apart"), [(1, False), (3, False), (1, True)])
def test_gradients_equal_autograds_in_float64(rank, apart):
    rule = CrossLayer(layers=L, d_in=D, d_out=OUT, d_sae=F, k=K, rank=rank, apart=apart)
    p, u, y = parameters(rank)
    by_layer = chosen(rule, p, u)
    assert all(len(active.rows) == K * B for active in by_layer)
    q = {name: value.clone().requires_grad_() for name, value in p.items()}
    loss = torch.zeros((), dtype=torch.float64)
    codes = []
    for n, active in enumerate(by_layer):
        passed = torch.zeros(B, F, dtype=torch.float64)
        passed[active.rows, active.features] = 1.0
        codes.append((u[n] @ q["W_enc"][n].T + q["b_enc"][n]) * passed)
    for m in range(L):
        said = q["b_dec"][m] + sum(
            q["mix"][n, r, m] * (codes[n] @ q["W_dec"][n, r]) for n in range(m + 1) for r in range(rank)
        )
        loss = loss + (said - y[m]).square().sum() / B
    loss.backward()
    out = rule.gradients(p, by_layer, u, y - p["b_dec"][:, None])
    assert float(out.error_LBO.square().sum()) / B == pytest.approx(float(loss.detach()), rel=1e-12)
    for name in p:
        wanted = torch.zeros_like(p[name]) if apart and name == "mix" else q[name].grad
        torch.testing.assert_close(out.grads[name], wanted, atol=1e-11, rtol=1e-11, msg=lambda m, k=name: f"{k}: {m}")


def test_apart_its_gradients_are_those_of_a_transcoder_of_each_layer():
    rule = CrossLayer(layers=L, d_in=D, d_out=OUT, d_sae=F, k=K, apart=True)
    p, u, y = parameters(1, torch.float32)
    p["mix"] = rule.profiles()
    assert torch.equal(p["mix"][:, 0], torch.eye(L))
    moments = [Moment(0.5, torch.tensor(0.0), torch.float32)] * L
    by_layer, hint_L = rule.select(p, u, moments)
    t = y - p["b_dec"][:, None]
    out = rule.gradients(p, by_layer, u, t)
    for n in range(L):
        own = {"W_enc": p["W_enc"][n], "b_enc": p["b_enc"][n], "W_dec": p["W_dec"][n, 0]}
        alone = rule.layer.gradients(own, u[n], t[n], moments[n])
        for name in ("W_enc", "b_enc"):
            torch.testing.assert_close(out.grads[name][n], alone.grads[name], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(out.grads["W_dec"][n, 0], alone.grads["W_dec"], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(out.grads["b_dec"][n], alone.g_BO.sum(0), atol=1e-6, rtol=1e-6)
        assert torch.equal(hint_L[n], alone.hint)
        assert torch.equal(out.fired_LF[n], alone.fired_F)


def test_first_profiles_are_orthonormal_and_look_only_upwards():
    mix = CrossLayer(layers=6, d_in=2, d_out=2, d_sae=4, k=1, rank=4).profiles()
    assert not mix[~torch.ones(6, 6, dtype=torch.bool).triu()[:, None].expand_as(mix)].any()
    torch.testing.assert_close(mix[0] @ mix[0].T, torch.eye(4), atol=1e-6, rtol=0)
    assert mix[5].tolist() == [[0, 0, 0, 0, 0, 1], *[[0] * 6] * 3], "above the last layer there is none"


class Planted:
    """Three layers whose features are read at their own layer; what the last one is to write is of features that only the first can read."""

    batch_size = 256

    def __init__(self, count=256 * 60, seed=0):
        draw = torch.Generator().manual_seed(seed)
        self.sides = []
        codes = [
            torch.rand(count, 24, generator=draw) * (torch.rand(count, 24, generator=draw) < 0.1) for _ in range(3)
        ]
        made = [torch.randn(24, 16, generator=draw) for _ in range(6)]
        reads = [code @ directions for code, directions in zip(codes, made, strict=False)]
        writes = [codes[0] @ made[3], codes[1] @ made[4] * 3 + 2.0, codes[0] @ made[5]]
        self.parts = (*reads, *writes)

    def __len__(self):
        return len(self.parts[0]) // 256

    def __iter__(self):
        return self.from_batch(0)

    def from_batch(self, first):
        return iter(list(zip(*(part.split(256) for part in self.parts), strict=True))[first:])

    def held(self):
        return tuple(part[-2048:] for part in self.parts)


PLANTED = CrossLayer(layers=3, d_in=16, d_out=16, d_sae=32, k=4, rank=2)


def fvu_of(**changes):
    rule = CrossLayer(**{"layers": 3, "d_in": 16, "d_out": 16, "d_sae": 32, "k": 4} | changes)
    config = TrainConfig(lr=1e-2, bfloat16=False, tokens=256 * 120)
    batches = [batch for _ in range(2) for batch in Planted()]
    trained = train_cross_layer(batches, rule, config, held_out=Planted().held())
    assert all(one.l0 == pytest.approx(4, rel=0.15) for one in trained.measured)
    return [one.fvu for one in trained.measured]


def test_it_learns_what_only_an_earlier_layer_can_know():
    alone, crossed = fvu_of(apart=True), fvu_of(rank=2)
    assert alone[2] > 0.95, "layer 2 reads nothing of what it is to write"
    assert crossed[2] < 0.5
    assert crossed[1] < alone[1] + 0.05


def test_the_finished_transcoder_does_on_raw_rows_what_training_did_on_scaled_ones():
    batches = Planted()
    config = TrainConfig(lr=1e-2, bfloat16=False).resolved(PLANTED.layer, len(batches) * 256)
    now = begin(list(batches)[:8], PLANTED, 0, torch.device("cpu"))
    draw = torch.Generator().manual_seed(3)
    now.p["W_dec"] += torch.randn(now.p["W_dec"].shape, generator=draw) * 0.3
    now.p["mix"] += torch.randn(3, 2, 3, generator=draw).mul_(torch.ones(3, 3).triu()[:, None])
    x_LBD, y_LBO = (torch.stack(part) for part in (batches.held()[:3], batches.held()[3:]))
    made = finish_cross_layer(now, PLANTED, x_LBD)
    assert config.lr == 1e-2
    whole = made.W_dec.norm(dim=1)
    torch.testing.assert_close(whole, torch.ones_like(whole), atol=2e-3, rtol=0)
    u = x_LBD * now.scale_in[:, None, None]
    by_layer, _ = PLANTED.select(now.p, u, [Moment(1.0, torch.tensor(0.0), torch.float32)] * 3)
    out = PLANTED.gradients(now.p, by_layer, u, torch.zeros_like(y_LBO))
    wanted = (out.error_LBO + now.p["b_dec"][:, None]) / now.scale_out[:, None, None]
    got = made.reconstruct(torch.cat(list(x_LBD), 1)).view(-1, 3, 16).transpose(0, 1)
    close = (got - wanted).abs() < 2e-2 * wanted.std()  # weights are rounded to float16
    assert float(close.float().mean()) > 0.97  # an entry on the edge of a threshold may fall on its other side
    for n, one in enumerate(reconstruction_by_layer(made, x_LBD, y_LBO)):
        assert one.fvu == pytest.approx(
            float((got[n] - y_LBO[n]).square().sum() / (y_LBO[n] - y_LBO[n].mean(0)).square().sum()), rel=1e-3
        )
        assert one.l0 == pytest.approx(4, rel=0.05)


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    config = TrainConfig(lr=1e-2, save_every=256 * 5, dead_after=1500)
    whole = train_cross_layer(Planted(), PLANTED, config, held_out=Planted().held())

    def stop(step):
        if step.step == 17:  # as if killed: only what was saved at step 15 remains
            shutil.copyfile(tmp_path / "state.safetensors", tmp_path / "at15")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_cross_layer(Planted(), PLANTED, config, held_out=Planted().held(), into=tmp_path, listeners=[stop])
    shutil.move(tmp_path / "at15", tmp_path / "state.safetensors")
    again = train_cross_layer(Planted(), PLANTED, config, held_out=Planted().held(), into=tmp_path)
    for name, value in whole.transcoder.state_dict().items():
        assert torch.equal(again.transcoder.state_dict()[name], value), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps[:-1])) + steps[-1:]
    with pytest.raises(InterpError, match="holds a run with k = 4, and 5 was asked"):
        rule = CrossLayer(layers=3, d_in=16, d_out=16, d_sae=32, k=5, rank=2)
        train_cross_layer(Planted(), rule, config, held_out=Planted().held(), into=tmp_path)


def test_mistakes_are_answered_in_a_sentence():
    with pytest.raises(InterpError, match="rank is 4, more than the 3 layers"):
        CrossLayer(layers=3, d_in=16, d_out=16, d_sae=32, k=4, rank=4)
    with pytest.raises(InterpError, match="one decoder is enough; rank is 2, make it 1"):
        CrossLayer(layers=3, d_in=16, d_out=16, d_sae=32, k=4, rank=2, apart=True)
    with pytest.raises(InterpError, match="is 6 tensors of as many rows.*this one has shapes"):
        train_cross_layer(Planted(), PLANTED, held_out=Planted().held()[:4])
    batch = [
        tuple(torch.full((256, 16), float("nan")) if n == 1 else part for n, part in enumerate(b)) for b in Planted()
    ]
    with pytest.raises(InterpError, match="the loss is not finite at step 17"):
        train_cross_layer(
            [*list(Planted())[:16], *batch], PLANTED, TrainConfig(tokens=9_000), held_out=Planted().held()
        )


TINY = {"d_sae": 48, "k": 8, "rank": 2, "batch": 256, "buffer": 8_192}


def tiny_source(tiny, text_folder):
    pairs = [(f"blocks.{n}.mlp.hook_in", f"blocks.{n}.hook_mlp_out") for n in range(2)]
    return stream(tiny, open_corpus(str(text_folder)), [hook for pair in pairs for hook in pair], 20_000), pairs


@pytest.fixture(scope="module")
def trained(tiny, text_folder, tmp_path_factory):
    """A cross-layer transcoder of the tiny model, from one pass."""
    source, pairs = tiny_source(tiny, text_folder)
    into = tmp_path_factory.mktemp("cross") / "clt"
    return into, train_cross_layer_checkpoint(source, pairs, into, **TINY), source, pairs


def test_a_model_is_trained_on_from_its_own_passes_and_what_is_there_is_kept(trained, tiny, capsys):
    into, made, source, pairs = trained
    assert sorted(path.name for path in into.iterdir()) == ["card.json", FILE, "trained.parquet", "training_log.jsonl"]
    card = Card.read(into)
    assert card.model_sha256 == tiny.fingerprint()
    assert list(card.mask.cutoffs) == [hook for side in (0, 1) for hook in (pair[side] for pair in pairs)]
    assert [str(hook) for hook in made.reads] == [read for read, _ in pairs]
    assert [len(card.metrics[name]) for name in ("fvu", "l0", "dead")] == [2, 2, 2]
    assert all(fvu < 0.9 for fvu in card.metrics["fvu"])
    capsys.readouterr()
    again = train_cross_layer_checkpoint(source, pairs, into, **TINY)
    assert torch.equal(again.decoders, made.decoders)
    assert "holds this transcoder already" in capsys.readouterr().err
    with pytest.raises(InterpError, match=r"architecture.rank = 2, and 1 was asked"):
        train_cross_layer_checkpoint(source, pairs, into, **TINY | {"rank": 1})


SCRIPT = """
import sys, json
from interp.activations import stream
from interp.corpus import open_corpus
from interp.models import open_model
from interp.recipe.cross_layer import train_cross_layer_checkpoint
from interp.training import TrainConfig
model, text, into, options = sys.argv[1:]
pairs = [(f"blocks.{n}.mlp.hook_in", f"blocks.{n}.hook_mlp_out") for n in range(2)]
source = stream(open_model(model, dtype="float32"), open_corpus(text), [h for pair in pairs for h in pair], 20_000)
train_cross_layer_checkpoint(source, pairs, into, config=TrainConfig(save_every=512), **json.loads(options))
"""


def test_a_run_that_is_killed_ends_with_the_same_file(tiny_folder, text_folder, tmp_path):
    def start(into):
        call = [sys.executable, "-c", SCRIPT, str(tiny_folder), str(text_folder), str(into), json.dumps(TINY)]
        return subprocess.Popen(call, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    whole, broken = tmp_path / "whole" / "clt", tmp_path / "broken" / "clt"
    assert start(whole).wait(120) == 0
    run, state = start(broken), broken / ".run" / "state.safetensors"
    while run.poll() is None and not state.exists():
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    assert run.wait(60) == -signal.SIGKILL, "it ended before it was killed"
    assert state.exists()
    assert not (broken / FILE).exists()
    assert start(broken).wait(120) == 0
    assert (broken / FILE).read_bytes() == (whole / FILE).read_bytes()
    assert not (broken / ".run").exists()


def test_what_is_saved_opens_to_the_same_numbers(trained, transcoder, tmp_path):
    into, made, _, _ = trained
    again = load_cross_layer(into)
    x = torch.randn(20, again.d_in)
    assert torch.equal(again.reconstruct(x), made.reconstruct(x))
    named = {"hook_name": "+".join(READS), "hook_name_out": "+".join(WRITES)}
    card = save_cross_layer(transcoder, tmp_path, replace(Card.read(into), **named))
    assert card.files[FILE] == card.sae_sha256
    loaded = load_cross_layer(tmp_path, check=False)
    x = rows()
    assert torch.equal(loaded.reconstruct(x), transcoder.reconstruct(x)), (
        "what float16 cannot hold exactly stays float32"
    )


@pytest.mark.parametrize(
    "kind", ["cut", "changed", "other", "no card", "an SAE", "misshapen", "not finite", "foreign card"]
)
def test_damaged_and_foreign_folders_are_refused(trained, tmp_path, kind):
    into, made, _, _ = trained
    folder = tmp_path / "clt"
    shutil.copytree(into, folder)
    tensors = load_file(into / FILE)
    said = "SHA-256 differs"
    if kind == "cut":
        (folder / FILE).write_bytes((into / FILE).read_bytes()[:-10])
    elif kind == "changed":
        save_file(tensors | {"b_dec": tensors["b_dec"] + 1}, folder / FILE)
    elif kind == "no card":
        (folder / "card.json").unlink()
        said = "there is no file"
    elif kind == "an SAE":
        shutil.rmtree(folder)
        save(made.layers[0], folder, Card.read(into))
        said = "has no cross_layer.safetensors, and holds an SAE"
    elif kind == "foreign card":
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps(card | {"architecture": "batchtopk"}))
        said = "is of a batchtopk"
    else:
        changed = {
            "other": {name: value for name, value in tensors.items() if name != "mix"},
            "misshapen": tensors | {"mix": tensors["mix"][:, :1].contiguous()},
            "not finite": tensors | {"b_dec": tensors["b_dec"] * float("nan")},
        }[kind]
        save_file(changed, folder / FILE)
        said = {
            "other": "mix differ; it is not whole",
            "misshapen": "mix is for 1 ranks",
            "not finite": "b_dec is no finite",
        }[kind]
        with pytest.raises(InterpError, match=said):
            load_cross_layer(folder, check=False)
        said = "SHA-256 differs"
    with pytest.raises(InterpError, match=said):
        load_cross_layer(folder)


def test_a_transcoder_of_each_layer_on_the_same_rows_is_what_apart_trains(trained, tmp_path):
    """Reported, not claimed: how the two stand on a random model says nothing."""
    _, crossed, source, pairs = trained
    alone = train_cross_layer_checkpoint(source, pairs, tmp_path / "apart", **TINY | {"rank": 1}, apart=True)
    assert torch.equal(alone.mix[:, 0] != 0, torch.eye(2, dtype=torch.bool))
    x_LBD, y_LBO = (torch.randn(2, 300, 16) for _ in range(2))
    for n, one in enumerate(reconstruction_by_layer(alone, x_LBD, y_LBO)):
        layer = alone.layers[n]
        own = SAE(**layer.state_dict() | {"W_dec": alone.decoder(n, n)}, centred=False)
        assert one.fvu == pytest.approx(reconstruction(own, x_LBD[n], y_LBO[n]).fvu, rel=1e-5)
    assert crossed.rank == 2


def test_it_begins_as_transcoders_of_each_layer_that_were_trained():
    apart = CrossLayer(layers=3, d_in=16, d_out=16, d_sae=32, k=4, apart=True)
    first = train_cross_layer(Planted(), apart, TrainConfig(lr=1e-2), held_out=Planted().held()).transcoder
    saes = [
        SAE(**one.state_dict() | {"W_dec": first.decoder(n, n)}, centred=False) for n, one in enumerate(first.layers)
    ]
    now = begin(list(Planted())[:8], PLANTED, 0, torch.device("cpu"), saes)
    x_LBD = torch.stack(Planted().held()[:3])
    made = finish_cross_layer(now, PLANTED, x_LBD[:, :1024])  # as the first was
    x = torch.cat(list(x_LBD), 1)
    close = (made.reconstruct(x) - first.reconstruct(x)).abs() < 2e-2 * first.reconstruct(x).std()
    assert float(close.float().mean()) > 0.97  # thresholds are measured in other units, then rounded
    with pytest.raises(InterpError, match="it can begin as 3 transcoders .*what was given are 2 of other sizes"):
        begin(list(Planted())[:8], PLANTED, 0, torch.device("cpu"), saes[:2])
