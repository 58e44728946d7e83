"""Commands: plain functions that know no face, whose signatures are all that a face needs."""

import inspect
import json
import math
import subprocess
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from interp import cli
from interp.commands import COMMANDS, as_json, open_sae, read_parameters
from interp.commands import finding as find
from interp.commands import steering as steer
from interp.commands.options import Option
from interp.corpus import open_corpus
from interp.types import InterpError
from interp.workbench import Workbench
from tests.conftest import ROOT

PLAIN = (str, int, float, bool, Path, Mapping[str, typing.Any])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_is_of_a_kind_that_json_and_a_command_line_have(name):
    """What is no option is for Python only (functions that are told what happens, contents of an uploaded file)."""
    command = COMMANDS[name]
    for parameter in command.parameters:
        origin = typing.get_origin(parameter.type)
        assert parameter.type in PLAIN or origin is Mapping, (name, parameter)
        assert parameter.option.help.endswith((".", ")"))
        if not parameter.required:
            json.dumps(as_json(parameter.default), allow_nan=False)
    for key in inspect.signature(command.call).parameters:
        known = key in {each.name for each in command.parameters}
        assert known or key.startswith("on_") or key == "content", (name, key)
    assert command.about.strip(), name


def test_every_command_stands_on_the_command_line():
    registered = {command.name for command in (*cli.app.registered_commands, *cli.labels.registered_commands)}
    elsewhere = {
        "undo_label": "undo",
        "import_labels": "import",
        "export_labels": "export",
        "merge_labels": "merge",
        "transfer_labels": "transfer",
        "sweep_strengths": "steer",
        "preset": "presets",
    }
    assert {elsewhere.get(name, name) for name in COMMANDS} <= registered


def test_a_signature_is_read_into_parameters():
    def count(
        text: typing.Annotated[str, Option("What is counted.")],
        *,
        times: typing.Annotated[Sequence[int], Option("How often.", low=1)] = (1,),
        until: typing.Annotated[float | None, Option("When to stop.")] = None,
        on_count: object = None,
    ) -> None: ...

    text, times, until = read_parameters(count)
    assert (text.name, text.type, text.required, text.keyword) == ("text", str, True, False)
    assert (times.type, times.several, times.default, times.option.low) == (int, True, (1,), 1)
    assert (until.type, until.nullable, until.keyword) == (float, True, True)


def test_what_commands_give_back_is_json_and_what_is_not_finite_is_null():
    @dataclass
    class Row:
        path: Path
        values: list[float]
        _own: int = 1

    row = Row(Path("a/b"), [1.5, math.inf, math.nan])
    assert as_json(row) == {"path": "a/b", "values": [1.5, None, None]}
    assert as_json({1: (np.float32(2), np.int64(3)), "b": np.array([1.0, -math.inf])}) == {
        "1": [2.0, 3],
        "b": [1.0, None],
    }
    assert as_json({"t": True, "n": None}) == {"t": True, "n": None}
    with pytest.raises(TypeError, match="object has no form in JSON"):
        as_json(object())


def test_a_checkpoint_stays_open_until_its_files_change(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    first = open_sae(str(checkpoint))
    assert open_sae(str(checkpoint)) is first
    (checkpoint / "card.json").touch()
    assert open_sae(str(checkpoint)) is not first
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "another"))
    other = open_sae(str(checkpoint))
    assert other is not first


def test_an_index_that_another_process_builds_is_the_one_that_is_searched_next(
    checkpoint, text_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    bench = open_sae(str(checkpoint))
    assert bench.index.meta["positions"] == 8_192
    Workbench.open(checkpoint, labels="sqlite://").build_index(open_corpus(text_folder), 2_048)
    assert open_sae(str(checkpoint)) is bench
    assert bench.index.meta["positions"] < 8_192
    assert bench.index.folder == bench.full_index_folder


def test_answers_of_commands_are_those_of_the_workbench(checkpoint, wb, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    sae = str(checkpoint)
    answer = find.search(sae, "token:/Paris/", limit=3)
    assert [hit.feature for hit in answer.hits] == [hit.feature for hit in wb.search("token:/Paris/", limit=3)]
    number = answer.hits[0].feature
    assert as_json(find.feature(sae, number).page) == as_json(wb.feature(number))
    assert find.densities(sae).tolist() == wb.index.features["density"].tolist()
    text = "The capital of France is Paris"
    rows = find.spectrum(sae, text, top=2)
    whole = wb.spectrum(text)
    assert [[(f.feature, f.value) for f in row.features] for row in rows] == [
        whole.top(at, 2) for at in range(len(whole.tokens))
    ]
    assert json.loads(json.dumps(as_json(rows)))[0]["counted"] is False


def test_edits_are_json_and_a_direction_of_texts_is_one_of_them(checkpoint, wb, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    (tmp_path / "a.txt").write_text("Paris is in France\nRome is in Italy\n")
    (tmp_path / "b.txt").write_text("def add(a, b)\nprint(add(1, 2))\n")
    number = int(wb.index.features["fires"].idxmax())
    texts = {"toward": str(tmp_path / "a.txt"), "away": str(tmp_path / "b.txt")}
    edits = [
        {"kind": "Clamp", "feature": number, "strength": 4.0},
        {"kind": "Add", "feature": texts, "strength": 2.0, "where": "generated"},
    ]
    words = steer.check_edits(str(checkpoint), edits)
    assert words == [f"Clamp 4 on feature {number}", "Add 2 on the direction 'contrast' at generated"]
    record = tmp_path / "run.json"
    run = steer.steer(str(checkpoint), ["The capital of"], edits=edits, tokens=3, record=record)
    assert [edit["kind"] for edit in run.edits] == ["Clamp", "Add"]
    assert steer.replay(record, sae=str(checkpoint)).identical
    with pytest.raises(InterpError, match="names? both"):
        steer.check_edits(str(checkpoint), [{"kind": "Add", "feature": {"toward": "x"}, "strength": 1.0}])


def test_no_default_says_another_number_than_the_library():
    """A command's default and that of the function beneath it, where they have a parameter of one name."""
    from interp import recipe

    pairs = [
        ("harvest", __import__("interp.activations", fromlist=["harvest"]).harvest),
        ("train", recipe.train_checkpoint),
        ("selftest", recipe.selftest),
        ("search", Workbench.search),
        ("effects", Workbench.effects),
        ("publish", Workbench.publish),
        ("index", Workbench.build_index),
    ]
    for name, function in pairs:
        own = {each.name: each.default for each in COMMANDS[name].parameters if not each.required}
        for key, parameter in inspect.signature(function).parameters.items():
            if key in own and parameter.default is not inspect.Parameter.empty:
                assert own[key] == parameter.default, (name, key)


def test_help_needs_no_library_that_takes_long():
    """All signatures are read for the help, and none of them imports what computes."""
    code = (
        "import sys; sys.argv = ['interp', '--help']; from interp import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'pyarrow', 'duckdb', 'scipy', 'sqlalchemy', 'streamlit', 'mcp'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr.strip() == "[]"
