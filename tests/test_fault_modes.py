"""No fault hangs a call, cuts an answer in silence, lets a foreign exception out or costs more requests than it may."""

import time

import pytest
from fault_modes import BEFORE_THE_FAULT, FAULTS, TEXT, WIRES, WORDS, Fault
from servers import Server

from sabir.runtime import RuntimeWrapper

# What a busy machine may add to a deadline.
SLACK = 0.3


class Hasty(RuntimeWrapper):
    """Waits a fiftieth of what it is told to, and knows what that was."""

    def __init__(self, inner):
        super().__init__(inner)
        self.told: list[float] = []

    async def sleep(self, seconds, line):
        self.told.append(seconds)
        await super().sleep(seconds / 50, line)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
async def test_what_comes_of(surface, fault: Fault, wire):
    form = WIRES[wire]
    with Server(fault.server(form)) as server:
        waits: list[Hasty] = []
        settings = {"runtime_wrappers": [lambda runtime: waits.append(Hasty(runtime)) or waits[0]]}
        if fault.timeout is not None:
            settings["timeout"] = fault.timeout
        client = surface.client(form.model, base_url=server.url + form.path, api_key="k" * 20, **settings)
        said: list[str] = []
        error: BaseException | None = None
        began = time.monotonic()
        stream = client.stream("Count to six.") if fault.is_stream else None
        try:
            if stream is None:
                response = await client.ask("Count to six.")
            else:
                async for chunk in stream:
                    said += [chunk.content] if chunk.is_text() else []
                response = stream.response
        except Exception as raised:  # noqa: BLE001 - which one it is, is the question
            error = raised
        seconds = time.monotonic() - began
        assert type(error) is fault.error if fault.error else error is None, error
        assert len(server.calls) == fault.requests
        if fault.error is None:
            assert response.text == TEXT
            assert len(response.attempts) == fault.requests
        else:
            assert len(error.attempts) == fault.requests
        if fault.is_stream:
            assert "".join(said) == "".join(WORDS[: len(said)])
            if fault.deltas:
                assert len(said) == fault.deltas
            if fault.error:
                assert error.partial.text == "".join(said)
                assert len(said) <= BEFORE_THE_FAULT
        if fault.waits:
            assert waits[0].told == [fault.waits]
        assert len(waits[0].told) == fault.requests - 1
        if fault.timeout and fault.requests == 1 and fault.timeout < 10:
            assert fault.timeout - 0.05 <= seconds <= fault.timeout + SLACK
        else:
            assert seconds < 5
        assert "k" * 20 not in repr(error)
        # The client is as good as before.
        server.answer = FAULTS[3].server(form)
        assert (await client.ask("Count to six.")).text == TEXT
