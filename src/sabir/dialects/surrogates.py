"""The halves of a surrogate pair that fell into two pieces of a stream, joined; knows no wire format."""

from __future__ import annotations


class PairedText:
    """Passes on the pieces of one text. The first half of a pair waits for its other half, in `half`."""

    __slots__ = ("half",)

    def __init__(self) -> None:
        self.half = ""

    def more(self, piece: str) -> str:
        """What can be told of the text now that this piece has come."""
        text = self.half + piece if self.half else piece
        if text.isascii():
            return text
        self.half = ""
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
            if "\ud800" <= text[-1] <= "\udbff":
                text, self.half = text[:-1], text[-1]
        return text
