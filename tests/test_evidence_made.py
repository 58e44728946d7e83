"""Evidence made of a real SAE of a small model, by the workbench: parts made, found again, shared, killed and resumed."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from interp import places
from interp.corpus import open_corpus
from interp.evidence.card import FILE, evidence_folder
from interp.types import InterpError
from interp.workbench import Workbench
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def own(checkpoint, home, monkeypatch, tmp_path):
    """The checkpoint in a home of its own, where tests of this file make evidence once."""
    monkeypatch.setenv("INTERP_HOME", str(home))
    return Workbench.open(checkpoint, labels=f"sqlite:///{tmp_path}/labels.sqlite")


@pytest.fixture
def fresh(checkpoint, tmp_path, monkeypatch):
    """A copy of the checkpoint in a home of its own, where nothing was made."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    shutil.copytree(checkpoint, tmp_path / "sae")
    return Workbench.open(tmp_path / "sae", labels="sqlite://")


def test_all_parts_are_made_and_each_says_of_what(own):
    made = own.build_evidence()
    assert not made.lacking
    assert made.took.keys() == {"labels", "effects"}
    folder = evidence_folder(own.card.sae_sha256)
    assert made.file == folder / FILE
    evidence = own.evidence
    assert len(evidence) == 64
    told = evidence.parts
    assert told["labels"]["sae_sha256"] == own.card.sae_sha256
    assert told["labels"]["index_files"] == own.index.meta["files"]
    assert told["effects"]["model_sha256"] == own.model.fingerprint()
    assert told["effects"]["dtype"] == "float32"
    assert made.sentences == evidence.sentences()
    assert made.sentences[0].startswith("Not looked at: ")
    autolabel = own.autolabel(dry_run=True)
    assert evidence.column("label_verdict").tolist().count("confirmed") == autolabel.verdicts.get("confirmed", 0)
    named = {one.feature: one.name for one in autolabel.labels}
    assert {f: name for f, name in enumerate(evidence.column("label_name")) if name is not None} == named


def test_what_is_done_is_only_looked_at(own):
    own.build_evidence()
    folder = evidence_folder(own.card.sae_sha256)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet") if path.name != FILE}
    assert before.keys() == {"labels.parquet", "effects.parquet"}
    own.build_evidence()
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    own.build_evidence(["labels"], restart=True)
    assert (folder / "labels.parquet").stat().st_mtime_ns > before["labels.parquet"]
    assert (folder / "effects.parquet").stat().st_mtime_ns == before["effects.parquet"]


def test_evidence_that_came_with_the_sae_holds_until_some_is_made_here(own, fresh, monkeypatch, home):
    with pytest.raises(InterpError, match="there is no evidence of .*; `interp evidence .*` makes it"):
        _ = fresh.evidence
    elsewhere = os.environ["INTERP_HOME"]
    monkeypatch.setenv("INTERP_HOME", str(home))
    own.build_evidence()
    shutil.copy(evidence_folder(own.card.sae_sha256) / FILE, fresh.folder / FILE)
    monkeypatch.setenv("INTERP_HOME", elsewhere)
    shipped = fresh.evidence
    assert shipped.name == str(fresh.folder / FILE)
    built = fresh.build_evidence(["effects"])
    assert fresh.evidence.name == str(built.file)
    assert fresh.evidence.table["label_f1"].equals(shipped.table["label_f1"])
    assert "labels.parquet" not in {path.name for path in built.file.parent.iterdir()}
    assert fresh.build_evidence(["effects"], beside=True).beside == fresh.folder / FILE
    assert (fresh.folder / FILE).read_bytes() == built.file.read_bytes()


def test_evidence_that_came_with_the_sae_stays_where_the_index_keeps_examples(
    own, fresh, text_folder, home, monkeypatch
):
    made = own.build_evidence().file
    shutil.copy(made, fresh.folder / FILE)
    shutil.rmtree(fresh.folder / "index", ignore_errors=True)
    fresh.build_index(open_corpus(text_folder), 8_192, keep="examples", beside=True)
    monkeypatch.setenv("INTERP_HOME", str(home.parent / "newcomer"))
    wb = Workbench.open(fresh.folder, labels="sqlite://")
    assert wb.index.partial
    found = wb.build_evidence()
    assert not found.took
    assert "came with the SAE" in found.lacking["effects"]
    assert found.file == fresh.folder / FILE
    assert found.file.read_bytes() == made.read_bytes()


def test_a_part_that_cannot_be_made_is_said(fresh, text_folder):
    shutil.rmtree(fresh.folder / "index")
    fresh.build_index(open_corpus(text_folder), 8_192, keep="examples", beside=True)
    examples = Workbench.open(fresh.folder, labels="sqlite://")
    with pytest.raises(InterpError, match="keeps examples only, .*`interp index .*` builds the full one"):
        examples.build_evidence(["labels"])
    made = examples.build_evidence()
    assert "keeps examples only" in made.lacking["labels"]
    assert examples.evidence[3].label is None
    assert any(text.startswith("Not looked at: what features are called") for text in examples.evidence[3].sentences())
    with pytest.raises(InterpError, match="no part of the evidence 'effcts': did you mean effects"):
        examples.build_evidence(["effcts"])
    with pytest.raises(InterpError, match="the part final is not made by this command"):
        examples.build_evidence(["final"])


def test_a_folder_that_cannot_be_written_in_is_answered_in_a_sentence(fresh):
    folder = evidence_folder(fresh.card.sae_sha256)
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder would be")
    with pytest.raises(InterpError, match="cannot write in .*; choose another folder"):
        fresh.build_evidence()
    assert folder.read_text() == "a file where the folder would be"


def test_two_at_once_in_one_process_and_threads_that_read(own):
    own.build_evidence()
    folder, refused = evidence_folder(own.card.sae_sha256), []
    with places.only_one(folder, "making evidence"):

        def second():
            with pytest.raises(InterpError, match="is at work on .*, so making evidence was not begun") as error:
                own.build_evidence()
            refused.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1
    read: list[int] = []
    threads = [threading.Thread(target=lambda: read.append(id(own.evidence.column("label_f1")))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 8


def test_a_killed_run_goes_on_where_it_was(fresh):
    script = (
        "import sys, time\n"
        "import interp.labels.automatic as a\n"
        "scope = a._scope\n"
        "a.BATCH = 8\n"
        "def slow(*given):\n"
        "    time.sleep(0.3)\n"
        "    return scope(*given)\n"
        "a._scope = slow\n"
        "from interp.workbench import Workbench\n"
        "Workbench.open(sys.argv[1], labels='sqlite://').build_evidence(['labels'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(fresh.folder)], cwd=ROOT)
    until = time.monotonic() + 240
    runs = places.cache() / "autolabel"
    while not list(runs.glob("*/tests-*.json")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    with pytest.raises(InterpError, match=f"another process .number {process.pid}. is at work on"):
        fresh.build_evidence(["labels"])
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (kept,) = runs.glob("*/tests-*.json")
    written = kept.stat().st_mtime_ns
    fresh.build_evidence(["labels"])
    assert kept.stat().st_mtime_ns == written
    folder = evidence_folder(fresh.card.sae_sha256)
    assert not list(folder.glob(".*.partial"))
    assert fresh.evidence.parts.keys() == {"labels"}
