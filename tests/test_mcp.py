"""Other programs ask through the Model Context Protocol: its official client, a real server process, the tiny model."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager

import anyio
import pytest

from interp import Clamp, Workbench
from interp.commands import COMMANDS, as_json
from interp.types import InterpError
from tests.conftest import ROOT

mcp = pytest.importorskip("mcp")
READING = {"search", "feature", "spectrum", "effects", "verify", "library", "keys"}
TEXT = "The capital of France is Paris."


@pytest.fixture(scope="module")
def home(checkpoint, tmp_path_factory):
    """An INTERP_HOME with a label in it."""
    folder = tmp_path_factory.mktemp("home")
    label = ("label", checkpoint, "3", "a person's name for it", "--author", "ana", "--status", "confirmed")
    call, environment = begin(folder, *label)
    subprocess.run([sys.executable, *call], env=environment, cwd=ROOT, check=True, capture_output=True)
    return folder


def begin(home, *arguments):
    call = ["-c", "from interp.cli import main; main()", *map(str, arguments)]
    return call, os.environ | {"INTERP_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@asynccontextmanager
async def asked(home, *arguments):
    """A client of a server over standard input and output."""
    call, environment = begin(home, "mcp", *arguments)
    server = mcp.StdioServerParameters(command=sys.executable, args=call, env=environment, cwd=str(ROOT))
    async with mcp.Client(mcp.stdio_client(server)) as client:
        yield client


def talk(conversation, home, *arguments):
    """What the conversation with a fresh server came to."""

    async def whole():
        async with asked(home, *arguments) as client:
            return await conversation(client)

    return anyio.run(whole)


def said(result):
    assert not result.is_error, result.content
    return json.loads(result.content[0].text)


def refusal(result):
    assert result.is_error
    return result.content[0].text


def data(home):
    """Every file under data by its name and SHA-256.

    SQLite keeps two files beside a store while it is read, also after a reader was killed: the log is empty.
    """
    assert all(log.stat().st_size == 0 for log in (home / "data").rglob("*-wal"))
    files = (path for path in (home / "data").rglob("*") if path.is_file() and path.suffix[-4:] not in ("-wal", "-shm"))
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_reading_tools_answer_as_the_library_does_and_write_nothing(checkpoint, home):
    before = data(home)
    assert before
    name = checkpoint.name

    async def conversation(client):
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        calls = {
            "search": {"sae": name, "query": "token:/Paris/", "limit": 3},
            "feature": {"sae": name, "number": 3},
            "spectrum": {"sae": name, "text": TEXT, "top": 2},
            "effects": {"sae": name, "number": found[0].feature, "contexts": 3},
            "verify": {"sae": name, "files_only": True},
            "library": {},
            "keys": {},
        }
        answers = {tool: said(await client.call_tool(tool, given)) for tool, given in calls.items()}
        page = await client.read_resource(f"interp://{name}/feature/3")
        templates = (await client.list_resource_templates()).resource_templates
        return tools, answers, json.loads(page.contents[0].text), [each.uri_template for each in templates]

    wb = Workbench.open(checkpoint, labels="sqlite://")
    found = wb.search("token:/Paris/", limit=3)
    tools, answers, page, templates = talk(conversation, home, checkpoint.parent)
    assert set(tools) == READING
    assert all(tool.annotations.read_only_hint for tool in tools.values())
    assert [hit["feature"] for hit in answers["search"]["hits"]] == [hit.feature for hit in found]
    assert answers["feature"] == page
    assert page["page"]["label"]["text"] == "a person's name for it"
    assert page["page"]["max"] == wb.feature(3).max
    assert page["page"]["evidence"] is None
    assert "`interp evidence" in page["page"]["evidence_lacks"]
    spectrum = wb.spectrum(TEXT)
    assert [token["token"] for token in answers["spectrum"]] == spectrum.tokens
    assert [[f["feature"] for f in token["features"]] for token in answers["spectrum"]] == [
        [feature for feature, _ in spectrum.top(at, 2)] for at in range(len(spectrum.tokens))
    ]
    assert answers["effects"] == as_json(wb.effects(found[0].feature, contexts=3))
    assert [entry["folder"] for entry in answers["library"]] == [str(checkpoint)]
    assert "token" in answers["keys"]
    assert templates == ["interp://{sae}/feature/{number}"]
    assert data(home) == before


def test_schemas_are_the_commands_own(checkpoint, home):
    async def conversation(client):
        return {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}

    schemas = talk(conversation, home, checkpoint.parent, "--allow", "steer", "--allow", "label")
    assert set(schemas) == READING | {"steer", "propose_label"}
    search = schemas["search"]["properties"]
    assert set(search) == {"sae", "query", "limit", "neurons"}
    own = {each.name: each for each in COMMANDS["search"].parameters}
    assert search["limit"]["default"] == own["limit"].default
    assert search["limit"]["description"] == own["limit"].option.help
    assert (search["limit"]["minimum"], search["limit"]["maximum"]) == (1, 100)
    assert schemas["search"]["required"] == ["sae"]
    assert set(schemas["verify"]["properties"]) == {"sae", "files_only", "seed", "expect"}
    assert set(schemas["propose_label"]["required"]) == {"sae", "number", "text", "author"}
    assert all(schema["additionalProperties"] is False for schema in schemas.values())


def test_mistakes_come_back_as_their_sentence(checkpoint, home, tmp_path):
    name = checkpoint.name
    wrong = {
        "no feature 9999": ("feature", {"sae": name, "number": 9999}),
        "no SAE offered here 'other': there is tiny": ("feature", {"sae": "other", "number": 1}),
        "no SAE offered here '/": ("feature", {"sae": str(tmp_path), "number": 1}),
        "contrast: reads files": ("search", {"sae": name, "query": "(contrast:/etc/passwd,/etc/group)"}),
        "at most 2000": ("search", {"sae": name, "query": "a" * 2_001}),
        "at most 20000": ("spectrum", {"sae": name, "text": "a" * 20_001}),
        "less than or equal to 100": ("search", {"sae": name, "limit": 101}),
        "Extra inputs are not permitted": ("search", {"sae": name, "save": "mine"}),
    }

    async def conversation(client):
        told = {part: refusal(await client.call_tool(tool, given)) for part, (tool, given) in wrong.items()}
        with pytest.raises(mcp.MCPError) as no_page:
            await client.read_resource(f"interp://{name}/feature/9999")
        absent = refusal(await client.call_tool("steer", {"sae": name, "prompt": [TEXT]}))
        return told, str(no_page.value), absent

    told, no_page, absent = talk(conversation, home, checkpoint.parent)
    for part, sentence in told.items():
        assert part in sentence
        assert "Traceback" not in sentence
    assert "no feature 9999" in no_page
    assert "Unknown tool" in absent


def test_steering_and_labels_work_where_they_are_allowed(checkpoint, home):
    name = checkpoint.name
    edit = {"kind": "Clamp", "feature": 3, "strength": 40.0}

    async def conversation(client):
        run = said(await client.call_tool("steer", {"sae": name, "prompt": ["A cat"], "edits": [edit], "tokens": 6}))
        of_files = {"kind": "Add", "strength": 1.0, "feature": {"toward": "/etc/passwd", "away": "/etc/group"}}
        other = {"kind": "Ablate", "feature": {"sae": "elsewhere", "feature": 1}}
        given = {"sae": name, "prompt": ["A cat"], "tokens": 2}
        refused = [refusal(await client.call_tool("steer", given | {"edits": [each]})) for each in (of_files, other)]
        label = {"sae": name, "number": 5, "text": "words of place", "author": "a program"}
        history = said(await client.call_tool("propose_label", label))
        refused.append(refusal(await client.call_tool("propose_label", label | {"number": 3})))
        refused.append(refusal(await client.call_tool("propose_label", label | {"text": " "})))
        return run, refused, history

    run, refused, history = talk(conversation, home, checkpoint.parent, "--allow", "steer", "--allow", "label")
    wb = Workbench.open(checkpoint, labels="sqlite://")
    assert run["steered"] == wb.steer("A cat", [Clamp(feature=3, strength=40.0)], max_new_tokens=6).steered
    assert [(label["text"], label["author"], label["status"]) for label in history] == [
        ("words of place", "a program", "proposed")
    ]
    for sentence, part in zip(
        refused,
        [
            "a direction of texts is read from files",
            "no SAE offered here 'elsewhere'",
            "confirmed by ana",
            "text is empty",
        ],
        strict=True,
    ):
        assert part in sentence


def test_the_same_tools_over_local_http_and_no_page_of_another_name_reaches_them(checkpoint, home):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call, environment = begin(home, "mcp", checkpoint.parent, "--http", port)
    server = subprocess.Popen([sys.executable, *call], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    async def conversation():
        async with mcp.Client(f"http://127.0.0.1:{port}/mcp") as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            found = said(await client.call_tool("search", {"sae": checkpoint.name, "query": "token:/Paris/"}))
            return names, [hit["feature"] for hit in found["hits"]]

    def status(**headers):
        body = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'
        kinds = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/mcp", body, kinds | headers)
        try:
            return urllib.request.urlopen(request, timeout=10).status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                assert server.poll() is None
                time.sleep(0.1)
        names, found = anyio.run(conversation)
        assert names == READING
        wb = Workbench.open(checkpoint, labels="sqlite://")
        assert found == [hit.feature for hit in wb.search("token:/Paris/")]
        assert status(Host="evil.example:80") == 421
        assert status(Origin="http://evil.example") == 403
        assert status(**{"X-Long": "1", "Content-Length": str(2**21)}) == 413
    finally:
        server.terminate()
        server.communicate(timeout=20)


def test_what_takes_too_long_or_says_too_much_is_refused_in_a_sentence():
    from interp.mcp.bounds import LONGEST_ANSWER, Bounds, answer

    for work, part in (
        (lambda: time.sleep(1.5), "longer than the 0.2 seconds"),
        (lambda: "a" * LONGEST_ANSWER, "characters, and 200,000 are the most"),
    ):
        with pytest.raises(InterpError, match=part):
            anyio.run(answer, work, Bounds(0.2))
    assert anyio.run(answer, lambda: {"text": "a\x1b[2Jb‮c\nd", "score": float("nan")}, Bounds(5.0)) == (
        '{"text": "a\\u001b[2Jb\\u202ec\\nd", "score": null}'
    )


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"allow": ["everything"]}, "no permission 'everything'"),
        ({"host": "0.0.0.0"}, "every address of this machine"),
        ({"host": "::"}, "every address of this machine"),
    ],
)
def test_what_cannot_be_served_is_said(given, part):
    with pytest.raises(InterpError, match=part):
        COMMANDS["mcp"].call(**given)
    with pytest.raises(InterpError, match="there is no folder"):
        COMMANDS["mcp"].call([ROOT / "nowhere"])


def test_without_the_sdk_a_sentence_says_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)  # as where it is not installed
    with pytest.raises(InterpError, match=r"pip install 'interp\[mcp\]'"):
        COMMANDS["mcp"].call()
