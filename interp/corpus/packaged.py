"""The packaged corpora by name: those of installed packages, and those of the packages that `interp setup --texts` fetches."""

from collections.abc import Callable
from functools import partial

from interp.corpus.documents import Corpus
from interp.corpus.sources import (
    american,
    code,
    conversations,
    dictionaries,
    docs,
    essays,
    installed,
    mail,
    mathematics,
    novels,
    probes,
)

INSTALLED: dict[str, Callable[[], Corpus]] = {
    "wiki-en": partial(installed.wiki, "en"),
    "wiki-fr": partial(installed.wiki, "fr"),
    "wiki-es": partial(installed.wiki, "es"),
    "sae-probes": installed.sae_probes,
    "python": installed.python_source,
    "reviews": probes.reviews,
    "news": probes.news,
    "abstracts": probes.abstracts,
    "essays": probes.essays,
    "questions": probes.questions,
}
"""Corpora that are read from installed packages."""
FETCHED: dict[str, Callable[[], Corpus]] = {
    "novels": novels.novels,
    "moby-dick": american.moby_dick,
    "sotu": american.state_of_the_union,
    "mail": mail.mail,
    "metamath": mathematics.metamath,
    "gcide": dictionaries.gcide,
    "foldoc": dictionaries.foldoc,
    "jargon": dictionaries.jargon,
    "anarchism": essays.anarchism,
    "fortunes": essays.fortunes,
    "chat": conversations.chat,
    **code.CORPORA,
    **docs.CORPORA,
}
"""Corpora whose packages lie in a cache of their own (see `archives`)."""
CORPORA: dict[str, Callable[[], Corpus]] = INSTALLED | FETCHED
