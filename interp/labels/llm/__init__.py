"""Names by a language model, whichever one the `llm` package reaches: what it is asked, what it answers, whether that is true."""
