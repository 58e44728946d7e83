"""Every command line that README.md and docs/ show is run, a page at a time and in the order of the page.

A page gets a folder and an INTERP_HOME of its own, in which stands what its reader has by then (`BEFORE`). What would take hours, or
needs what is not here, is replaced by something small and real (`SMALLER`); what cannot run at all is in `NOT_RUN`, with the reason.
A line that a page shows twice is run once, and so is one of docs/commands.md (the commands' own examples) that another page shows.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from interp import jobs, places, verification
from interp.corpus import open_corpus
from interp.workbench import Workbench
from tests import reader
from tests.conftest import ROOT
from tests.hub_server import Hub
from tests.test_cli import call
from tests.test_documented import PAGES

pytestmark = pytest.mark.slow

SMALLER = {
    # A tiny model, its SAE, and texts of some hundred documents.
    r"\$?\bSAE\b": "saes/tiny",
    r"(?<![\w/-])smollm2(?![\w-])": "tiny-llama",
    r"\bdinov2\b": "tiny-dinov2",
    r"\bwhisper\b": "tiny-whisper",
    r"\bwiki-(en|fr|es)\b": r"wiki-\1.jsonl",
    r"\bsae-probes\b": "wiki-en.jsonl",
    r"source=code-python": "source=long.jsonl",
    # The last layer of that model, and a feature that fires.
    r"\bblocks\.(8|9|15)\.": "blocks.1.",
    r"\blayers\.(9|15)\b": "layers.1",
    r"--neurons 15": "--neurons 1",
    r"\b15\.3\b": "1.3",
    r"\b(5152|1234)\b": "FIRES",
    # Ids of the tiny graph, of which GROUP is made as somebody pins one on the page.
    r"saes/smollm2-135m-instruct/graphs/capital\.json": "paris.json",
    r"\bparaphrase\.json": "paris.json",
    r"--saes saes/smollm2-135m-instruct": "--saes saes/tiny",
    r"'\d+_\d+_\d+->\d+_\d+_\d+'": "'EDGE'",
    r"--nodes \d+_\d+_\d+ --groups '[^']*' --swaps \d+_\d+_\d+=\d+": "--nodes NODE --groups GROUP --swaps SWAP",
    # Sizes.
    r"--tokens \d{4,}": "--tokens 4096",
    r"(minilm blocks.*) --tokens 4096": r"\1 --tokens 8192 --batch 512",
    r"(train tiny-(dinov2|whisper).*)": r"\1 --d-sae 64",
    r"interp compare (?!.*--tokens)": "interp compare --tokens 4096 ",
    r"--d-sae [\d,]+": "--d-sae 64",
    r"--k 32\b": "--k 4",
    r"--k 16,32,64": "--k 2,4,8",
    r"--l0 16 --l0 32": "--l0 2 --l0 3",
    r"interp selftest": "interp selftest --rows 20000",
    r"(--llm interp/smollm2) --limit 5": r"\1 --limit 1",
    # Probing and planted worlds take minutes at any size; tests/test_report.py and tests/test_recipe.py have them.
    r"--everything": " ".join(
        f"--only {section}"
        for section in (
            "fidelity",
            "bias",
            "dark_matter",
            "geometry",
            "evidence",
            "transfer",
            "meaning",
            "words",
            "stability",
            "discrimination",
        )
    ),
    # Features of single words are asked for of ten words that are a token each, and the tiny tokenizer has eight.
    r" --only words": "",
    # Places that are not here.
    r"(push \S+|pull) hf:me/my-sae": r"\1 hf:me/my-sae --endpoint HUB",
    r"s3://bucket/": "file://HERE/",
    r"~/\.cache/interp/recipes/smollm2/nulls": "nulls",
    r"\bPIN\b": "THEIRS",
    r"transcribe saes/tiny": "transcribe saes/hears",
    # As the command itself where no line goes on with the job; and the one job of a page is its first.
    r"(autolabel|evidence) saes/tiny( --parts effects)? --background": r"\1 saes/tiny\2",
    r"(jobs \w+) 3": r"\1 1",
}
"""What is written (a regular expression), and what is run in its place."""

NOT_RUN = {
    r"make |pip ": "sets the machine up, as tests/installed.py does",
    r"python recipes/|python benchmarks/": "hours, and hundreds of megabytes of text",
    r"SAE=": "names the embedded SAE for the lines below it",
    r"interp setup": "installs packages; tests/test_cli.py runs it where they are there",
    r"interp dashboard|interp mcp": "serves until it is stopped; tests/browser.py and tests/test_mcp.py start it",
    r"interp explain .* gpt-4o-mini .*--background": "asks a company's model, with a key",
    r"interp pull gemma-scope": "fetches from the hub",
    r"interp circuit-faithfulness": "its words are a token each in real vocabularies only; tests/test_circuit_held_out.py runs it",
}
"""What is not run (how a line begins), and why."""

TRANSCODERS = "saes/smollm2-135m-instruct/transcoders"
EVERYWHERE = ["tiny-llama", "saes/tiny", "wiki-en.jsonl", "wiki-fr.jsonl", "wiki-es.jsonl"]
BEFORE = {
    "README": ["mytexts.jsonl"],
    "circuits": [TRANSCODERS, "clt"],
    "commands": [
        *("theirs/layers.1", "saes/old", "saes/new", "names.csv", "theirs.sqlite"),
        *(TRANSCODERS, "tiny-whisper", "clips", "saes/hears", "speech.wav"),
    ],
    "evaluation": ["saes/tiny/evidence.parquet", "nulls", "saes/mine", "theirs/layers.1", "saes/a", "saes/b", "saes/c"],
    "families": ["tiny-dinov2", "tiny-whisper", "pictures", "cat.jpg", "clips", "speech.wav"],
    "labels": ["theirs/data/labels.sqlite", "batch-0.jsonl.gz"],
    "own": ["mytexts.jsonl", "theirs/layers.1"],
    "search": ["reviews.csv"],
    "sharing": ["saes/mine", "saes/theirs", "saes/before", "theirs/layers.1"],
    "text": ["rows.jsonl", "rows.csv", "saes/mine"],
    "tutorial": ["names.csv", "theirs.sqlite", "saes/before"],
}
"""By page, what else stands there (tests/reader.py makes it)."""


def lines(page):
    """The page's command lines as they are written, each once, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    whole = (re.sub(r"\s+#\s.*", "", line) for line in "\n".join(blocks).replace("\\\n", " ").splitlines())
    return list(
        dict.fromkeys(part.strip() for line in whole for part in re.split(r"; (?=interp )", line) if part.strip())
    )


def smaller(line):
    for pattern, instead in SMALLER.items():
        line = re.sub(pattern, instead, line)
    return line


def why_not(line):
    """The reason for which a line is not run; empty of all others."""
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, line)), "")


ELSEWHERE = {smaller(line) for page in PAGES if page.stem != "commands" for line in lines(page)}


def to_run(page):
    """(line as it is written, and as it is run)."""
    for line in lines(page):
        if not why_not(line) and not (page.stem == "commands" and smaller(line) in ELSEWHERE):
            yield line, smaller(line)


SHOWN = [page for page in PAGES if any(to_run(page))]


def test_no_line_is_neither_a_command_nor_explained():
    for page in PAGES:
        for line in lines(page):
            assert line.startswith("interp ") or why_not(line), (page.stem, line)


def test_no_entry_of_a_table_is_idle():
    """One that no line needs any more would hide the next line that it happens to fit."""
    written = [line for page in PAGES for line in lines(page)]
    for pattern in NOT_RUN:
        assert any(re.match(pattern, line) for line in written), pattern
    for number, pattern in enumerate(SMALLER):
        before = list(SMALLER.items())[:number]
        changed = [line for line in written if not why_not(line)]
        for earlier, instead in before:
            changed = [re.sub(earlier, instead, line) for line in changed]
        assert any(re.search(pattern, line) for line in changed), pattern
    assert BEFORE.keys() <= {page.stem for page in SHOWN}


def test_the_name_that_the_lines_use_is_of_an_sae_that_is_here():
    named = [line for page in PAGES for line in lines(page) if line.startswith("SAE=")]
    assert named
    assert all((ROOT / line.removeprefix("SAE=") / "card.json").exists() for line in named)


@pytest.fixture(scope="module")
def own(checkpoint, tiny, tmp_path_factory):
    """The tiny SAE, indexed on documents of some length, sealed."""
    root = tmp_path_factory.mktemp("sealed")
    folder, text = root / "tiny", root / "text" / "long.jsonl"
    text.parent.mkdir()
    reader.write_long(text)
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("index"))
    Workbench.open(folder, labels="sqlite://").build_index(open_corpus(text.parent), 16_384, beside=True)
    verification.seal(folder)
    return reader.Own(folder, tiny, text.parent)


@pytest.fixture
def folder(own, tmp_path, monkeypatch):
    """The folder in which a page's reader works; its home has the embedded model where this machine has converted it."""
    models = places.cache() / "models"
    models.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of jobs
    monkeypatch.chdir(tmp_path)
    places.cache().mkdir(parents=True)
    (places.cache() / "models").symlink_to(models)
    for name in EVERYWHERE:
        reader.make(name, own)
    yield tmp_path
    for job in jobs.jobs():
        if not job.over:
            jobs.stop(job.id)


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with Hub() as server:
        yield server
        server.shutdown()


def of_graph(path):
    """What stands for ids of the graph in a file: an edge of two features, one of them, a group of both, and a swap."""
    raw = places.read_json(path)
    inner = {node["node_id"]: node for node in raw["nodes"] if node["feature_type"] == "cross layer transcoder"}
    edge = next(link for link in raw["links"] if link["source"] in inner and link["target"] in inner)
    source, target = edge["source"], edge["target"]
    raw["qParams"]["supernodes"] = [["GROUP", source, target]]
    places.write_json(path, raw)
    other = (int(source.split("_")[1]) + 1) % 24  # of the tiny transcoders' features
    return {"EDGE": f"{source}->{target}", "NODE": source, "SWAP": f"{source}={other}"}


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.stem)
def test_a_pages_commands_run_in_their_order(page, folder, own, hub, monkeypatch, capsys):
    for name in BEFORE.get(page.stem, ()):
        reader.make(name, own)
    known = {"FIRES": str(own.fires), "HUB": hub.endpoint, "HERE": str(folder), "THEIRS": own.pin}
    failed = []
    for line, run in to_run(page):
        graph = of_graph(folder / "paris.json") if re.search(r"\b(EDGE|NODE)\b", run) else {}
        for name, value in (known | graph).items():
            run = run.replace(name, value)
        run, _, into = run.partition(" > ")
        code, out, err = call(monkeypatch, capsys, *shlex.split(run)[1:])
        if into:
            Path(into).write_text(out, encoding="utf-8")
        if code:
            failed.append(f"{line}\n    as {run}\n    exit code {code}: {err[-600:]}")
    for job in jobs.jobs():  # what was begun with --background
        ended = jobs.wait(job.id, timeout=120)
        if ended.state != "done":
            failed.append(f"job {job.id}, {job.command}: {ended.state}, {ended.error}")
    assert not failed, "\n".join(failed)
