"""`interp dashboard --read-only`: every way of writing is tried, and refused; and which folders pages may speak of."""

import io
import os
from pathlib import Path

import pytest

from interp import jobs, objects, places
from interp.commands import comparing, evaluating, finding, labelling, machine, sharing, steering, training
from interp.commands.allowed import allowed_sae, allowed_source, given_folders, inside, new_folder
from interp.types import InterpError
from tests.conftest import HOOK

CLAMP = {"kind": "Clamp", "feature": 3, "strength": 4.0}


def tree(*roots):
    """Every file below the folders, with its size and time, less the cache."""
    found = {}
    for root in roots:
        for path in root.rglob("*"):
            if (
                path.is_file()
                and "cache" not in path.relative_to(root).parts
                and not path.name.endswith(("-wal", "-shm"))
            ):
                found[path] = path.stat().st_size, path.stat().st_mtime_ns
    return found


def ways(sae, store, archive, job, out):
    """By name, everything that a page or a script could ask for that would write something that stays."""
    labels = out.parent / "labels.jsonl"
    return {
        "label": lambda: labelling.label(sae, 3, "no", author="test"),
        "undo": lambda: labelling.undo_label(sae, 3),
        "import labels": lambda: labelling.import_labels(sae, labels),
        "export labels": lambda: labelling.export_labels(sae, out / "labels.csv"),
        "merge labels": lambda: labelling.merge_labels(sae, str(labels), write=True, theirs=True),
        "save a search": lambda: finding.search(sae, "dead:no", save="mine"),
        "save a search in a file": lambda: finding.search(sae, "dead:no", save=str(out / "s.json")),
        "save a preset": lambda: steering.save_preset(sae, "mine", [CLAMP]),
        "steer and save": lambda: steering.steer(sae, ["A"], edits=[CLAMP], tokens=1, save_preset="mine"),
        "steer and record": lambda: steering.steer(sae, ["A"], edits=[CLAMP], tokens=1, record=out / "run.json"),
        "train": lambda: training.train(str(store), [HOOK], out / "sae", d_sae=32, k=4),
        "sweep": lambda: training.sweep(str(store), out / "saes", hook=[HOOK], d_sae=[32], k=[4]),
        "publish": lambda: sharing.publish(sae, into=out / "published"),
        "pack": lambda: sharing.pack(sae, into=out / "a.interp.tar"),
        "unpack": lambda: sharing.unpack(archive, into=out / "sae"),
        "upload": lambda: sharing.unpack_upload(
            io.BytesIO(archive.read_bytes()), archive.stat().st_size, "up", out / "sae"
        ),
        "push": lambda: sharing.push(sae, f"file://{out}/a.interp.tar"),
        "pull": lambda: sharing.pull(archive.as_uri(), into=out / "sae"),
        "convert": lambda: sharing.convert(sae, into=out / "sae", to="saelens"),
        "seal": lambda: sharing.verify(sae, write=True),
        "export": lambda: sharing.export(sae, into=out / "html", limit=2),
        "report beside": lambda: evaluating.evaluate(sae, tokens=1024, only=["geometry"], beside=True),
        "report into": lambda: evaluating._write_page([], out / "page.html"),
        "compare into": lambda: comparing.compare([sae, sae], html=str(out / "compare.html")),
        "set up": lambda: machine.setup(),
        "begin a job": lambda: jobs.submit("verify", {"sae": sae}),
        "stop a job": lambda: jobs.stop(job),
        "resume a job": lambda: jobs.resume(job),
        "remove a job": lambda: jobs.remove(job),
        "send": lambda: objects.send_folder(Path(sae), f"file://{out}/sent"),
    }


@pytest.fixture(scope="module")
def asked(checkpoint, store, tmp_path_factory):
    """The ways of writing, each of which would do: there are a label, an archive and a job that failed."""
    home, out = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("out") / "out"
    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_HOME", str(home))
        sae, archive = str(checkpoint), out.parent / "a.interp.tar"
        labelling.label(sae, 3, "before", author="test")
        labels = out.parent / "labels.jsonl"
        labelling.export_labels(sae, labels)
        labels.write_text(labels.read_text().replace("before", "theirs"))
        sharing.pack(sae, into=archive)
        job = jobs.wait(jobs.submit("feature", {"sae": str(out / "nowhere"), "number": 1}).id, timeout=60)
        assert job.state == "failed"
        made = ways(sae, store.folder, archive, job.id, out)
        with patch.context() as only:
            only.setenv(places.READ_ONLY, "yes")
            before = tree(home, out, checkpoint, store.folder)
            told = {}
            for name, write in made.items():
                try:
                    write()
                    told[name] = "it was done"
                except InterpError as error:
                    told[name] = str(error)
            after = tree(home, out, checkpoint, store.folder)
        yield made, told, before, after, home


def test_every_way_of_writing_is_refused(asked):
    _, told, before, after, _ = asked
    assert {name: text for name, text in told.items() if "read-only" not in text} == {}
    assert after == before


def test_what_is_refused_is_done_where_it_may_be(asked, checkpoint, monkeypatch):
    """So that a refusal above is for being read-only, and for nothing else."""
    made, _, _, _, home = asked
    monkeypatch.setenv("INTERP_HOME", str(home))
    for name in ("label", "undo", "export labels", "save a search", "save a preset", "pack", "upload", "export"):
        made[name]()
    made["remove a job"]()
    assert labelling.current_label(str(checkpoint), 3).text == "before"


def test_a_read_only_server_still_reads_and_keeps_what_can_be_made_again(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(places.READ_ONLY, "yes")
    assert finding.search(str(checkpoint), "token:/cat/").hits.total
    assert jobs.jobs() == []
    with places.whole_file(places.cache() / "map.bin") as partial:
        partial.write_bytes(b"1")
    assert (places.cache() / "map.bin").read_bytes() == b"1"
    (tmp_path / "way out").mkdir()
    (places.cache() / "link").symlink_to(tmp_path / "way out")
    with pytest.raises(InterpError, match="read-only"), places.whole_file(places.cache() / "link" / "file"):
        raise AssertionError("a link led out of the cache")


# ---- folders ----


@pytest.fixture
def given(tmp_path, monkeypatch, checkpoint):
    """A folder that pages were given, with a checkpoint in it, beside one that they were not."""
    for name in ("given", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "given" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "given" / "circle").symlink_to(tmp_path / "given" / "circle")
    (tmp_path / "given" / "tiny").symlink_to(checkpoint)
    (tmp_path / "given" / "own").mkdir()
    monkeypatch.setenv("INTERP_FOLDERS", os.pathsep.join(map(str, (tmp_path / "given", checkpoint))))
    return tmp_path / "given"


def test_what_is_in_the_folders_is_found_however_it_is_written(given, checkpoint):
    assert given_folders() == (given, checkpoint.resolve())
    for path in (given / "own", "own", "./own", str(given / "own" / ".." / "own"), "own/../own"):
        assert inside(path) == given / "own"
    assert allowed_sae(str(checkpoint)) == str(checkpoint.resolve())
    assert allowed_sae(str(given / "tiny")) == str(checkpoint.resolve())  # a link to what was given too


OUT = ["/", "/etc", "..", "../other", "own/../../other", "link", "circle", "a\0b", "x" * 5000, "/proc/self/root"]


@pytest.mark.parametrize("path", OUT, ids=range(len(OUT)))
def test_no_path_leads_out_of_the_folders(given, path):
    path = str(given / path) if path in ("link", "circle") else path
    for within in (path, f"{path}/sae"):
        with pytest.raises(InterpError, match="is not in the folders that these pages were given"):
            inside(within)
        with pytest.raises(InterpError, match="is not in the folders that these pages were given"):
            new_folder("new", below=within)
        with pytest.raises(InterpError, match="there is no SAE at"):
            allowed_sae(within)


def test_a_checkpoint_outside_the_folders_is_refused_as_one_that_is_not_there_is(given, checkpoint, monkeypatch):
    monkeypatch.setenv("INTERP_FOLDERS", str(given))
    told = []
    for path in (checkpoint, checkpoint.parent / "nowhere"):
        with pytest.raises(InterpError) as error:
            allowed_sae(str(path))
        told.append(str(error.value).replace(str(path), "PATH"))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "/etc/a", "a/../b", "a//b", ".hidden", "a b", "a\nb", "a/b/c/d/e", "é"]
)
def test_a_new_folder_has_a_plain_name(given, name):
    with pytest.raises(InterpError, match="is no name of a new folder"):
        new_folder(name)


def test_a_new_folder_is_made_in_the_first_folder_and_is_new(given):
    assert new_folder("mine/batchtopk-64") == given / "mine" / "batchtopk-64"
    (given / "own" / "file").touch()
    with pytest.raises(InterpError, match="own is there already"):
        new_folder("own")
    with pytest.raises(InterpError, match="is not in the folders"):
        new_folder("link/new")


def test_a_page_pulls_from_elsewhere_and_not_from_this_machine():
    for source in (
        "hf:me/sae",
        "hf:me/sae/part@main",
        "https://example.org/a.interp.tar",
        "s3://b/a.interp.tar",
        "gpt2-small-res-jb/blocks.8.hook_resid_pre",
    ):
        assert allowed_source(source) == source
    for source in (
        "file:///etc/a",
        "memory://a",
        "local://a",
        "/etc/a",
        "../a/b",
        "a/../../b",
        "",
        "FILE://x",
        "zip://a::file:///b",
        "hf:../x",
    ):
        with pytest.raises(InterpError, match="nothing that a page can pull"):
            allowed_source(source)
