"""An engine of one's own: after each word it says one that came after it in the text it was made of."""

import random
from collections.abc import Iterator
from itertools import pairwise

from sabir import UnsupportedError, Usage
from sabir.deltas import Count, Delta, Finish, Head, Open, Text
from sabir.requests import Request
from sabir.runtime import Line


class Markov:
    """A chain of words. It knows `seed` and `max_tokens`, and goes on from the last word of the prompt."""

    name = "markov"

    def __init__(self, text: str) -> None:
        self._after: dict[str, list[str]] = {}
        for word, following in pairwise(text.split()):
            self._after.setdefault(word, []).append(following)

    def deltas(self, request: Request, line: Line) -> Iterator[Delta]:
        asked = request.messages[-1].text.split()
        known = Request(
            model=request.model,
            messages=request.messages,
            stream=request.stream,
            seed=request.seed,
            max_tokens=request.max_tokens,
        )
        if request != known or not asked:
            raise UnsupportedError("markov goes on from a word, and knows no options but seed and max_tokens")
        chance, said, word = random.Random(request.seed), 0, asked[-1]
        yield Head(model=request.model)
        yield Open(0, "text")
        while said != request.max_tokens and (choices := self._after.get(word)):
            line.left()  # Raises when the call was cut, or its time is over.
            word = chance.choice(choices)
            yield Text(0, f" {word}" if said else word)
            said += 1
        yield Count(Usage(input=len(asked), output=said))
        yield Finish("length" if said == request.max_tokens else "stop")

    def close(self) -> None:
        """Nothing to let go of."""
