"""What a token looks like to a person: its text, with bytes that are no whole character as \\xNN."""

from typing import Any


def _byte_of_character() -> dict[str, int]:
    """GPT-2's table from printable characters to bytes, which byte-level tokenizers write their tokens in."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + rank): byte for rank, byte in enumerate(rest)}


def vocabulary(tokenizer: Any, size: int = 0) -> list[str]:
    """The text of every token id: of the tokenizer's own, and as `<id>` of those up to `size` that it does not know."""
    return [raw.decode("utf-8", errors="backslashreplace") for raw in vocabulary_bytes(tokenizer, size)]


def vocabulary_bytes(tokenizer: Any, size: int = 0) -> list[bytes]:
    """The bytes of every token id; those of a text's tokens, one after the other, are the text."""
    known = {int(token) for token in tokenizer.get_vocab().values()}
    size = max(size, len(tokenizer), max(known, default=-1) + 1)  # ids may have gaps, or go on past the embedding
    pieces = [tokenizer.convert_ids_to_tokens(token) if token in known else None for token in range(size)]
    special = set(tokenizer.all_special_ids)
    bytes_of = _byte_of_character()
    byte_level = sum(1 for piece in pieces if piece and piece.startswith("Ġ")) > sum(
        1 for piece in pieces if piece and piece.startswith("▁")
    )
    texts = []
    for token, piece in enumerate(pieces):
        if piece is None:
            texts.append(f"<{token}>".encode())
        elif byte_level and token not in special and all(c in bytes_of for c in piece):
            texts.append(bytes(bytes_of[c] for c in piece))
        else:
            texts.append(piece.replace("▁", " ").encode())
    return texts
