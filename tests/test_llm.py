"""Names by a language model: what it is asked, what it answers, what is kept, and what happens when it does not answer.

The provider of most tests is a server on this machine, reached through `llm`'s own client for servers of OpenAI's form; its answers follow a rule, so
that what is true of a name is known. The embedded model is asked in earnest.
"""

import json
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp import places
from interp.commands import COMMANDS, as_json
from interp.corpus import open_corpus
from interp.labels import LabelBook
from interp.labels.llm import asking
from interp.labels.llm.asking import Answer, Kept, Question, ask, open_llm
from interp.labels.llm.examples import Examples
from interp.labels.llm.explaining import MADE, METHOD, TESTED
from interp.labels.llm.plugin import NAME
from interp.labels.llm.prompts import PER_QUESTION, judging, naming, read_judged, read_name
from interp.predicates import read_claim
from interp.types import InterpError
from interp.workbench import Workbench

MARKED = re.compile(r"<<(.+?)>>")


class Provider:
    """A server that names a feature by the token that is marked most often, and judges texts by that; or does as `broken` says."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.broken: int | str = 0
        """The status to answer with; `silent`: never answer."""
        self.after = 0
        """How many good answers come before it is broken."""
        self.rule = True
        self.gone = threading.Event()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = str(asked["messages"][-1]["content"])
                provider.prompts.append(prompt)
                if provider.broken and len(provider.prompts) > provider.after:
                    if provider.broken == "silent":
                        provider.gone.wait(60)
                        return
                    self.reply(int(provider.broken), {"error": {"message": "slow down, please", "type": "requests"}})
                    return
                message = {"role": "assistant", "content": provider.answer(prompt)}
                usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                self.reply(200, {"id": "1", "object": "chat.completion", "created": 1, "model": "rule-1", "choices": [choice], "usage": usage})  # fmt: skip

            def reply(self, status: int, body: dict[str, Any]) -> None:
                written = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(written)))
                self.end_headers()
                self.wfile.write(written)

            def log_message(self, *given: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, prompt: str) -> str:
        if prompt.startswith("Description: "):
            word = prompt.splitlines()[0].removeprefix("Description: ")
            texts = re.findall(r"^(\d+)\. (.*)$", prompt, re.MULTILINE)
            return "\n".join(
                f"{number}: {'yes' if MARKED.findall(text)[:1] == [word] else 'no'}" for number, text in texts
            )
        firings = prompt.split("Texts in which it does not fire")[0]
        word = Counter(MARKED.findall(firings)).most_common(1)[0][0]
        if word == ",":
            return "I would rather not say."
        return f"NAME: {word}\n" + (f"RULE: at:(token:/^ ?{re.escape(word)}$/)" if self.rule else "RULE: none")


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    served = Provider()
    user = tmp_path / "llm"
    user.mkdir()
    base = f"http://127.0.0.1:{served.server.server_address[1]}/v1"
    models = [f"- {{model_id: {name}, model_name: {name}, api_base: '{url}'}}" for name, url in
              (("rule", base), ("nowhere", "http://127.0.0.1:9/v1"))]  # fmt: skip
    (user / "extra-openai-models.yaml").write_text("\n".join(models))
    monkeypatch.setenv("LLM_USER_PATH", str(user))
    (tmp_path / "home").mkdir()
    places.cache().mkdir(parents=True, exist_ok=True)
    (tmp_path / "home" / "cache").symlink_to(places.cache())  # what can be made again is the other tests' too
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(asking, "WAITS", (0.0,))
    yield served
    served.gone.set()
    served.server.shutdown()
    served.server.server_close()


def kept_lines(home: Path) -> list[dict[str, Any]]:
    (path,) = home.glob("home/data/llm/*/*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- what an answer says ----


@pytest.mark.parametrize(
    ("answer", "name", "claim"),
    [
        ("NAME: words for rivers", "words for rivers", None),
        ("Sure!\n**Name:** `words for rivers`.\nRULE: none", "words for rivers", None),
        ("name: rivers\nRULE: at:(token:/^ river$/ not language:fr)", "rivers", "token:/^ river$/ not language:fr"),
        ("NAME: rivers\n- Rule: `token:/^ river$/`", "rivers", "token:/^ river$/"),
    ],
)
def test_an_answer_is_read(answer, name, claim):
    said = read_name(answer)
    assert (said.name, said.claim) == (name, claim and read_claim(claim))
    assert not said.misread


@pytest.mark.parametrize(
    "answer", ["", "rivers", "NAME:", "NAME: <a short name>", "NAME: ...", f"NAME: {'x' * 300}", "NAME: a\ud800b"]
)
def test_an_answer_without_a_name_is_none(answer):
    assert read_name(answer) is None


def test_a_rule_that_cannot_be_read_costs_the_rule_and_not_the_name():
    said = read_name('NAME: rivers\nRULE: at:(is:"wet")')
    assert (said.name, said.claim) == ("rivers", None)
    assert "wet" in said.misread


def test_judgements_are_read_when_every_text_has_one():
    assert read_judged("1: yes\n2: no\n3. YES, it does", 3) == [True, False, True]
    assert read_judged("2: no\n1: yes", 2) == [True, False]
    for answer in ("1: yes", "1: yes\n1: no", "1: yes\n2: maybe", "yes no", "1: yes\n2: no\n3: no"):
        assert read_judged(answer, 2) is None


# ---- what is shown ----


def test_names_are_made_from_their_splits_and_counterexamples_are_silent(wb):
    split_D = wb.index.documents["split"].to_numpy()
    kinds: Counter[str] = Counter()
    for splits in (MADE, TESTED):
        examples = Examples(wb.index, splits)
        for feature in np.flatnonzero(wb.index.features["fires"] > 50)[:8].tolist():
            firings = examples.firings(feature)
            silent = [*examples.silent(feature, firings), *examples.random(feature, 5)]
            fires = set(wb.index.fired(feature)[0].tolist())
            assert {one.position in fires for one in firings} <= {True}
            assert {one.position in fires for one in silent} <= {False}
            shown = [*firings, *silent]
            assert {split_D[wb.index.document_at[one.position]] for one in shown} <= set(splits)
            assert all(len(MARKED.findall(one.text)) == 1 for one in shown)
            kinds.update(one.kind for one in shown)
            strengths = {kind: [one.strength for one in firings if one.kind == kind] for kind in ("strong", "weak")}
            if all(strengths.values()):
                assert min(strengths["strong"]) >= max(strengths["weak"])
    assert set(kinds) == {"strong", "middle", "weak", "same token", "nearest", "random"}


def test_text_that_may_not_be_passed_on_is_sent_only_where_that_is_said(wb, monkeypatch):
    feature = int(wb.index.features["fires"].idxmax())
    documents = wb.index.documents.copy()
    documents["passes_on"] = np.arange(len(documents)) % 2 == 0
    monkeypatch.setitem(wb.index.__dict__, "documents", documents)
    examples = Examples(wb.index, MADE)
    shown = [*examples.firings(feature), *examples.silent(feature, examples.firings(feature))]
    assert shown
    assert {int(wb.index.document_at[one.position]) % 2 for one in shown} == {0}
    assert {int(wb.index.document_at[position]) % 2 for position in examples.left_out} == {1}
    sent = Examples(wb.index, MADE, send_withheld=True)
    more = sent.firings(feature, times=3)
    assert {int(wb.index.document_at[one.position]) % 2 for one in more} == {0, 1}
    assert not sent.left_out


def test_a_question_shows_each_text_once_and_says_how_to_answer(wb):
    examples = Examples(wb.index, MADE)
    feature = int(wb.index.features["fires"].idxmax())
    firings = examples.firings(feature)
    silent = examples.silent(feature, firings)
    question = naming(feature, firings, silent)
    assert question.prompt.count("<<") == len(firings) + len(silent)
    assert "NAME:" in question.system
    assert read_claim("token:/^ ?(river|lake)s?$/").sentence
    judged = judging(feature, "rivers", [*firings, *silent])
    assert len(judged) == -(-(len(firings) + len(silent)) // PER_QUESTION)


# ---- from question to label ----


def test_names_are_asked_tried_and_written_and_a_persons_stay(provider, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_LABELS", f"sqlite:///{tmp_path}/labels.sqlite")
    call, book = COMMANDS["explain"].call, LabelBook.of(checkpoint)
    wb = Workbench.open(checkpoint)
    some = np.flatnonzero(wb.index.features["fires"] > 0)[:12].tolist()
    book.set(some[0], "mine", author="me")
    trial = call(str(checkpoint), llm="rule", features=some, dry_run=True)
    assert not provider.prompts
    assert "<<" in trial.first_prompt
    assert trial.tokens > 0

    done = call(str(checkpoint), llm="rule", features=some)
    assert (done.asked, done.of_people) == (11, 1)
    assert len(provider.prompts) == done.answers == done.asked - done.without_text
    assert done.answers == len(done.names) + done.unparsable
    assert book.get(some[0]).text == "mine"
    lines = kept_lines(tmp_path)
    assert len(lines) == done.answers
    assert {line["prompt"] for line in lines} == set(provider.prompts)
    assert {(line["model"], line["seed"]) for line in lines} == {("rule", 0)}
    assert {line["sae"] for line in lines} == {wb.card.sae_sha256}
    for one in done.names:
        label = book.get(one.feature)
        assert (label.text, label.method, label.author) == (one.name, METHOD + "rule", "rule")
        assert label.predicate == f"at:({one.claim})"
        assert (one.tried, label.status) == ("by claim", {"too few": "proposed"}.get(one.verdict, one.verdict))
        assert label.note.startswith(f"{label.status}: ")
    json.dumps(as_json(done))

    again = call(str(checkpoint), llm="rule", features=some)
    assert len(provider.prompts) == done.answers
    assert {one.outcome for one in again.names} == {"the same"}
    other = call(str(checkpoint), llm="rule", features=some, seed=1)
    assert len(provider.prompts) == done.answers + other.answers


def test_a_confirmed_name_gives_way_to_a_confirmed_one_only(provider, wb):
    provider.rule = False
    fires = np.flatnonzero(wb.index.features["fires"] > 0)[:6].tolist()
    first = wb.explain("rule", fires)
    named = [one.feature for one in first.names]
    assert {one.outcome for one in first.names} == {"written"}
    assert {wb.labels.get(feature).status for feature in named} == {"proposed"}
    own = wb.labels.get(named[0])
    confirmed = replace(
        own, text="before", status="confirmed", method="auto:mined", author="autolabel", note="confirmed: so"
    )
    wb.labels.add_after(lambda histories: [confirmed])
    again = wb.explain("rule", fires)
    assert next(one.outcome for one in again.names if one.feature == named[0]) == "confirmed before"
    assert wb.labels.get(named[0]).text == "before"


def test_a_name_without_a_rule_is_tried_by_the_models_own_judgement(provider, wb):
    provider.rule = False
    done = wb.explain("rule", test=True, limit=64)
    tried = [one for one in done.names if one.tried]
    assert len(tried) >= 20
    assert {one.tried for one in tried} == {"by model"}
    assert done.judgements == sum(prompt.startswith("Description") for prompt in provider.prompts)
    assert done.unparsable_judgements == 0
    testing = np.isin(wb.index.documents["split"].to_numpy(), TESTED)[wb.index.document_at]
    text = wb.index.tokens
    for one in tried[:10]:  # by hand: of the testing firings, the share whose token is the name
        own = wb.index.fired(one.feature)[0].astype(np.int64)
        own = own[testing[own]]
        share = np.mean([wb.index.vocabulary[int(t)].strip() == one.name for t in text[own]])
        if share in (0.0, 1.0):
            assert (one.figure[0] > 0.5) == (share == 1.0)
        assert one.verdict != "confirmed" or one.figure[1] > 0.5
    note = wb.labels.get(tried[0].feature).note
    assert "of a coin" in note or "a coin's" in note


def test_an_index_of_examples_names_and_says_what_it_cannot(provider, checkpoint, text_folder, tmp_path):
    copy = tmp_path / "sae"
    shutil.copytree(checkpoint, copy, ignore=shutil.ignore_patterns("index"))
    Workbench.open(copy).build_index(open_corpus(text_folder), 8_192, keep="examples", beside=True)
    wb = Workbench.open(copy, labels=f"sqlite:///{tmp_path}/labels.sqlite")
    some = np.flatnonzero(wb.index.features["fires"] > 50)[:2].tolist()
    with pytest.raises(InterpError, match="keeps examples only.*cannot be tried"):
        wb.explain("rule", some, test=True)
    assert not provider.prompts
    done = wb.explain("rule", some)
    assert done.answers == 2
    assert "no counterexamples" in done.lacks[0]
    assert not any("Texts in which it does not fire" in prompt for prompt in provider.prompts)
    assert {one.tried for one in done.names} <= {""}
    assert {wb.labels.get(one.feature).status for one in done.names} <= {"proposed"}


# ---- a provider that does not answer ----


def broken(wb: Workbench, model: str, **options: Any) -> str:
    with pytest.raises(InterpError) as caught:
        wb.explain(model, np.flatnonzero(wb.index.features["fires"] > 0)[:5].tolist(), **options)
    assert "\n" not in str(caught.value)
    assert not wb.labels.all()
    return str(caught.value)


def test_without_the_model_or_its_key_one_sentence_says_so(provider, wb):
    assert "no language model 'rules'" in broken(wb, "rules")
    assert "No key found" in broken(wb, "gpt-4o-mini")
    assert "no language model ''" in broken(wb, "")


def test_a_network_error_is_one_sentence(provider, wb):
    assert re.search(
        r"nowhere does not answer: .*onnection.*0 answers of this call are kept in .*goes on", broken(wb, "nowhere")
    )


def test_a_rate_limit_loses_nothing_and_the_same_call_goes_on(provider, wb, tmp_path):
    provider.broken, provider.after = 429, 3
    assert "slow down, please" in broken(wb, "rule", at_once=1)
    assert len(kept_lines(tmp_path)) == 3
    provider.broken, before = 0, set(provider.prompts[:3])
    provider.prompts.clear()
    done = wb.explain("rule", np.flatnonzero(wb.index.features["fires"] > 0)[:5].tolist(), at_once=1)
    assert len(provider.prompts) == done.answers - 3
    assert not before & set(provider.prompts)
    assert len(kept_lines(tmp_path)) == done.answers


def test_a_provider_that_hangs_is_given_up(provider, wb):
    provider.broken = "silent"
    began = time.monotonic()
    assert "no answer within" in broken(wb, "rule", timeout=1.5)
    assert time.monotonic() - began < 30


def test_a_line_that_was_cut_short_is_asked_again_and_spoils_no_other(provider, tmp_path):
    model, kept = open_llm("rule"), Kept.of("rule", "abc", 0)
    questions = [Question(feature=f, kind="name", system="s", prompt=f"(10) a <<w{f}>>") for f in range(3)]
    ask(model, questions, kept, what="names")
    whole = kept.path.read_bytes()
    kept.path.write_bytes(whole[:-30])
    again = ask(model, questions, Kept.of("rule", "abc", 0), what="names")
    assert [answer.text.splitlines()[0] for answer in again] == ["NAME: w0", "NAME: w1", "NAME: w2"]
    assert len(provider.prompts) == 4
    assert len(Kept.of("rule", "abc", 0).answers) == 3
    assert kept.path.read_bytes().endswith(b"\n")


def test_what_it_will_take_is_said_before_it_begins(provider, capsys):
    kept = Kept.of("rule", "abc", 0)
    questions = [Question(feature=f, kind="name", system="s" * 39, prompt=f"<<{f}>>") for f in range(4)]
    ask(open_llm("rule"), questions[:2], kept, what="names")
    assert "names: 2 questions to rule, about 22 tokens there and 80 back, 2 at a time" in capsys.readouterr().err
    for question in questions[:2]:
        kept.answers[kept.key(question)] = Answer(text="NAME: x", seconds=60.0)
    ask(open_llm("rule"), questions, kept, what="names")
    assert re.search(r"names: 2 questions to rule \(2 more are answered already.*; about 60 s", capsys.readouterr().err)


# ---- the embedded model, in earnest ----


def test_the_embedded_model_answers_through_llm(provider):
    import llm

    model = open_llm(NAME)
    assert llm.get_model(NAME).model_id == NAME
    first = model.prompt("Name three rivers.", system="Be brief.", max_tokens=6)
    pieces = list(first)
    assert first.text() == "".join(pieces)
    assert len(pieces) > 1
    assert 0 < first.usage().output <= 6
    assert model.prompt("Name three rivers.", system="Be brief.", max_tokens=6).text() == first.text()
    warm = [model.prompt("Once", temperature=1.5, seed=seed, max_tokens=8).text() for seed in (1, 1, 2)]
    assert warm[0] == warm[1] != warm[2]
    talk = model.conversation()
    talk.prompt("My name is Ada.", max_tokens=4).text()
    assert talk.prompt("What is my name?", max_tokens=4).usage().input > first.usage().input
    with pytest.raises(InterpError, match="reads"):
        model.prompt("word " * 9_000).text()


def test_the_embedded_model_is_asked_for_names(provider, embedded, tmp_path):
    done = embedded.explain(NAME, [5152])
    (line,) = kept_lines(tmp_path)
    assert line["model"] == NAME
    assert line["text"].strip()
    assert line["input_tokens"] > 200
    assert done.answers == 1 == len(done.names) + done.unparsable
    for one in done.names:
        assert embedded.labels.get(one.feature).method == METHOD + NAME


def test_the_plugin_is_offered_to_llm_by_name():
    import tomllib

    from tests.conftest import ROOT

    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["llm"]
    assert entry == {"interp": "interp.labels.llm.plugin"}
