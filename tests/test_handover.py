"""A conversation may go on with another model: nobody is handed what only someone else can read."""

import json

import pytest
from servers import Server, whole

import sabir
from sabir import Message, ProviderState, Text, Thinking, ToolCall, ToolResult
from sabir.handover import sendable
from sabir.providers import PROVIDERS

MINE = ProviderState("d", {"signature": "abc"}, "m", "here")
THEIRS = ProviderState("d", {"signature": "xyz"}, "m", "there")
NOBODYS = ProviderState("d", {"signature": "old"})


@pytest.mark.parametrize("state", [None, MINE, NOBODYS])
def test_what_is_ones_own_or_of_unknown_making_is_handed_back_as_it_is(state):
    history = (
        sabir.user("Hi"),
        Message("assistant", (Thinking(text="hm", state=state), Text(text="Hello")), state=state),
    )
    assert sendable(history, "here") == (history, [])


def test_what_another_made_is_left_out_and_said_to_be():
    said = Message("assistant", (Thinking(text="hm", state=THEIRS), Text(text="Hello", state=MINE)), state=THEIRS)
    fit, notices = sendable((said,), "here")
    assert fit == (Message("assistant", (Thinking(text="hm"), Text(text="Hello", state=MINE))),)
    assert [(notice.kind, notice.subject) for notice in notices] == [("dropped", "state")]
    assert "there" in notices[0].message
    assert said.state is THEIRS


def test_a_call_that_never_ran_has_a_result_all_the_same():
    fit, notices = sendable((Message("assistant", (ToolCall(name="f", id="1"),)), sabir.user("And?")), "here")
    assert [message.role for message in fit] == ["assistant", "tool", "user"]
    assert [(notice.kind, notice.subject) for notice in notices] == [("emulated", "tool_result")]
    assert "f" in notices[0].message


def call(call_id=None, name="f", **more):
    return ToolCall(name=name, id=call_id, **more)


def gave(text, call_id=None, name="f"):
    return ToolResult(call_id=call_id, name=name, content=(Text(text=text),))


def ids_of(history):
    """The ids of a history's calls, and what the result of each says."""
    calls = [part.id for message in history for part in message.tool_calls]
    said = {part.call_id: part.text for message in history for part in message.parts if isinstance(part, ToolResult)}
    return calls, [said.get(call_id) for call_id in calls]


@pytest.mark.parametrize(
    ("rounds", "ids"),
    [
        # Results without ids are of the calls of their names, in order.
        ([((call(), call(name="g")), (gave("2", name="g"), gave("1")))], ["call_0", "call_1"]),
        ([((call(), call()), (gave("1"), gave("2")))], ["call_0", "call_1"]),
        ([((call(),), (gave("1", name=""),))], ["call_0"]),
        # What is given stays; what is made up is unlike any of it.
        ([((call("call_0"), call()), (gave("1", "call_0"), gave("2")))], ["call_0", "call_1"]),
        # Doubles are told apart, in one round and in the next.
        ([((call("x"), call("x")), (gave("1", "x"), gave("2", "x")))], ["x", "call_0"]),
        ([((call("0"),), (gave("1", "0"),)), ((call("0"),), (gave("2", "0"),))], ["0", "call_0"]),
    ],
)
def test_every_call_has_an_id_of_its_own_and_its_result_has_it_too(rounds, ids):
    history = [sabir.user("Hi")]
    for calls, results in rounds:
        history += [Message("assistant", calls), Message("tool", results)]
    fit, notices = sendable(tuple(history), "here")
    made, said = ids_of(fit)
    assert made == ids
    assert said == [str(1 + at) for at in range(len(ids))]
    given = {part.id for calls, _ in rounds for part in calls}
    assert {part.id for message in fit for part in message.tool_calls if part.synthetic} == set(ids) - given
    assert notices == []
    assert sendable(fit, "here")[0] == fit


FORMATS = ("openai-chat", "openai-responses", "anthropic", "bedrock", "mistral", "cohere", "gemini", "ollama")


@pytest.mark.parametrize("name", FORMATS)
def test_a_history_without_ids_is_one_that_its_reader_takes(name):
    history = (
        sabir.user("Hi"),
        Message("assistant", (call(), call())),
        Message("tool", (gave("one"), gave("two"))),
        sabir.user("And?"),
    )
    with sabir.Client(f"{name}:m", api_key="k", base_url="http://127.0.0.1:1") as client:
        told = client.explain(history)
    request = PROVIDERS[name].dialect.decode_request(json.dumps(told.body).encode())
    # Where a format has calls without ids, the ones that were made up for it stay out of it.
    if name in ("gemini", "ollama"):
        assert '"id"' not in json.dumps(told.body)
        assert "call_id" not in json.dumps(told.body)
        return
    made, said = ids_of(request.messages)
    assert None not in made
    assert len(set(made)) == 2
    assert said == ["one", "two"]


def answer(**message):
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello.", **message}, "finish_reason": "stop"}
    return whole(json.dumps({"id": "1", "model": "m", "choices": [choice]}).encode(), "Content-Type: application/json")


async def test_another_server_of_the_same_format_does_not_get_it_and_its_maker_does(surface):
    details = [{"type": "reasoning.encrypted", "data": "sealed"}]
    with Server(answer(reasoning_details=details)) as one, Server(answer()) as other:
        client = surface.client([f"openrouter:m@{one.url}", f"vllm:m@{other.url}"])
        chat = client.chat()
        first = await chat("Hi")
        assert first.message.parts[0].state.maker == one.place
        elsewhere = await chat("And you?", model=f"vllm:m@{other.url}")
        assert (elsewhere.warnings[0].kind, elsewhere.warnings[0].subject) == ("dropped", "state")
        assert b"sealed" not in other.calls[0].body
        assert (await chat("Back again", model=f"openrouter:m@{one.url}")).warnings == ()
        assert b"sealed" in one.calls[1].body
        explained = client.explain(chat.messages, model=f"vllm:m@{other.url}")
        assert explained.notices[0].subject == "state"


async def test_a_history_that_was_stored_still_knows_its_maker(surface):
    with Server(answer(reasoning_content="hm")) as server:
        chat = surface.client(f"vllm:m@{server.url}").chat()
        await chat("Hi")
        assert sabir.load_messages(sabir.dump_messages(chat.messages)) == chat.messages
