"""What a claim about a position may say; `claim.py` has a function for each key. Needs no numpy, for searches are read with it."""

from interp.grammar import Keys

HELP = {
    "token": "the token matches /regex/ or contains the text",
    "before": "the token before it does; before@2: the second before",
    "next": "the token after it does, which is what the model is to say there; next@2: the second after",
    "near": "another token within 16 does",
    "context": "the text within 16 tokens matches /regex/ or contains the text",
    "about": 'the text around it is about this, by sentence vectors (nearer than nine tenths of the text): about:"baseball games"',
    "is": 'the token is of a class or at a place: is:digit, is:month, is:"inside word", is:"sentence start"',
    "kind": 'the token is a word for a kind of this, by WordNet: kind:disease, kind:"body of water"',
    "syntax": "in Python source the token is part of this: syntax:comment, syntax:string, syntax:definition",
    "language": "the document's language, by its words: en, fr, es or code",
    "source": "the document is of this source",
    "topic": "the document has this topic",
    "title": "the document's title matches /regex/ or contains the text",
}
CLAIM = Keys(
    what="claim",
    help=HELP,
    regex=("token", "before", "next", "near", "context", "source", "topic", "title"),
    options=("before", "next"),
)
