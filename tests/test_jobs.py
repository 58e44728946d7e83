"""Jobs: real processes of the real commands; nothing stands in for anything, but for one command that is made to break."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from interp import cli, jobs
from interp.commands import COMMANDS
from interp.jobs.process import Process
from interp.jobs.queue import turn
from interp.jobs.record import Standing
from interp.progress import Progress
from interp.types import InterpError
from tests.conftest import HOOK, ROOT

EMPTY = ROOT / "requirements"
"""A folder in which no checkpoint lies."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of one test's own, on a machine that has room for one job at a time."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("INTERP_JOBS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield tmp_path / "home"
    for job in reversed(jobs.jobs()):  # the queued ones first, so that none of them begins
        if job.state == "queued":
            jobs.stop(job.id)
        elif job.pid is not None:
            os.kill(job.pid, signal.SIGKILL)


def python(code, *arguments, **more):
    call = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(call, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, **more)


def quick():
    """A job that is over as soon as Python has started: the checkpoints in a folder that has none."""
    return jobs.submit("library", {"root": str(EMPTY)})


def held():
    """A job that was begun and stands still before it did anything, until it gets SIGCONT."""
    with turn("a test"):  # which a job waits for before it begins
        job = quick()
        os.kill(job.pid, signal.SIGSTOP)
    return job


def until(true, seconds=240.0):
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.02)


def edited(job, **fields):
    standing = Standing.read(job.folder)
    replace(standing, **fields).write(job.folder)


# ---- one job ----


def test_a_job_ends_with_the_record_its_command_gave_back(home):
    job = quick()
    assert (job.id, job.command, job.state, job.attempt) == ("1", "library", "running", 1)
    done = jobs.wait(job.id, timeout=240)
    assert (done.state, done.exit_code, done.error, done.pid) == ("done", 0, "", None)
    assert done.created <= done.started <= done.ended
    assert done.result() == json.loads((home / "data/jobs/1/result.json").read_text()) == []
    assert done.log.read_text().startswith("job 1: library, begun 20")
    json.dumps(done.to_dict(), allow_nan=False)


def test_what_a_command_has_not_is_refused_before_anything_is_written(home):
    for command, arguments, said in (
        ("harvset", {}, "no command 'harvset': did you mean harvest"),
        ("harvest", {"model": "m"}, "harvest needs corpus, hook"),
        ("harvest", {"model": "m", "corpus": "c", "hook": ["h"], "tokns": 3}, "no argument of harvest 'tokns'.*tokens"),
        ("harvest", {"model": "m", "corpus": "c", "hook": ["h"], "tokens": 0}, "tokens is '0', and must be 1 or more"),
        ("harvest", {"model": "m", "corpus": "c", "hook": "h"}, "hook is 'h', and must be a list, each a text"),
        ("harvest", {"model": 3, "corpus": "c", "hook": ["h"]}, "model is '3', and must be a text"),
        ("train", {"source": "s", "hook": ["h"], "into": "i", "lr": float("nan")}, "not JSON"),
        ("train", {"source": "s", "hook": ["h"], "into": "i", "skip": 1}, "skip is '1', and must be true or false"),
    ):
        with pytest.raises(InterpError, match=said):
            jobs.submit(command, arguments)
    assert not home.exists()
    assert jobs.jobs() == []
    assert not home.exists()  # looking writes nothing either


def test_a_users_mistake_is_the_jobs_sentence(tmp_path):
    job = jobs.submit("harvest", {"model": str(tmp_path / "none"), "corpus": str(tmp_path / "no.txt"), "hook": ["h"]})
    failed = jobs.wait(job.id, timeout=240)
    assert (failed.state, failed.exit_code) == ("failed", 2)
    assert str(tmp_path) in failed.error
    assert f"interp: {failed.error}" in failed.log.read_text()
    assert "Traceback" not in failed.log.read_text()
    with pytest.raises(InterpError, match="job 1 is failed, so it has no result: "):
        failed.result()


def test_a_mistake_of_ours_leaves_its_traceback_in_the_log(tmp_path, monkeypatch):
    # No command is known to break, so one is made to, as Python starts.
    (tmp_path / "sitecustomize.py").write_text("import interp.library\ndel interp.library.library\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    failed = jobs.wait(quick().id, timeout=240)
    assert (failed.state, failed.exit_code) == ("failed", 1)
    assert failed.error.startswith("ImportError: cannot import name 'library'")
    assert "the traceback is in the log" in failed.error
    assert "Traceback (most recent call last)" in failed.log.read_text()


# ---- the queue ----


@pytest.mark.parametrize(("cores", "at_once"), [(1, 1), (2, 1), (15, 1), (16, 2), (64, 8)])
def test_there_is_room_for_a_job_for_every_eight_cores(cores, at_once, monkeypatch, home):
    monkeypatch.delenv("INTERP_JOBS")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert jobs.room() == at_once
    monkeypatch.setenv("INTERP_JOBS", "3")
    assert jobs.room() == 3
    monkeypatch.setenv("INTERP_JOBS", "none")
    with pytest.raises(InterpError, match="INTERP_JOBS is 'none'"):
        quick()
    assert not home.exists()


def test_two_jobs_run_one_after_the_other():
    first = held()
    second = quick()
    assert [job.state for job in jobs.jobs()] == ["running", "queued"]
    os.kill(first.pid, signal.SIGCONT)
    second = jobs.wait(second.id, timeout=240)
    assert jobs.job(first.id).state == second.state == "done"
    assert jobs.job(first.id).ended <= second.started


def test_twenty_jobs_of_four_processes_are_all_run_and_never_more_than_there_is_room_for(monkeypatch):
    monkeypatch.setenv("INTERP_JOBS", "3")
    code = "from interp import jobs\nfor _ in range(5): print(jobs.submit('library', {'root': 'requirements'}).id)"
    four = [python(code, stdout=subprocess.PIPE) for _ in range(4)]
    ids = [line for each in four for line in each.communicate(timeout=240)[0].split()]
    assert sorted(map(int, ids)) == list(range(1, 21))
    done = [jobs.wait(id, timeout=240) for id in ids]
    assert [job.state for job in done] == ["done"] * 20
    at_once = [sum(other.started <= job.started < other.ended for other in done) for job in done]
    assert max(at_once) <= 3


def test_a_queued_job_is_stopped_without_ever_beginning():
    first, second = held(), quick()
    stopped = jobs.stop(second.id)
    assert (stopped.state, stopped.attempt, stopped.started) == ("stopped", 0, None)
    os.kill(first.pid, signal.SIGCONT)
    jobs.wait(first.id, timeout=240)
    assert jobs.job(second.id).state == "stopped"


def test_a_resumed_job_waits_behind_those_that_waited_longer():
    first, second, third = held(), quick(), quick()
    jobs.stop(second.id)
    assert jobs.resume(second.id).state == "queued"
    os.kill(first.pid, signal.SIGCONT)
    second, third = jobs.wait(second.id, timeout=240), jobs.wait(third.id, timeout=240)
    assert second.state == third.state == "done"
    assert third.ended <= second.started


def test_whoever_looks_begins_what_waits_after_the_runner_was_killed():
    first, second = held(), quick()
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: not Process.of(first.pid).alive)
    assert [job.state for job in jobs.jobs()] == ["lost", "running"]
    assert jobs.wait(second.id, timeout=240).state == "done"


def test_a_runner_that_nobody_wrote_down_does_nothing(tmp_path):
    job = held()
    edited(job, state="queued", process=None)  # as when the one that began it was killed before it wrote so
    again = jobs.job(job.id)
    assert again.pid != job.pid
    assert jobs.wait(job.id, timeout=240).state == "done"
    os.kill(job.pid, signal.SIGCONT)
    until(lambda: not Process.of(job.pid).alive)
    assert jobs.job(job.id).log.read_text().count("begun") == 1


def test_a_job_that_cannot_be_begun_says_why_and_holds_up_no_other(tmp_path, monkeypatch):
    first = held()
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    second = quick()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").rmdir()
    third = quick()
    os.kill(first.pid, signal.SIGCONT)
    assert jobs.wait(third.id, timeout=240).state == "done"
    failed = jobs.job(second.id)
    assert (failed.state, failed.exit_code, failed.cwd) == ("failed", 1, tmp_path / "gone")
    assert re.match("it could not be begun: .*No such file or directory.*gone", failed.error)


# ---- what ends without a word ----


def test_a_killed_job_is_lost_and_can_be_resumed():
    job = held()
    os.kill(job.pid, signal.SIGKILL)
    until(lambda: jobs.job(job.id).over)
    lost = jobs.job(job.id)
    assert (lost.state, lost.exit_code) == ("lost", None)
    assert "its process is gone" in lost.error
    again = jobs.wait(jobs.resume(job.id).id, timeout=240)
    assert (again.id, again.state, again.attempt) == (job.id, "done", 2)


def test_a_process_with_the_number_of_a_job_is_not_taken_for_it():
    job = held()
    os.kill(job.pid, signal.SIGKILL)
    time.sleep(0.05)  # several of the kernel's ticks, for within one a number is not given out again
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        was = Standing.read(job.folder).process
        edited(job, process=replace(was, pid=other.pid))
        assert jobs.job(job.id).state == "lost"
        with pytest.raises(InterpError, match="job 1 is lost already"):
            jobs.stop(job.id)
        replace(was, pid=other.pid).kill()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_job_of_another_boot_is_lost():
    job = held()
    was = Standing.read(job.folder).process
    assert was == Process.of(job.pid)
    assert was.alive
    edited(job, process=replace(was, boot="4fd2f6f0-the-boot-before"))
    assert jobs.job(job.id).state == "lost"
    edited(job, process=was)
    assert jobs.job(job.id).state == "running"


def test_a_job_outlives_the_process_that_submitted_it_and_all_of_its_group():
    code = """if True:
        import os, signal, time
        from interp import jobs
        from interp.jobs.queue import turn
        with turn("a test"):
            job = jobs.submit("library", {"root": "requirements"})
            os.kill(job.pid, signal.SIGSTOP)
        print(job.pid, flush=True)
        time.sleep(600)
    """
    parent = python(code, stdout=subprocess.PIPE, start_new_session=True)
    pid = int(parent.stdout.readline())
    os.killpg(parent.pid, signal.SIGKILL)
    assert parent.wait() == -signal.SIGKILL
    parent.stdout.close()
    os.kill(pid, signal.SIGCONT)
    assert jobs.wait("1", timeout=240).state == "done"


# ---- folders ----


def test_a_removed_job_is_gone_and_its_number_is_given_to_no_other(monkeypatch):
    monkeypatch.setattr("interp.jobs.queue.LAST_WORDS", 0.2)
    job = held()
    with pytest.raises(InterpError, match="job 1 is running; stop it first"):
        jobs.remove(job.id)
    stopped = jobs.stop(job.id, patience=0.0)  # standing still it hears nothing, so it is killed
    assert (stopped.state, stopped.exit_code) == ("stopped", -9)
    jobs.remove(job.id)
    assert not job.folder.exists()
    for id in ("1", "../1", "", "¹"):
        with pytest.raises(InterpError, match="no job"):
            jobs.job(id)
    assert quick().id == "2"


def test_homes_know_nothing_of_each_other(tmp_path, monkeypatch):
    held()
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "other"))
    assert jobs.jobs() == []
    assert jobs.wait(quick().id, timeout=240).state == "done"  # it need not wait for the other home's
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    assert [job.state for job in jobs.jobs()] == ["running"]


def test_a_home_that_cannot_be_written_is_said_in_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "file"))
    with pytest.raises(InterpError, match="cannot use .*file/data/jobs"):
        quick()
    with pytest.raises(InterpError, match="cannot use .*file/data/jobs"):
        jobs.jobs()
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))


def test_a_job_whose_log_takes_no_more_still_says_how_it_ended(tmp_path):
    first = held()
    second = jobs.submit(
        "harvest", {"model": str(tmp_path / "none"), "corpus": str(tmp_path / "no.txt"), "hook": ["h"]}
    )
    second.log.unlink()
    second.log.symlink_to("/dev/full")
    os.kill(first.pid, signal.SIGCONT)
    failed = jobs.wait(second.id, timeout=240)
    assert (failed.state, failed.exit_code) == ("failed", 2)
    assert "no.txt" in failed.error


@pytest.mark.parametrize("broken", ["job.json", "state.json"])
def test_a_job_whose_files_are_broken_is_lost_and_hides_no_other(broken):
    first = jobs.wait(quick().id, timeout=240)
    second = jobs.wait(quick().id, timeout=240)
    for text in ("", "[]", '{"state": "sleeping"}', '{"command": 3}'):
        (first.folder / broken).write_text(text)
        assert [job.state for job in jobs.jobs()] == ["lost", "done"]
        assert broken in jobs.job(first.id).error
    if broken == "job.json":
        with pytest.raises(InterpError, match="cannot be resumed"):
            jobs.resume(first.id)
    jobs.remove(first.id)
    assert [job.id for job in jobs.jobs()] == [second.id]


def test_a_job_is_begun_where_it_was_submitted_by_the_one_who_submitted_it(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('a file of the working folder was taken for a module')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", "/nowhere")
    job = held()
    assert os.readlink(f"/proc/{job.pid}/cwd") == str(tmp_path)
    environment = Path(f"/proc/{job.pid}/environ").read_text().split("\0")
    assert {"HF_HOME=/nowhere", f"INTERP_HOME={tmp_path / 'home'}"} <= set(environment)
    assert os.getsid(job.pid) == job.pid
    streams = [os.readlink(f"/proc/{job.pid}/fd/{number}") for number in range(3)]
    assert streams == ["/dev/null", str(job.log), str(job.log)]
    assert not [
        path for path in Path(f"/proc/{job.pid}/fd").iterdir() if os.readlink(path).startswith(("pipe", "socket"))
    ]
    assert oct((tmp_path / "home/data/jobs").stat().st_mode)[-3:] == "700"
    os.kill(job.pid, signal.SIGCONT)
    assert jobs.wait(job.id, timeout=240).state == "done"


def test_lines_of_a_log_come_whole_and_as_they_are(home):
    job = held()
    with job.log.open("ab") as log:
        log.write(b"\x1b[31mred\xff\nhalf")
    came = iter(jobs.follow(job.id))
    assert next(came) == "\x1b[31mred\ufffd"
    os.kill(job.pid, signal.SIGCONT)
    assert next(came).startswith("halfjob 1: library, begun")
    assert list(came) == []


def test_a_stop_that_comes_while_python_starts_is_heard_too():
    job = held()
    os.kill(job.pid, signal.SIGINT)  # comes as soon as it goes on
    os.kill(job.pid, signal.SIGCONT)
    stopped = jobs.wait(job.id, timeout=240)
    assert (stopped.state, stopped.exit_code) == ("stopped", 130)
    assert "Traceback" not in stopped.log.read_text()


# ---- the command line ----


def interp(monkeypatch, capsys, *arguments):
    """(exit code, standard output, standard error)."""
    monkeypatch.setattr(sys, "argv", ["interp", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return (ended.value.code or 0, *capsys.readouterr())


def test_a_command_typed_with_background_is_submitted_as_it_was_typed(monkeypatch, capsys, tmp_path):
    held()
    words = ("train", "acts", "h1+h2", tmp_path / "sae", "--d-sae", 64, "--set", "save_every=2048", "--background")
    code, out, _ = interp(monkeypatch, capsys, *words)
    assert (code, out.split(";")[0]) == (0, "job 2 waits for its turn")
    job = jobs.job("2")
    typed = {"source": "acts", "hook": ["h1", "h2"], "into": str(tmp_path / "sae"), "d_sae": 64}
    assert job.arguments == job.arguments | typed | {"settings": {"save_every": 2048}}
    assert set(job.arguments) == {parameter.name for parameter in COMMANDS["train"].parameters}  # no default may change
    listed = json.loads(interp(monkeypatch, capsys, "jobs", "list", "--json")[1])
    assert listed == [jobs.job("1").to_dict(), job.to_dict()]
    for words, said in (
        (("list",), "2    train    queued"),
        (("show", 2), str(tmp_path / "sae")),
        (("stop", 2), "job 2 is stopped"),
        (("resume", 2), "job 2 waits for its turn"),
        (("stop", 2, "--json"), '"state": "stopped"'),
        (("remove", 2), "job 2 is removed"),
    ):
        code, out, _ = interp(monkeypatch, capsys, "jobs", *words)
        assert code == 0
        assert said in out
    assert interp(monkeypatch, capsys, "jobs", "show", 2)[::2] == (2, "interp: no job '2': there is 1.\n")


def test_a_log_is_shown_with_its_control_characters_escaped_and_followed_to_its_end(monkeypatch, capsys):
    job = held()
    job.log.write_bytes(b"\x1b[31mred\n")
    assert interp(monkeypatch, capsys, "jobs", "log", 1) == (0, "\\x1b[31mred\n", "")
    os.kill(job.pid, signal.SIGCONT)
    code, out, _ = interp(monkeypatch, capsys, "jobs", "log", 1, "--follow")
    assert (code, out.startswith("\\x1b[31mred\njob 1: library, begun ")) == (0, True)
    failed = jobs.submit("harvest", {"model": "no/model", "corpus": "no.txt", "hook": ["h"]})
    code, out, _ = interp(monkeypatch, capsys, "jobs", "log", failed.id, "--follow", "--json")
    assert "interp: " in json.loads(out)[-1]
    assert interp(monkeypatch, capsys, "jobs", "log", failed.id, "--follow")[0] == 2


# ---- real work ----


def content(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("log.jsonl"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
@pytest.mark.alone
def test_a_harvest_and_a_training_run_as_jobs_and_one_that_was_stopped_ends_with_the_same_bytes(
    tiny_folder, text_folder, tmp_path
):
    texts = {"model": str(tiny_folder), "corpus": str(text_folder), "hook": [HOOK], "tokens": 8192, "dtype": "float32"}
    harvested = jobs.submit("harvest", texts | {"into": str(tmp_path / "store")})
    settings = {"source": str(tmp_path / "store"), "hook": [HOOK], "d_sae": 64, "k": 4, "epochs": 120, "batch": 256}
    into = str(tmp_path / "broken" / "sae")
    broken = jobs.submit("train", settings | {"into": into, "restart": True})
    whole = jobs.submit("train", settings | {"into": str(tmp_path / "whole" / "sae")})
    assert [job.state for job in jobs.jobs()] == ["running", "queued", "queued"]
    assert jobs.wait(harvested.id, timeout=400).result() == {"into": str(tmp_path / "store"), "positions": 8192}
    for said in jobs.follow(broken.id):
        if isinstance(said, Progress) and said.done:
            break
    stopped = jobs.stop(broken.id)
    assert (stopped.state, stopped.exit_code) == ("stopped", 130)
    at = stopped.progress.done
    assert 0 < at < stopped.progress.total
    assert jobs.resume(broken.id).id == broken.id
    came = [said.done for said in jobs.follow(broken.id) if isinstance(said, Progress)]
    assert min(came) >= at  # it goes on, though it was submitted to begin again
    assert jobs.job(broken.id).result()["into"] == into
    assert jobs.job(whole.id).state == "done"
    assert content(tmp_path / "broken") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("rate", "said"),
    [(1755.4, "1,755 tasks/s"), (2.34, "2.3 tasks/s"), (0.2, "5 s each"), (0.004, "4.2 min each"), (None, "")],
)
def test_progress_says_how_fast_it_is_also_where_one_takes_seconds(rate, said):
    told = Progress(what="probe", done=10, total=30, unit="tasks", rate=rate, left=None).told()
    assert told == ", ".join(filter(None, ["probe: 10 of 30 tasks (33%)", said]))
