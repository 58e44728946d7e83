"""What was written before opens today, and means what it meant (tests/fixtures/before, whose README says how it was made).

`answers` is asked by the code of then, which wrote answers.json, and by today's.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from interp import (
    Ablate,
    Add,
    Clamp,
    FeatureRef,
    StrengthSweepConfig,
    TrainConfig,
    When,
    Workbench,
    load,
    open_stores,
    places,
)
from interp.activations import ActivationStore
from interp.checkpoint import Card, unpack
from interp.corpus import open_corpus
from interp.index import FeatureIndex
from interp.recipe import train_checkpoint
from interp.search import saved
from interp.steering.edits import to_dict
from interp.workbench import verify

BEFORE = Path(__file__).parent / "fixtures" / "before" / "made"
ROOT = Path(__file__).parent.parent
EARLY, LATE = "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"
SAES = ("sae", "transcoder", "crosscoder", "two-models", "finished")
INDEX_QUERIES = [
    "token:/^ ?river$/",
    'context:"blue" sort:feature',
    "promotes:/city/ or suppresses:/house/",
    "like:3",
    "with:3",
    "neuron:1.4",
    "topic:t1",
    "density:1e-3..1 max:0.1..1000",
    "dead:no labelled:yes",
    "author:ana or status:proposed",
    "text:water",
    "not token:/e/ sort:density",
]
FULL_QUERIES = [
    *INDEX_QUERIES,
    'fires:"The river walks near the house"',
    'fires@mean:"blue city"',
    'only:"blue blue blue green green green blue green"',
]
TEXT = "The blue river near Paris reads seven."


def quick():
    """Settings that every small checkpoint was trained with."""
    return {"d_sae": 32, "k": 4, "epochs": 4, "batch": 128, "config": TrainConfig(lr=5e-3, device="cpu")}


UNFINISHED = {
    "d_sae": 32,
    "k": 4,
    "epochs": 4,
    "batch": 64,
    "config": TrainConfig(lr=5e-3, save_every=64 * 5, device="cpu", bfloat16=False),
}
"""Of the run that was killed after 17 steps, and of the one that was not."""


def edits():
    return [
        Clamp(feature=3, strength=6.0),
        Add(feature=5, strength=0.4, unit="residual", where="generated"),
        Ablate(feature=FeatureRef(sae="sae", feature=14), when=When(feature=3, above=0.0)),
    ]


def sweep_config(*, beside):
    """Small; `beside` adds controls and the verdict."""
    return StrengthSweepConfig(factors=(-1.0, 2.0), prompts=("The river",), regex="a", controls=beside, verdict=beside)


def plain(value):
    """The value as JSON has it: records are objects by their fields' names, arrays lists."""
    if is_dataclass(value):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__ if name[0] != "_"}
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic, torch.Tensor)) else value


def weights(folder):
    """SHA-256 of each tensor in float32."""
    tensors = load(folder).state_dict()
    return {name: hashlib.sha256(value.float().numpy().tobytes()).hexdigest() for name, value in tensors.items()}


def found(wb, queries):
    hits = {query: wb.search(query, limit=8) for query in queries}
    return {
        query: {"total": answer.total, "partial": answer.partial, "hits": [plain(hit) for hit in answer]}
        for query, answer in hits.items()
    }


def spectrum(wb):
    seen = wb.spectrum(TEXT)
    names = ("tokens", "counted", "rows", "features", "values")
    return {name: plain(getattr(seen, name)) for name in names}


def active(sae, x_BD):
    seen = sae.active(x_BD)
    return {name: plain(getattr(seen, name)) for name in ("rows", "features", "values")}


def side_by_side(stores, hooks):
    """The first 64 positions of the harvests, at each of the hook points."""
    store = open_stores(stores)
    return torch.cat([next(iter(store.in_order(hook)))[1][:64].float() for hook in hooks], dim=1)


def answers():
    """All that is asked of the checkpoints in this folder, with its INTERP_HOME in `home`."""
    wb = Workbench.open("saes/sae")
    os.environ["INTERP_HOME"] = "nothing"
    small = Workbench.open("saes/sae", labels="sqlite:///home/data/labels.sqlite")
    assert small.index.partial
    told = {"examples": found(small, INDEX_QUERIES)}
    os.environ["INTERP_HOME"] = "home"
    assert not wb.index.partial
    return told | {
        "weights": {name: weights(f"saes/{name}") for name in SAES},
        "cards": {name: plain(Card.read(Path("saes", name))) for name in SAES},
        "full": found(wb, FULL_QUERIES),
        "pages": {str(feature): plain(wb.feature(feature)) for feature in (3, 5, 14)},
        "small pages": {str(feature): plain(small.feature(feature)) for feature in (3, 5)},
        "spectrum": spectrum(wb),
        "transcoder": spectrum(Workbench.open("saes/transcoder")),
        "crosscoder": active(load("saes/crosscoder"), side_by_side("stores/two", [EARLY, LATE])),
        "two-models": active(
            load("saes/two-models"), side_by_side("stores/two+stores/other", [f"1:{LATE}", f"2:{LATE}"])
        ),
        "labels": {str(feature): plain(wb.labels.history(feature)) for feature in (3, 5, 14)},
        "preset": [to_dict(edit) for edit in wb.preset("louder").edits],
        "evaluation": asdict(wb.evaluate(open_corpus("docs.jsonl"), 1_024)),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def unlike(then, now, at="", within=1e-6, least=1e-9):
    """Where `now` says something else than `then`, in words; what `then` did not know of is not compared.

    Numbers agree within a millionth of their size: another processor's sums differ in their last bits.
    """
    if isinstance(then, dict) and isinstance(now, dict):
        missing = [f"{at}: no {key}" for key in then.keys() - now.keys()]
        return missing + [
            w for key in then.keys() & now.keys() for w in unlike(then[key], now[key], f"{at}/{key}", within, least)
        ]
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return [
            why
            for i, pair in enumerate(zip(then, now, strict=True))
            for why in unlike(*pair, f"{at}/{i}", within, least)
        ]
    if isinstance(then, float) and isinstance(now, int | float) and not isinstance(now, bool):
        # Likeness of sentence vectors, made in bfloat16, which processors round in orders of their own.
        if "text:" in at and "/score" in at:
            within = max(within, 5e-3)
        return [] if now == pytest.approx(then, rel=within, abs=least) else [f"{at}: {then} was said, and now {now}"]
    return [] if then == now and type(then) is type(now) else [f"{at}: {then!r} was said, and now {now!r}"]


THEN = json.loads((BEFORE / "answers.json").read_text(encoding="utf-8")) if (BEFORE / "answers.json").exists() else {}


@pytest.fixture
def before(tmp_path, monkeypatch):
    """A copy of what was written then, as the current folder, with its INTERP_HOME."""
    folder = tmp_path / "before"
    shutil.copytree(BEFORE, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("INTERP_HOME", "home")
    return folder


@pytest.fixture(scope="module")
def now(tmp_path_factory):
    """Today's answers."""
    folder = tmp_path_factory.mktemp("now") / "before"
    shutil.copytree(BEFORE, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("INTERP_HOME", "home")
        return json.loads(places.strict_json(answers()))


@pytest.mark.parametrize("what", [key for key in THEN if key not in ("capability", "torch")])
def test_what_was_written_then_says_the_same_today(now, what):
    # Wilson's interval, by which some keys score, was computed with 1.96 for the normal quantile 1.95996.
    within = 5e-5 if what in ("full", "examples") else 1e-6
    # Losses are float32's, and what they differ by is far smaller: a millionth of a nat, not of the difference.
    least = 1e-6 if what == "evaluation" else 1e-9
    assert unlike(THEN[what], now[what], what, within, least) == []


def test_the_recorded_answers_are_not_empty():
    assert sum(bool(answer["hits"]) for answer in THEN["full"].values()) == len(FULL_QUERIES)
    assert all(page["examples"] and page["promoted"] for page in THEN["pages"].values())
    assert all(THEN[name]["features"] for name in ("spectrum", "transcoder", "crosscoder", "two-models"))
    assert [label["text"] for label in THEN["labels"]["5"]] == ["second thought", "first thought", "second thought"]


@pytest.mark.parametrize("record", sorted(path.stem for path in (BEFORE / "records").glob("*.json")))
def test_a_record_of_then_replays_identically(before, record):
    replayed = Workbench.open("saes/sae").replay(places.read_json(Path("records", f"{record}.json")))
    # Identical to the bit on a processor that sums in the order of the one then; on another in all but a number's last digits.
    assert replayed.identical == (replayed.difference == "")
    if replayed.difference:
        recorded, now = re.fullmatch(r"[\w.\[\]]+: ([\d.e-]+) recorded, ([\d.e-]+) now", replayed.difference).groups()
        assert float(now) == pytest.approx(float(recorded), rel=1e-5)


def test_a_saved_search_of_then_finds_the_same_again(before):
    wb = Workbench.open("saes/sae")
    assert wb.saved_searches() == ["rivers"]
    kept, hits = wb.rerun_search("rivers")
    assert kept.query == FULL_QUERIES[0]
    assert kept.found
    assert kept.changes(hits) == {"came": [], "went": []}
    assert saved.find("rivers", kept.sae_sha256) == kept


def test_a_kept_evaluation_of_then_is_published(before):
    wb = Workbench.open("saes/sae")
    shutil.rmtree("home/cache")  # the small index is published
    made = wb.publish("published")
    assert made.pin
    metrics = Card.read(Path("published")).metrics["held_out"]
    assert unlike(THEN["evaluation"], json.loads(json.dumps(metrics))) == []
    shipped = Path("published", "labels.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["feature"] for line in shipped] == [3, 5, 14]


def test_a_packed_checkpoint_of_then_unpacks_to_the_same_pin(before):
    assert Workbench.open("saes/sae").pack("again.interp.tar").pin == unpack("sae.interp.tar", "unpacked").pin
    assert Path("again.interp.tar").read_bytes() == Path("sae.interp.tar").read_bytes()
    assert weights("unpacked") == THEN["weights"]["sae"]


def test_the_command_line_verifies_a_checkpoint_of_then(before):
    call = [sys.executable, "-c", "from interp.cli import main; main()", "verify", "saes/sae", "--json"]
    done = subprocess.run(call, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["verdict"] == "verified"


@pytest.mark.parametrize("name", SAES)
def test_verifying_a_checkpoint_of_then_finds_nothing_that_differs(before, name):
    verified = verify(f"saes/{name}", seed=0)
    assert verified.differs == []
    if name == "sae":
        assert verified.verdict == "verified"


def test_a_harvest_of_then_opens_whole(before):
    store = ActivationStore.open("stores/two")
    assert (store.positions, store.width(EARLY)) == (1_024, 16)
    assert store.norm_cutoff(LATE) == pytest.approx(Card.read(Path("saes/sae")).norm_cutoff)


def test_a_run_that_was_killed_then_goes_on_to_the_same_weights(before):
    assert Path("saes/unfinished/.run/state.safetensors").exists()
    steps = []
    sae = train_checkpoint(
        ActivationStore.open("stores/two"),
        LATE,
        "saes/unfinished",
        **UNFINISHED,
        listeners=[lambda s: steps.append(s.step)],
    )
    assert min(steps) > 15
    whole = load("saes/finished").state_dict()
    same_machine = (THEN["capability"], THEN["torch"]) == (torch.backends.cpu.get_cpu_capability(), torch.__version__)
    for name, value in sae.state_dict().items():
        if same_machine:
            assert torch.equal(value, whole[name]), name
        else:  # another processor's products differ in their last bits, and training multiplies that
            torch.testing.assert_close(value, whole[name], atol=1e-2, rtol=1e-2)


def test_a_build_of_an_index_that_was_killed_then_goes_on_from_its_parts(before):
    part = Path("saes/half-indexed/index/.build/part-00000.parquet")
    rows = pq.read_table(part)
    doubled = pa.table(rows.set_column(2, "value", pa.array(rows["value"].to_numpy() * 2)))
    pq.write_table(doubled, part, compression="none", use_dictionary=False)
    Workbench.open("saes/half-indexed").build_index(open_corpus("docs.jsonl"), 1_024, beside=True)
    made = FeatureIndex.open("saes/half-indexed/index")
    assert [float(made.row(f)["max"]) for f in (3, 5, 14)] == [2 * THEN["pages"][str(f)]["max"] for f in (3, 5, 14)]
