"""A conversation may go on with another model: nobody is handed what only someone else can read."""

import json

import pytest
from servers import Server, whole

import sabir
from sabir import Message, ProviderState, Text, Thinking, ToolCall
from sabir.handover import sendable

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
    assert notices == []


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
