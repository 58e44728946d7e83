"""The command line as a user meets it: real processes for what leaves the process, the app itself for the rest."""

import importlib.metadata
import inspect
import json
import re
import shutil
import subprocess
import sys

import pytest

from interp import cli
from interp.workbench import Workbench
from tests.conftest import HOOK, ROOT, SHIPPED


def call(monkeypatch, capsys, *arguments):
    """(exit code, standard output, standard error)."""
    monkeypatch.setattr(sys, "argv", ["interp", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


COMMANDS = [command.name for command in cli.app.registered_commands]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(monkeypatch, capsys, command):
    code, out, _ = call(monkeypatch, capsys, command, "--help")
    assert code == 0
    assert "Example:" in out


def test_every_option_and_argument_is_explained_in_a_whole_sentence():
    """One with a capital and a full stop, so that no help line begins in the middle of a thought."""
    groups = (cli.labels, cli.jobs.group)
    for command in (*cli.app.registered_commands, *(each for group in groups for each in group.registered_commands)):
        for name, parameter in inspect.signature(command.callback).parameters.items():
            (info,) = parameter.annotation.__metadata__
            if not info.hidden:
                assert info.help, (command.name, name)
                assert info.help.endswith((".", ")")), info.help
                assert not re.match(r"(Of|With|For|By) [a-z ]+\.$", info.help), info.help


def test_the_version_is_the_packages(monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "--version")
    assert (code, out.strip()) == (0, f"interp {importlib.metadata.version('interp')}")


def test_the_whole_way_from_text_to_steering(monkeypatch, capsys, tiny_folder, text_folder, tmp_path):
    acts, sae = tmp_path / "acts", tmp_path / "sae"
    code, _, err = call(
        monkeypatch, capsys, "harvest", tiny_folder, text_folder, HOOK, "--tokens", 4096, "--into", acts
    )
    assert code == 0, err
    assert re.search(r"harvest: .* (KiB|MiB), about .* tokens/s", err)  # says beforehand what it takes
    code, _, err = call(monkeypatch, capsys, "train", acts, HOOK, sae, "--d-sae", 48, "--k", 4, "--batch", 256)
    assert code == 0, err
    code, _, err = call(monkeypatch, capsys, "index", sae, "--corpus", text_folder, "--tokens", 4096)
    assert code == 0, err
    code, out, _ = call(monkeypatch, capsys, "search", sae, "token:/Paris/", "--json")
    hits = json.loads(out)
    assert code == 0
    assert {"feature", "label", "score", "why"} <= set(hits[0])
    number = hits[0]["feature"]
    code, out, _ = call(monkeypatch, capsys, "feature", sae, number, "--json")
    assert json.loads(out)["feature"] == number
    assert call(monkeypatch, capsys, "feature", sae, number)[0] == 0
    code, out, _ = call(monkeypatch, capsys, "spectrum", sae, "The capital of France", "--json")
    assert json.loads(out)[0]["counted"] is False
    call(monkeypatch, capsys, "label", sae, number, "Paris", "--author", "me")
    code, out, _ = call(monkeypatch, capsys, "label", sae, number, "--json")
    assert json.loads(out)[-1]["text"] == "Paris"
    code, out, _ = call(
        monkeypatch, capsys, "steer", sae, "The capital", "--clamp", f"{number}=9", "--tokens", 5, "--json"
    )
    assert code == 0
    assert json.loads(out)["edits"][0]["strength"] == 9.0
    code, out, _ = call(monkeypatch, capsys, "evaluate", sae, "--corpus", text_folder, "--tokens", 1024, "--json")
    assert json.loads(out)["tokens"] > 0
    for command in (["models"], ["corpora"], ["hooks", tiny_folder]):
        code, out, _ = call(monkeypatch, capsys, *command, "--json")
        assert code == 0
        assert len(json.loads(out)) > 0


def test_searches_are_kept_run_again_and_written_as_csv(monkeypatch, capsys, checkpoint, tmp_path):
    kept = tmp_path / "paris.json"
    code, out, _ = call(monkeypatch, capsys, "search", checkpoint, "token:/Paris/ sort:max", "--csv", "--save", kept)
    assert code == 0
    head, *rows = out.splitlines()
    assert head.startswith("feature,label,score,density,max,automatic,partial,token score,token why")
    assert rows
    code, out, _ = call(monkeypatch, capsys, "search", checkpoint, "--rerun", kept)
    assert code == 0
    assert "came none; went none" in re.sub(r"\s+", " ", out)
    again = tmp_path / "again.json"
    code, out, _ = call(monkeypatch, capsys, "search", checkpoint, "--rerun", kept, "--save", again, "--json")
    assert code == 0
    assert {"hits", "came", "went", "since"} == set(json.loads(out))
    assert json.loads(again.read_text())["query"] == "token:/Paris/ sort:max"
    code, _, err = call(monkeypatch, capsys, "search", checkpoint, "token:/a/", "--neurons", 0, "--save", "x")
    assert code == 2
    assert "--neurons takes no --save" in err
    code, _, err = call(monkeypatch, capsys, "search", checkpoint, "like:3", "--rerun", kept)
    assert code == 2
    assert "has its own query" in err


def test_an_index_is_extended_sent_elsewhere_and_made_of_neurons(
    monkeypatch, capsys, checkpoint, text_folder, tmp_path
):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))  # indexes that no other test should find
    copy = tmp_path / "sae"
    shutil.copytree(checkpoint, copy)
    base = ["index", copy, "--corpus", text_folder]
    code, _, err = call(monkeypatch, capsys, *base, "--tokens", 1024, "--into", f"file://{tmp_path}/away", "--restart")
    assert code == 0, err
    code, _, err = call(monkeypatch, capsys, *base, "--tokens", 1024, "--extend")
    assert code == 0, err
    from interp.index import FeatureIndex

    assert len(FeatureIndex.open(Workbench.open(copy, labels="sqlite://").full_index_folder).meta["texts"]) == 2
    assert len(FeatureIndex.open(f"file://{tmp_path}/away").meta["texts"]) == 1
    code, _, err = call(monkeypatch, capsys, *base, "--tokens", 1024, "--neurons", 0)
    assert code == 0, err
    code, out, _ = call(monkeypatch, capsys, "search", copy, "token:/a/", "--neurons", 0, "--json")
    assert code == 0
    assert json.loads(out)
    code, out, err = call(monkeypatch, capsys, "neuron", copy, "0.3", "--json")
    assert code == 0, err
    assert json.loads(out)["neuron"] == 3
    code, out, err = call(monkeypatch, capsys, "neuron", copy, "0.3")
    assert code == 0, err
    assert "neuron 0.3, negative" in out
    code, _, err = call(monkeypatch, capsys, "neuron", copy, "0:3")
    assert code == 2
    assert "write LAYER.NUMBER" in err
    code, _, err = call(monkeypatch, capsys, *base, "--neurons", 0, "--beside")
    assert code == 2
    assert "takes no --beside" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "nowhere", "x"], "there is no SAE at nowhere"),
        (["search", "SAE", "tokn:/a/"], "did you mean token"),
        (["feature", "SAE", "9999"], "no feature 9999"),
        (["feature", "SAE", "many"], "valid integer"),
        (["hooks", "smollm9"], "did you mean smollm2"),
        (["harvest", "TINY", "wiki-xx", HOOK], "did you mean wiki-"),
        (["harvest", "TINY", "missing.txt", HOOK], "there is no file or folder missing.txt"),
        (["harvest", "TINY", "TEXT", "blocks.7.hook_resid_post"], "no hook point in tiny-llama"),
        (["train", "nowhere", HOOK, "out"], "nowhere is no folder that `interp harvest` wrote"),
        (["train", "TINY", HOOK, "out", "--corpus", "TEXT", "--architecture", "topk", "--l1", "3"], "topk takes no l1"),
        (["train", "TINY", HOOK, "out", "--corpus", "TEXT", "--k", "9999"], "k is 9999, more than the 4608"),
        (["sweep", "nowhere", "out", "--hook", HOOK], "nowhere is no folder that `interp harvest` wrote"),
        (["sweep", "TINY", "out", "--hook", HOOK, "--corpus", "TEXT", "--k", "a,b"], "--k is 'a,b'; write numbers"),
        (["selftest", "--architecture", "crosscoder"], "selftest plants features for SAEs"),
        (["selftest", "--k", "0"], "k"),
        (["selftest", "--architecture", "standard", "--l1", "0"], "l1 is 0.0; it must be a positive"),
        (["selftest", "--architecture", "jumprelu", "--l0", "0"], "l0 is 0.0; it must be a positive"),
        (["selftest", "--features", "100000000"], "100,000,000 features need"),
        (["selftest", "--seed", str(2**70)], f"seed is {2**70}; it must be at least 0"),
        (["train", "STORE", HOOK, "out", "--tokens", "99"], "--tokens would do nothing with"),
        (["train", "STORE", HOOK, "out", "--resample"], "resample would do nothing for batchtopk"),
        (
            ["train", "STORE", HOOK, "out", "--architecture", "jumprelu", "--form", "step", "--l0", "3"],
            "l0 would do nothing in JumpReLU's form 'step'",
        ),
        (
            ["train", "STORE", HOOK, "out", "--architecture", "transcoder", "--hook-out", HOOK],
            f"transcoder is given {HOOK} twice",
        ),
        (["train", "STORE", f"{HOOK}+ {HOOK}", "out", "--architecture", "crosscoder"], f"is given {HOOK} twice"),
        (["train", "STORE", HOOK, "out", "--epochs", "inf"], "epochs is inf"),
        (["train", "STORE", HOOK, "out", "--seed", "-1"], "seed is -1; it must be at least 0"),
        (["train", "STORE", HOOK, "out", "--d-sae", str(10**12)], "1,000,000,000,000 features need"),
        (["train", "STORE", HOOK, "out", "--set", "aneal=0.1"], "no setting 'aneal': did you mean anneal"),
        (["train", "STORE", HOOK, "out", "--set", "anneal"], "Write NAME=VALUE"),
        (["train", "STORE", HOOK, "out", "--set", "anneal=much"], "anneal takes float, not 'much'"),
        (["train", "STORE", HOOK, "out", "--set", "bfloat16=1"], "bfloat16 takes true or false, not '1'"),
        (["train", "STORE", HOOK, "out", "--set", "k=3"], "k has an option of its own: --k"),
        (["sweep", "STORE", "out", "--hook", HOOK, "--l1", "3"], "none of the sweep's architectures takes l1"),
        (
            ["sweep", "STORE", "out", "--hook", HOOK, "--architecture", "crosscoder"],
            "train it by itself (`interp train`)",
        ),
        (["harvest", "TINY", "TEXT", HOOK, "--device", "cuda:9"], "there is no device cuda:9 on this machine"),
        (["train", "FOREIGN", HOOK, "out"], "manifest.json is another program's"),
        (["harvest", "TINY", "TEXT", HOOK, "--into", "FOREIGN", "--restart"], "manifest.json is another program's"),
        (["selftest", "--k", "4000"], "k is 4000, more than the 256 features"),
        (["spectrum", "SAE", "word " * 3000], "reads at most 511"),
        (["steer", "SAE", "A cat", "--clamp", "1:8"], "write FEATURE=STRENGTH"),
        (["steer", "SAE", "A cat", "--clamp", "1=inf"], "is not finite"),
        (["label", "SAE", "99", "x"], "no feature 99"),
        (["dashboard", "nowhere"], "there is no SAE at nowhere"),
        (["nonsense"], "nonsense"),
        (["search", "SAE", "--limit", "0"], "limit"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    monkeypatch, capsys, tmp_path, tmp_path_factory, checkpoint, store, tiny_folder, text_folder, arguments, message
):
    monkeypatch.chdir(tmp_path)
    foreign = tmp_path_factory.mktemp("foreign")
    (foreign / "manifest.json").write_text('{"name": "a browser extension"}')
    places = {"SAE": checkpoint, "TINY": tiny_folder, "TEXT": text_folder, "STORE": store.folder, "FOREIGN": foreign}
    code, out, err = call(monkeypatch, capsys, *[places.get(a, a) for a in arguments])
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    # Nothing half-written: a refused command leaves no file but the token files of a harvest that may go on.
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_sae_is_trained_straight_from_the_model(monkeypatch, capsys, tiny_folder, text_folder, tmp_path):
    made = ["--corpus", text_folder, "--tokens", 4096, "--d-sae", 32, "--k", 4, "--batch", 256]
    code, _, err = call(monkeypatch, capsys, "train", tiny_folder, HOOK, tmp_path / "sae", *made)
    assert code == 0, err
    assert {path.name for path in (tmp_path / "sae").iterdir()} >= {"card.json", "cfg.json", "sae_weights.safetensors"}


@pytest.mark.parametrize(("command", "goes_on"), [("train", True), ("evaluate", True), ("meaning", False)])
def test_ctrl_c_says_whether_the_same_command_goes_on(
    monkeypatch, capsys, store, checkpoint, tmp_path, command, goes_on
):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("interp.recipe.one.train", stop)
    monkeypatch.setattr("interp.workbench.Workbench.report", stop)
    monkeypatch.setattr("interp.workbench.Workbench.meaning", stop)
    given = {"train": [store.folder, HOOK, tmp_path / "sae"], "evaluate": [checkpoint], "meaning": [checkpoint]}
    code, _, err = call(monkeypatch, capsys, command, *given[command])
    assert code == 130
    assert "interp: stopped" in err
    assert ("the same command without --restart goes on" in err) == goes_on


def test_a_tensorboard_folder_that_is_a_file_is_refused(monkeypatch, capsys, store, tmp_path):
    (tmp_path / "board").touch()
    code, _, err = call(
        monkeypatch, capsys, "train", store.folder, HOOK, tmp_path / "sae", "--tensorboard", tmp_path / "board"
    )
    assert (code, "cannot write in" in err) == (2, True)


def test_settings_without_an_option_of_their_own_are_set_by_name(monkeypatch, capsys, store, tmp_path):
    given = ["--d-sae", 32, "--batch", 256, "--architecture", "matryoshka", "--k", 4, "--buffer", 70_000]
    for setting in ("prefixes=8,32", "anneal=0.1", "warmup=0.2", "dead_after=700", "bfloat16=false"):
        given += ["--set", setting]
    code, _, err = call(monkeypatch, capsys, "train", store.folder, HOOK, tmp_path / "sae", *given)
    assert code == 0, err
    recipe = json.loads((tmp_path / "sae" / "card.json").read_text())["recipe"]
    assert (recipe["architecture"]["prefixes"], recipe["architecture"]["anneal"]) == ([8, 32], 0.1)
    assert (recipe["training"]["warmup"], recipe["training"]["dead_after"]) == (0.2, 700)
    assert (recipe["training"]["bfloat16"], recipe["buffer"]) == (False, 70_000)
    code, _, err = call(
        monkeypatch, capsys, "selftest", "--rows", 10_000, "--architecture", "jumprelu", "--form", "step"
    )
    assert code == 0, err


def test_a_sweep_of_several_kinds_gives_each_what_it_has(monkeypatch, capsys, store, tmp_path):
    grid = ["--hook", HOOK, "--architecture", "matryoshka,standard", "--d-sae", 32, "--l1", "5,7", "--batch", 256]
    grid += ["--set", "prefixes=8,32", "--set", "warmup=0.2"]
    code, out, err = call(monkeypatch, capsys, "sweep", store.folder, tmp_path, *grid, "--json")
    assert code == 0, err
    rows = json.loads(out)
    assert [(row["architecture"], row["k"], row["l1"]) for row in rows] == [
        ("matryoshka", 32, None),
        ("standard", None, 5.0),
        ("standard", None, 7.0),
    ]
    assert rows[0]["name"] == f"matryoshka-{HOOK}-d_sae32-k32-seed0-prefixes(8_32)"


def test_a_sweep_prints_a_row_for_each_sae(monkeypatch, capsys, store, tmp_path):
    grid = ["--hook", HOOK, "--d-sae", "32", "--k", "2,4", "--seed", "0,1", "--batch", 256]
    code, out, err = call(monkeypatch, capsys, "sweep", store.folder, tmp_path, *grid, "--json")
    assert code == 0, err
    rows = json.loads(out)
    assert [round(row["l0"]) for row in rows] == [2, 2, 4, 4]
    assert all(0 < row["fvu"] < 1 for row in rows)
    for name, value in {
        "TTY_COMPATIBLE": "1",
        "NO_COLOR": "1",
        "COLUMNS": "80",
    }.items():  # a terminal, as Rich reads it
        monkeypatch.setenv(name, value)
    code, out, err = call(monkeypatch, capsys, "sweep", store.folder, tmp_path, *grid)
    assert code == 0, err
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    told = [line.split()[:5] for line in plain.splitlines() if "batchtopk" in line]
    assert told == [[HOOK, "batchtopk", "32", k, seed] for k in "24" for seed in "01"]


def test_setup_runs_where_all_is_there_already():
    """Its list of models is empty unless one is named, which Typer gives as None: every command with such a list takes it so."""
    done = subprocess.run([sys.executable, "-m", "interp.cli", "setup"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "interp.cli", "setup", "--model", "gpt5"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "dinov2" in done.stderr


def test_the_selftest_says_how_many_came_back(monkeypatch, capsys):
    given = ["--d-in", 32, "--features", 24, "--active", 2, "--rows", 120_000, "--batch", 256]
    code, out, _ = call(monkeypatch, capsys, "selftest", *given)
    assert code == 0
    assert re.search(r"2[2-4] of 24 planted features came back \(\d by chance", out)


def test_json_is_the_only_thing_on_standard_output_and_no_warning_spoils_it(checkpoint):
    run = subprocess.run(
        [sys.executable, "-m", "interp.cli", "search", str(checkpoint), "density:0..1", "--json", "--limit", "2"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert len(json.loads(run.stdout)) == 2
    assert run.stderr == ""


def test_help_and_search_do_not_import_what_takes_seconds():
    code = "import sys, interp.cli, interp.workbench; print([m for m in ('transformers', 'transformer_lens', 'sae_lens', 'wandb', 'streamlit', 'scipy.stats') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_the_documented_figures_are_the_cards():
    """What docs/embedded.md says was measured is what the cards hold: a row for each text, a cell for each SAE."""
    page = (ROOT / "docs" / "embedded.md").read_text(encoding="utf-8")
    cards = [json.loads((ROOT / "saes" / name / "card.json").read_text())["metrics"] for name in SHIPPED]
    texts = ("held_out", "moby-dick", "debian-handbook", "sotu", "python-docs")
    rows = re.findall(r"^\| .+? \| (\.\d{3}; \.\d{3}; .+) \|$", page, re.MULTILINE)
    for text, row in zip(texts, rows, strict=True):
        said = [re.match(r"(\.\d+); (\.\d+); ([\d.]+)", cell).groups() for cell in row.split(" | ")]
        made = [(metrics[text]["fvu"], metrics[text]["delta_ce"], metrics[text]["l0"]) for metrics in cards]
        assert said == [(f"{fvu:.3f}"[1:], f"{ce:.3f}"[1:], f"{l0:.1f}") for fvu, ce, l0 in made], text
