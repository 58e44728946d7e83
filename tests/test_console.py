"""What reaches a terminal: nothing that acts there, no character that cannot be written, and lines of its width."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys

import pytest
from rich.cells import cell_len

from interp.render.terminal import UNSAFE, one_line, printable, printable_json, shortened
from interp.workbench import Workbench
from tests.conftest import ROOT
from tests.test_cli import call

HOSTILE = "\x1b[31mred\x1b]0;title\x07\x9b2J\r\b\x7f\u202eevil\u2066\ud800[bold]x[/bold] :cat:"
SEEN = r"\x1b[31mred\x1b]0;title\x07\x9b2J\r\x08\x7f\u202eevil\u2066\ud800[bold]x[/bold] :cat:"


def test_what_would_act_on_a_terminal_is_written_as_its_escape_and_all_else_stays():
    assert printable(HOSTILE) == SEEN
    plain = "é 日本語 👩\u200d👧 ‘x’\n\tשלום"
    assert printable(plain) == plain


def test_json_keeps_its_meaning_and_holds_no_character_that_acts():
    text = json.dumps({"label": HOSTILE}, ensure_ascii=False)
    assert json.loads(printable_json(text)) == {"label": HOSTILE}
    assert not UNSAFE.search(printable_json(text))


def test_no_module_writes_to_a_console_but_the_one_that_escapes():
    """`print` is forbidden by ruff (T20)."""
    for path in (ROOT / "interp").rglob("*.py"):
        found = re.findall(r"\bConsole\(|sys\.(?:__)?std(?:out|err)(?:__)?\.write|\brich\.print\b", path.read_text())
        assert not found or path.name == "terminal.py", path


def run(*arguments, **env):
    """(exit code, standard output, standard error) of a process, in bytes."""
    call = [sys.executable, "-m", "interp.cli", *map(str, arguments)]
    done = subprocess.run(call, capture_output=True, env=os.environ | env, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def named(checkpoint, tmp_path, monkeypatch):
    """The checkpoint with a hostile label, and the label."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    text = HOSTILE.replace("\ud800", "") + " é →"
    Workbench.open(checkpoint).labels.set(3, text, author=text, note=text)
    return checkpoint, text


@pytest.fixture
def hostile_index(checkpoint, tmp_path, monkeypatch):
    """The checkpoint, indexed over a text whose titles and tokens hold what would act on a terminal."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    text = HOSTILE.replace("\ud800", "")
    rows = [{"text": f"The cat {text} sat {i}.\r\x1b[2J", "title": text, "topic": text} for i in range(40)]
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Workbench.open(checkpoint).build_index(str(tmp_path / "docs.jsonl"), 1024)
    return checkpoint


def test_labels_tokens_titles_names_and_errors_reach_a_console_escaped(monkeypatch, capsys, named, tmp_path):
    monkeypatch.chdir(tmp_path)
    sae, text = named
    calls = [
        ("search", sae, "like:5", "--limit", 64, "--wide"),
        ("search", sae, "labelled:yes", "--csv"),
        ("search", sae, "labelled:yes", "--json"),
        ("label", sae, 3),
        ("label", sae, 3, "--json"),
        ("feature", sae, 3),
        ("steer", sae, f"The cat {text}", "--ablate", 3, "--tokens", 2),
        ("spectrum", sae, f"The cat {text}"),
        ("search", sae, f"key{text}:1"),
        ("search", f"no{text}where"),
        ("hooks", text),
        ("label", sae, text),
        ("search", sae, "cat", "--save", text),
        ("pack", sae, "--into", tmp_path / f"{text.replace('/', '')}.tar"),
    ]
    for arguments in calls:
        code, out, err = call(monkeypatch, capsys, *arguments)
        assert code in (0, 2), err
        assert not UNSAFE.search(out + err), arguments
        if "--json" in arguments:
            (row,) = json.loads(out)
            assert text in row.values()


def test_titles_and_tokens_of_an_index_reach_a_console_escaped(monkeypatch, capsys, hostile_index):
    _, out, _ = call(monkeypatch, capsys, "search", hostile_index, "dead:no", "--json", "--limit", 1)
    number = json.loads(out)[0]["feature"]
    for arguments in [
        ("feature", hostile_index, number),
        ("search", hostile_index, "dead:no"),
        ("search", hostile_index, "token:/x/ topic:y"),
    ]:
        code, out, err = call(monkeypatch, capsys, *arguments)
        assert code in (0, 2), err
        assert "x1b" in out + err
        assert not UNSAFE.search(out + err)


@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_a_console_without_a_character_is_written_its_escape(named, env):
    code, out, err = run("search", named[0], "labelled:yes", **env)
    assert (code, err) == (0, b"")
    assert rb"\xe9 \u2192" in out
    code, out, err = run("search", named[0], "labelled:yes", "--json", **env)
    assert (code, json.loads(out.decode("ascii"))[0]["label"]) == (0, named[1])


def test_an_argument_that_is_no_unicode_is_answered_in_a_sentence(monkeypatch, capsys, checkpoint):
    for arguments in (
        ("spectrum", checkpoint, "\udcff\x1b[2J"),
        ("library", "\udcff"),
        ("label", checkpoint, 3, "\udcff"),
    ):
        code, _, err = call(monkeypatch, capsys, *arguments)
        assert code == 2
        assert "is no text in this terminal's encoding" in err
        assert not UNSAFE.search(err)


# ---- tables ----


def test_a_cell_loses_its_middle_and_a_path_whole_names_but_never_its_last():
    assert shortened("fires on ‘French’, ‘France’, ‘Paris’", 20) == "fires on ‘Fre…Paris’"
    path = "smollm2/blocks.15.hook_resid_post/batchtopk-9216"
    assert shortened(path, 26) == "smollm2/…/batchtopk-9216"
    assert shortened(path, 5) == "…/batchtopk-9216"
    assert cell_len(shortened("日本語日本語日本語", 8)) <= 8


def test_columns_give_way_in_their_order_and_what_one_needs_less_another_gets():
    cells = [["1", "a" * 60, "0.5", "b" * 40], ["2", "short", "0.25", "why"]]
    head = ["feature", "label", "density", "why"]
    kept, lines = one_line(head, cells, 80, shorten=("label", "why"), drop=("density",))
    assert kept == head
    assert len(lines) == 3
    assert max(map(cell_len, lines)) == 80
    kept, lines = one_line(head, cells, 60, shorten=("label", "why"), drop=("density",))
    assert kept == ["feature", "label", "why"]
    assert max(map(cell_len, lines)) <= 60


def in_terminal(columns, *arguments):
    """What a command shows on a terminal of so many columns, a line each, without colours."""
    read, write = pty.openpty()
    call = [sys.executable, "-m", "interp.cli", *map(str, arguments)]
    env = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen(call, stdout=write, stderr=write, stdin=write, env=env, start_new_session=True) as process:
        os.close(write)
        shown = b""
        while True:
            try:
                part = os.read(read, 65536)
            except OSError:  # Linux's way to say that nobody writes any more
                break
            if not part:
                break
            shown += part
        assert process.wait() == 0, shown
    os.close(read)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n").splitlines()


def test_a_terminal_of_80_columns_has_a_line_a_feature_and_a_pipe_all_of_it(checkpoint, monkeypatch, capsys):
    lines = in_terminal(80, "search", checkpoint, "token:/Paris|cat|the/ density:0..1", "--limit", 9)
    start = next(i for i, line in enumerate(lines) if line.startswith("feature"))
    rows = lines[start + 1 : start + 10]
    assert all(re.match(r"\d+ ", row) for row in rows)
    assert max(map(cell_len, lines[start:])) <= 80
    assert lines[start + 10].startswith("(--wide shows")
    code, out, _ = call(monkeypatch, capsys, "search", checkpoint, "token:/Paris|cat|the/ density:0..1", "--limit", 9)
    assert code == 0
    assert "…" not in out
    assert all("F1" in line for line in out.splitlines()[-9:])


def test_the_library_has_a_line_a_checkpoint_and_never_cuts_a_name(monkeypatch, capsys, checkpoint, tmp_path):
    for name in ("a/tiny", "b/tiny"):
        shutil.copytree(checkpoint, tmp_path / "saes" / name, ignore=shutil.ignore_patterns("index"))
    for name, value in {"TTY_COMPATIBLE": "1", "NO_COLOR": "1", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    _, out, _ = call(monkeypatch, capsys, "library", tmp_path / "saes")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["tiny", "tiny"]
    assert max(map(cell_len, lines)) <= 80
    _, out, _ = call(monkeypatch, capsys, "library", ROOT / "saes")
    assert "…/batchtopk-9216  " in out
    _, out, _ = call(monkeypatch, capsys, "library", ROOT / "saes", "--wide")
    assert "smollm2-135m-instruct/blocks.15.hook_resid_post/batchtopk-9216" in out
