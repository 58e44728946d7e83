"""A `torch.nn.Module` of one's own: its hook points are its own activations, and the whole way with a network on rows of numbers."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from interp.activations import harvest, stream
from interp.commands.items import item_kind
from interp.commands.starting import glimpses, look_at_glimpses
from interp.corpus import open_corpus, tokenize
from interp.models import Edit, open_model, open_module
from interp.recipe import train_checkpoint
from interp.steering import Clamp
from interp.training import TrainConfig
from interp.types import InterpError
from interp.workbench import Workbench
from tests.elsewhere import elsewhere
from tests.families import save, sentences

torch.set_num_threads(1)


class Reads(nn.Module):
    """A transformer of one layer on token ids, which gives logits beside what it read."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 20)

    def forward(self, ids, scale):
        x = self.block(self.embed(ids) * scale)
        return {"logits": self.head(x), "states": x}


class Tower(nn.Module):
    """Modules of every kind of axes: maps, a signal with channels first, and one number an item."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.GroupNorm(2, 6)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.signal = nn.Conv1d(1, 5, 2)
        self.out = nn.Linear(25, 1)

    def forward(self, x):
        x = self.pool(self.norm(self.conv(x)).relu()).flatten(2).transpose(1, 2)
        return self.out(self.signal(x).flatten(1)).squeeze(1)


def mlp():
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


IDS = torch.randint(0, 20, (6, 7), generator=torch.Generator().manual_seed(0))
PICTURES = draw(6, 1, 8, 8)
CASES = {  # module, items, how it is called, where its positions are, a hook point, and its activation by position
    "row": (mlp, draw(6, 8), None, None, "1", lambda x: x[:, None]),
    "channels": (Tower, PICTURES, None, "conv", "norm", lambda x: x.permute(0, 2, 3, 1).reshape(6, 36, 6)),
    "pooled": (Tower, PICTURES, None, None, "pool", lambda x: x.reshape(6, 1, 6)),
    "signal": (Tower, PICTURES, None, "signal", "signal", lambda x: x.transpose(1, 2)),
    "tokens": (Reads, IDS, lambda net, ids: net(ids, scale=2.0), None, "block", lambda x: x),
}


def opened(case):
    make, items, call, at, hook, arranged = CASES[case]
    torch.manual_seed(1)
    model = open_module(make(), items, name=case, at=at, call=call)
    item = [model.prompt(str(row)) for row in range(len(items))]
    return model, torch.tensor(item), torch.stack([each.given for each in item]), hook, arranged


def theirs(case, model, hook):
    """The activation as a hook of PyTorch's own has it."""
    _, items, call, *_ = CASES[case]
    seen = []
    handle = model.module.get_submodule(hook).register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        call(model.module, items) if call else model.module(items)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("case", CASES)
def test_a_hook_point_is_the_modules_own_activation_and_edits_reach_the_output(case):
    model, places_BT, given, hook, arranged = opened(case)
    x_BTD = model.run(places_BT, [hook], given=given).activations[hook]
    assert torch.equal(x_BTD[:, 1:], arranged(theirs(case, model, hook)))
    assert not x_BTD[:, 0].any()  # the position that is nobody's
    assert x_BTD.shape == (*places_BT.shape, model.width(hook))
    assert model.fires_once(hook)
    for name in (hook, f"{hook}.hook_in"):
        plain = model.run(places_BT, given=given).logits
        same = model.run(places_BT, edits=[Edit(name, lambda x, site: x.clone())], given=given).logits
        assert torch.equal(same, plain)
        gone = model.run(places_BT, edits=[Edit(name, lambda x, site: torch.zeros_like(x))], given=given).logits
        assert float((gone - plain).abs().max()) > 1e-3
    one = model.run(places_BT, edits=[Edit(hook, only_the_first_item)], given=given).logits
    assert torch.equal(one[1:], plain[1:])
    assert not torch.equal(one[0], plain[0])


def only_the_first_item(x_BTD, site):
    x_BTD = x_BTD.clone()
    x_BTD[0, 1:] += 1
    return x_BTD


@pytest.mark.parametrize(("case", "last"), [("row", "2"), ("channels", "out")])
def test_gradients_go_back_to_a_hook_point(case, last):
    model, places_BT, given, hook, _ = opened(case)
    run = model.run(places_BT, [hook, last], given=given, grad=True)
    (grad,) = torch.autograd.grad(run.activations[last].sum(), run.activations[hook])
    step = 1e-3 * grad / grad.norm()
    assert not grad[:, 0].any()
    ends = [
        model.run(places_BT, [last], [Edit(hook, lambda x, site, s=sign: x + s * step)], given=given).activations[last]
        for sign in (1, -1)
    ]
    assert float((ends[0] - ends[1]).sum() / 2) == pytest.approx(1e-3 * float(grad.norm()), rel=0.02)


def test_positions_have_names():
    assert opened("row")[0].vocabulary == ["·", "row"]
    grid = opened("channels")[0]
    assert grid.vocabulary[1:8] == ["y0x0", "y0x1", "y0x2", "y0x3", "y0x4", "y0x5", "y1x0"]
    assert opened("signal")[0].vocabulary[1:] == [f"p{at}" for at in range(5)]
    tokens, places_BT, *_ = opened("tokens")
    assert torch.equal(places_BT[:, 1:], IDS + 1)  # called as their numbers are
    assert tokens.vocabulary[1:4] == [" 0", " 1", " 2"]
    words = [f"word{number}" for number in range(20)]
    named = open_module(Reads(), IDS, name="n", call=CASES["tokens"][2], words=words)
    assert named.vocabulary == ["·", *words]
    with pytest.raises(InterpError, match="n has no position for each whole number of an item, so words name nothing"):
        open_module(mlp(), draw(6, 8), name="n", words=words)
    # What changes one pixel of the border changes that place of the grid alone.
    _, places_BT, given, *_ = opened("channels")
    moved = given.clone()
    moved[:, :, 0, 0] += 1
    before, after = (grid.run(places_BT, ["conv"], given=x).activations["conv"] for x in (given, moved))
    changed = (before != after).any(-1)[0].nonzero().squeeze(1).tolist()
    assert [grid.vocabulary[places_BT[0, at]] for at in changed] == ["y0x0"]


@pytest.mark.parametrize("case", ["row", "channels"])
def test_a_module_on_another_device_gives_the_same(case):
    make, items, _, at, hook, _ = CASES[case]
    here, places_BT, given, *_ = opened(case)
    edit = Edit(hook, lambda x, site: 2 * x)
    x_BTD = here.run(places_BT, [hook], given=given).activations[hook]
    plain = here.run(places_BT, edits=[edit], given=given).logits
    with elsewhere() as device:
        torch.manual_seed(1)
        there = open_module(make(), items, name=case, at=at, device=str(device))
        got = there.run(places_BT, [hook], given=given).activations[hook]
        assert got.device == device
        assert torch.equal(got.cpu(), x_BTD)
        assert torch.equal(there.run(places_BT, edits=[edit], given=given).logits.cpu(), plain)


def digits():
    """(a small network that was trained on digits, their pixels, which digit each is)."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    torch.manual_seed(0)
    net = nn.Sequential()
    for name, part in (("hidden", nn.Linear(64, 48)), ("act", nn.ReLU()), ("out", nn.Linear(48, 10))):
        net.add_module(name, part)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    assert float((net(x).argmax(1) == y).float().mean()) > 0.95
    return net, x, y


def test_the_whole_way_of_a_network_that_reads_digits(tmp_path):
    """Harvest, train, index, a feature's page, searches, one feature ablated, one held."""
    net, x, y = digits()
    corpus = open_corpus(x, topics=y)
    model = open_module(net, x, name="digits")
    store = harvest(model, corpus, ["act"], 10_000, tmp_path / "acts")
    assert store.positions == 2 * len(x)  # a row, and before it the position that is nobody's
    train_checkpoint(store, "act", tmp_path / "sae", d_sae=64, k=6, batch=128, epochs=8, config=TrainConfig(lr=3e-3))
    with pytest.raises(InterpError, match=r"digits is a module of somebody's own, which no name opens; .*model=…"):
        Workbench.open(tmp_path / "sae").spectrum("17")
    wb = Workbench.open(tmp_path / "sae", model=model, labels=f"sqlite:///{tmp_path}/labels.sqlite")
    wb.build_index(corpus, 10_000, beside=True)
    assert wb.index.kind == "numbers"
    assert int(wb.index.kept.sum()) >= 0.98 * len(x)
    spectrum = wb.spectrum("17")
    assert (spectrum.tokens, spectrum.counted) == (["·", "row"], [False, True])
    fires = int(spectrum.features[spectrum.values.argmax()])
    page = wb.feature(fires)
    assert page.examples[0].tokens == ["row"]
    topic, _, number = page.examples[0].title.partition("/")
    assert int(topic) == int(y[int(number)])  # an item is found again by its title
    assert page.examples[0].value == pytest.approx(float(wb.spectrum(number).matrix([fires]).max()), rel=1e-3)
    assert fires in [hit.feature for hit in wb.search('fires:"17"', limit=64)]
    for query in (f"like:{fires}", "density:1e-5..1", f"topic:{topic}"):
        assert wb.search(query)
    ablation = wb.ablate("17", fires)
    assert ablation.unit == "change relative to the vector"
    assert ablation.change[0] == 0.0
    assert ablation.largest == ablation.change[1] > 0
    # What a feature adds at `act`, the last layer's own weights say of the output.
    item = model.prompt("17")
    rows, given = torch.tensor([item]), item.given[None]
    held = wb.steered.compile([[Clamp(feature=fires, strength=page.max)]])
    plain, edited = (model.run(rows, edits=edits, given=given).logits[0, 1] for edits in ([], held))
    gained = float(page.max - spectrum.values.max()) * wb.sae.W_dec[fires] @ net.out.weight.T
    assert torch.allclose(edited - plain, gained, atol=1e-3)
    # What pages ask needs no model: one of these has no look, and is called a row.
    sae = str(tmp_path / "sae")
    assert item_kind(sae).one == "row"
    assert look_at_glimpses(sae, [fires], glimpses(sae, [fires])) == [None]
    with pytest.raises(InterpError, match="digits reads numbers, so it continues nothing"):
        wb.steer("17", [])


def test_a_network_on_token_ids_is_indexed_by_their_words(tmp_path):
    torch.manual_seed(0)
    ids = torch.randint(0, 20, (120, 16))
    net, words = Reads(), [f" word{number}" for number in range(20)]
    model, corpus = open_module(net, ids, call=CASES["tokens"][2], words=words), open_corpus(ids)
    train_checkpoint(stream(model, corpus, ["block"], 3_000), "block", tmp_path / "sae", d_sae=32, k=4, batch=128)
    wb = Workbench.open(tmp_path / "sae", model=model, labels=f"sqlite:///{tmp_path}/labels.sqlite")
    wb.build_index(corpus, 3_000, beside=True)
    assert (model.name, model.reads, wb.index.kind) == ("reads", "numbers", "text")
    assert wb.spectrum("7").tokens == ["·", *(words[token] for token in ids[7].tolist())]
    hit = wb.search("token:/word3$/", limit=1).hits[0]
    shown = wb.feature(hit.feature).examples[0]
    row = int(shown.title)  # an item's own words are around its peak, and no other's
    assert set(shown.tokens) <= {words[token] for token in ids[row].tolist()}
    other = open_module(Reads(), ids, call=CASES["tokens"][2], name="reads")
    with pytest.raises(
        InterpError, match="sae was made for module:reads with weights .*open the model it was trained on"
    ):
        Workbench.open(tmp_path / "sae", model=other).spectrum("7")


def test_a_stream_of_items_in_files_is_what_a_harvest_gives(tmp_path):
    np.save(tmp_path / "x.npy", draw(40, 8).numpy())
    corpus, model = open_corpus(tmp_path / "x.npy"), open_module(mlp(), tmp_path / "x.npy", name="m")
    store, source = harvest(model, corpus, ["1"], 60, tmp_path / "acts"), stream(model, corpus, ["1"], 60)
    assert store.positions == source.positions == 60
    for (_, _, read), (_, _, read_) in zip(store.pieces("1"), source.pieces("1"), strict=True):
        assert torch.equal(read(), read_())
    assert {doc.text.rpartition("#")[0] for doc in corpus.documents()} == {str((tmp_path / "x.npy").resolve())}


def test_items_are_named_so_that_another_process_reads_them(tmp_path):
    x = draw(5, 8)
    corpus, model = open_corpus(x), open_module(mlp(), draw(3, 8), name="m")
    docs = list(corpus.documents())
    assert torch.equal(torch.stack([model.prompt(doc.text).given for doc in docs]), x)
    assert [doc.digest for doc in docs] == [doc.digest for doc in open_corpus(x.numpy()).documents()]
    assert docs[0].digest != docs[1].digest
    assert torch.equal(open_module(mlp(), corpus, name="m").prompt("3").given, x[3])


def test_a_table_of_numbers_is_a_corpus_of_items(tmp_path):
    table = pa.table({"a": [1.0, 2.0], "kind": ["x", "y"], "b": [3, 4]})
    pq.write_table(table, tmp_path / "t.parquet")
    pq.write_table(pa.table({"v": [[1.0, 2.0], [3.0, 4.0]], "text": ["one two", "three"]}), tmp_path / "v.parquet")
    docs = list(open_corpus(f"{tmp_path}/t.parquet#@kind").documents())
    assert [(doc.title, doc.topic) for doc in docs] == [("x/0", "x"), ("y/1", "y")]
    model = open_module(nn.Sequential(nn.Linear(2, 1)), draw(2, 2), name="m")
    assert [model.prompt(doc.text).given.tolist() for doc in docs] == [[1.0, 3.0], [2.0, 4.0]]
    lists = open_corpus(f"{tmp_path}/v.parquet#v")
    assert [model.prompt(doc.text).given.tolist() for doc in lists.documents()] == [[1.0, 2.0], [3.0, 4.0]]
    assert open_corpus(tmp_path / "v.parquet").kind == "text"


def test_what_cannot_be_read_so_is_refused(tmp_path):
    x = draw(6, 1, 8, 8)
    with pytest.raises(InterpError, match=r"small has no parameters"):
        open_module(nn.ReLU(), x, name="small")
    with pytest.raises(InterpError, match=r"linear has no submodules, so it has no hook points; put it into"):
        open_module(nn.Linear(8, 2), draw(6, 8))
    with pytest.raises(InterpError, match=r"items of <U1 are no numbers"):
        open_module(mlp(), np.array([["a"]]))
    (tmp_path / "x.npy").write_bytes(b"nothing")
    for read in (open_corpus, lambda path: open_module(mlp(), path)):
        with pytest.raises(
            InterpError, match=r"x\.npy cannot be read as an array of numbers: it is no \.npy file of such"
        ):
            read(tmp_path / "x.npy")
    with pytest.raises(InterpError, match=r"no hook point in m: '3'.*The model's `hook_names\(\)` lists"):
        open_module(mlp(), draw(6, 8), name="m").width("3")
    with pytest.raises(InterpError, match=r"m does not run on two items of shape \(5,\) .*: mat1 and mat2"):
        open_module(mlp(), draw(6, 5), name="m")
    with pytest.raises(InterpError, match=r"no submodule in t: 'covn'.*conv"):
        open_module(Tower(), x, name="t", at="covn")
    with pytest.raises(InterpError, match=r"items of shape \(6,\) are none"):
        open_module(mlp(), draw(6), name="m")
    model = open_module(Tower(), x, name="t")
    with pytest.raises(InterpError, match=r"conv has shape \(6, 6, 6, 6\);.*open the module with at='conv'"):
        harvest(model, open_corpus(x), ["conv"], 100, tmp_path / "acts")
    with pytest.raises(InterpError, match="t has items 0 to 5"):
        model.prompt("6")
    with pytest.raises(InterpError, match=r"there is no item .*#6: .*has items 0 to 5"):
        model.prompt(next(iter(open_corpus(x).documents())).text.replace("#0", "#6"))
    with pytest.raises(InterpError, match="t reads items of numbers, and seven names none"):
        model.prompt("seven")
    with pytest.raises(InterpError, match=r"has shape \(8,\), and t was opened with items of \(1, 8, 8\)"):
        model.prompt(next(iter(open_corpus(draw(6, 8)).documents())).text)
    with pytest.raises(InterpError, match="there are 2 topics for 6 items"):
        open_corpus(x, topics=[1, 2])
    (tmp_path / "docs.txt").write_text("\n\n".join(sentences(3)), encoding="utf-8")
    with pytest.raises(InterpError, match="is text, and this model reads numbers"):
        tokenize(open_corpus(tmp_path / "docs.txt"), model, 100)
    reader = open_model(str(save("gpt2", tmp_path / "gpt2")), dtype="float32")
    with pytest.raises(InterpError, match="is numbers, and this model reads text"):
        tokenize(open_corpus(x), reader, 100)
