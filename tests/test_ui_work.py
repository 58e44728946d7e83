"""The pages of work through Streamlit's AppTest: jobs, training, reports, the library; read-only; who may come in."""

import io
import json
import os

import pytest
from streamlit.testing.v1 import AppTest

from interp import jobs
from interp.commands import evaluating, sharing
from interp.commands.allowed import FOLDERS
from interp.places import READ_ONLY
from interp.types import InterpError
from tests.conftest import HOOK, ROOT

PAGES = ("jobs", "train", "evaluate", "library")


@pytest.fixture
def given(checkpoint, store, tmp_path, monkeypatch):
    """A home of its own, and the folders that the pages are given: an empty one, the checkpoint's and the store's."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    (tmp_path / "new").mkdir()
    monkeypatch.setenv(FOLDERS, os.pathsep.join(map(str, (tmp_path / "new", checkpoint, store.folder))))
    return tmp_path / "new"


def run(page, sae, **query):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.switch_page(f"interp/ui/pages/{page}.py")
    for key, value in (query | {"sae": str(sae)}).items():
        app.query_params[key] = value
    return again(app)


def again(app):
    app.run()
    assert not app.exception, app.exception
    return app


def texts(app):
    """All that a page says in words."""
    kinds = ("markdown", "caption", "error", "success", "info", "warning", "code", "title", "subheader")
    parts = [each.value for kind in kinds for each in getattr(app, kind)]
    sheets = [json.loads(each.proto.json).get("html", "") for each in app.get("bidi_component") if each.proto.json]
    return "\n".join([*parts, *(each.proto.body for each in app.get("html")), *sheets, *links(app)])


def links(app):
    return [each.proto.label for each in app.get("page_link")]


def press(app, label):
    button = next(each for each in app.button if each.label == label)
    assert not button.disabled
    button.click()
    return again(app)


def test_jobs_are_listed_newest_first_and_each_is_shown_by_its_url(given, checkpoint):
    assert "No job yet" in texts(run("jobs", checkpoint))
    jobs.wait(jobs.submit("keys", {"at": True}).id, timeout=120)
    failed = jobs.wait(jobs.submit("library", {"root": str(given / "a [link](b) <b>")}).id, timeout=120)
    app = run("jobs", checkpoint)
    assert [label for label in links(app) if "·" in label] == ["2 · library", "1 · keys"]
    assert failed.state == "failed"
    assert "there is no folder" in app.error[0].value
    assert "<b>" not in app.error[0].value.replace("\\<b\\>", "")
    app = run("jobs", checkpoint, job="1")
    assert "job 1: keys, begun" in app.code[0].value
    app = press(run("jobs", checkpoint, job="2"), "Remove")
    assert [job.id for job in jobs.jobs()] == ["1"]
    assert "no job" in run("jobs", checkpoint, job="7").error[0].value


@pytest.mark.slow
def test_a_recipe_is_started_from_the_page_and_seen_from_another_session_to_its_end(given, checkpoint, store):
    app = run("train", checkpoint)
    app.segmented_control(key="train-by").set_value("harvested")
    again(app)
    assert f"{store.positions:,} tokens" in texts(app)
    app.number_input(key="train-k").set_value(4)
    app.number_input(key="train-batch").set_value(256)
    app.text_input(key="train-name").set_value("../outside")
    press(app, "Start training")
    assert "is no name of a new folder" in app.error[0].value
    assert jobs.jobs() == []
    app.text_input(key="train-name").set_value("mine/small")
    press(app, "Start training")
    (job,) = jobs.jobs()
    assert job.arguments["source"] == str(store.folder)
    assert job.arguments["hook"] == [HOOK]
    assert (job.arguments["d_sae"], job.arguments["k"], job.arguments["into"]) == (
        2304,
        4,
        str(given / "mine" / "small"),
    )
    assert "job" in app.query_params
    assert jobs.wait(job.id, timeout=120).state == "done"
    other = run("train", checkpoint, job=job.id)  # another browser, after the first was closed
    shown = {metric.label: metric.value for metric in other.metric}
    log = [json.loads(line) for line in (given / "mine/small/training_log.jsonl").read_text().splitlines()]
    assert shown["FVU"] == f"{log[-1]['fvu']:.3f}"
    assert shown["dead"] == f"{log[-1]['dead']:,} of 2,304"
    assert shown["tokens"] == f"{log[-1]['tokens']:,}"
    assert len(other.get("plotly_chart")) == 4
    press(other, "Find where its features fire")
    indexed = jobs.wait(jobs.jobs()[-1].id, timeout=120)
    assert (indexed.command, indexed.state) == ("index", "done"), indexed.error
    features = run("features", given / "mine" / "small")
    assert len(features.dataframe[0].value) == 500


def test_a_report_is_drawn_and_laid_beside_another(given, checkpoint, text_folder, tmp_path_factory):
    app = run("evaluate", checkpoint)
    assert "No report of this SAE yet" in texts(app)
    assert "There are not two reports" in texts(run("evaluate", checkpoint, show="beside"))
    evaluating.evaluate(str(checkpoint), corpus=str(text_folder), tokens=2048, only=["geometry"])
    app = run("evaluate", checkpoint)
    assert "Decoder geometry" in texts(app)
    assert "Not shown, and why" in texts(app)
    assert {each.proto.label for each in app.get("download_button")} == {"report.html", "report.md", "report.json"}
    copy = sharing.pack(str(checkpoint), into=given / "a.interp.tar")
    sharing.unpack(given / "a.interp.tar", into=given / "copy")
    assert copy.files
    both = run("evaluate", checkpoint, show="beside", **{"with": str(given / "copy")})
    assert "Measured on the same" in texts(both)


def test_the_library_shows_every_checkpoint_of_its_folders_and_no_other(given, checkpoint):
    app = run("library", checkpoint)
    assert "**1 checkpoint**" in texts(app)
    assert "tiny" in links(app)
    app = run("library", checkpoint, card=str(checkpoint.resolve()))
    assert json.loads((checkpoint / "card.json").read_text())["sae_sha256"] in texts(app)
    app = run("library", checkpoint, root=str(given))
    assert "No checkpoint here" in texts(app)
    for outside in ("/", "/etc", "..", str(ROOT)):
        assert "is not in the folders" in run("library", checkpoint, root=outside).error[0].value
    assert "no SAE at" in run("library", checkpoint, card=str(ROOT / "saes")).error[0].value
    assert "no SAE at" in run("features", ROOT / "saes").error[0].value


def test_an_uploaded_archive_is_checked_and_becomes_a_checkpoint_whole_or_not_at_all(given, checkpoint):
    sharing.pack(str(checkpoint), into=given / "a.interp.tar")
    raw = (given / "a.interp.tar").read_bytes()
    app = run("library", checkpoint)
    for damaged in (raw[:-1], raw[:5000] + b"x" + raw[5001:], b"not a tar", raw.replace(b"cfg.json", b"../a.txt")):
        app.file_uploader(key="bring-file").set_value(("<b>../x y.interp.tar", damaged, "application/x-tar"))
        press(again(app), "Check and unpack")
        assert "was not unpacked" in texts(app)
        assert sorted(path.name for path in given.rglob("*")) in (["a.interp.tar"], ["a.interp.tar", "imported"])
    app.file_uploader(key="bring-file").set_value(("a.interp.tar", raw, "application/x-tar"))
    app.text_input(key="bring-file-name").set_value("theirs/a")
    press(again(app), "Check and unpack")
    assert (given / "theirs" / "a" / "card.json").read_bytes() == (checkpoint / "card.json").read_bytes()
    with pytest.raises(InterpError, match="an upload may have 500 MiB"):
        sharing.unpack_upload(io.BytesIO(raw), sharing.LARGEST_UPLOAD + 1, "large", given / "large")


@pytest.mark.slow
def test_an_archive_that_lies_in_the_folders_is_imported_and_one_outside_is_not(given, checkpoint, tmp_path):
    sharing.pack(str(checkpoint), into=given / "a.interp.tar")
    (tmp_path / "b.interp.tar").write_bytes((given / "a.interp.tar").read_bytes())
    app = run("library", checkpoint)
    app.text_input(key="bring-path").set_value(str(tmp_path / "b.interp.tar"))
    press(again(app), "Import")
    assert "is not in the folders" in app.error[0].value
    app = run("library", checkpoint)
    app.text_input(key="bring-path").set_value("a.interp.tar")
    press(again(app), "Import")
    assert jobs.wait(jobs.jobs()[-1].id, timeout=120).state == "done"
    assert (given / "imported" / "a" / "card.json").exists()
    assert "Open it" in links(again(app))
    app.text_input(key="bring-pull").set_value("file:///etc/passwd")
    press(again(app), "Pull")
    assert "nothing that a page can pull" in app.error[0].value


@pytest.mark.slow
def test_a_checkpoint_is_verified_and_packed_from_its_card(given, checkpoint):
    app = run("library", checkpoint, card=str(checkpoint.resolve()))
    press(app, "Verify")
    assert jobs.wait(jobs.jobs()[-1].id, timeout=120).state == "done"
    assert "**verified**" in texts(again(app))
    press(app, "Pack")
    packed = jobs.wait(jobs.jobs()[-1].id, timeout=120)
    assert packed.state == "done"
    again(app)
    assert any("tiny.interp.tar" in each.proto.label for each in app.get("download_button"))


@pytest.mark.parametrize("page", PAGES)
def test_read_only_pages_offer_nothing_that_writes(given, checkpoint, monkeypatch, page):
    monkeypatch.setenv("INTERP_JOBS", "1")
    monkeypatch.setattr("interp.jobs.queue.start_next", lambda: None)  # it waits, and could be stopped
    done = jobs.submit("library", {"root": str(given / "none")})
    monkeypatch.setenv(READ_ONLY, "yes")
    query = {"library": {"card": str(checkpoint.resolve())}, "jobs": {"job": done.id}, "train": {"job": done.id}}
    app = run(page, checkpoint, **query.get(page, {}))
    assert "read-only" in texts(app)
    assert not [button.label for button in app.button if not button.disabled]
    assert not app.get("file_uploader")


def test_nothing_is_shown_to_who_has_not_logged_in(given, checkpoint, monkeypatch):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.secrets["auth"] = {"redirect_uri": "http://127.0.0.1/oauth2callback", "cookie_secret": "x" * 32}
    app.secrets["interp"] = {"allow": ["Me@Example.org"]}
    app.query_params["sae"] = str(checkpoint)
    assert [button.label for button in again(app).button] == ["Log in"]
    assert not links(app)
    assert not app.title
    app.user.update({"is_logged_in": True, "email": "other@example.org"})
    assert "Not for this account" in texts(again(app))
    assert not links(app)
    app.user.update({"email": "me@example.org", "email_verified": False})
    assert "Not for this account" in texts(again(app))
    app.user.update({"email_verified": True})
    assert "Library" in texts(again(app)) or app.title
    assert app.get("page_link")
    monkeypatch.setenv("INTERP_LOGIN", "yes")
    bare = again(AppTest.from_file(str(ROOT / "app.py"), default_timeout=120))
    assert "Nobody can log in yet" in texts(bare)
    assert not bare.get("page_link")
