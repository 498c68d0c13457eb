"""The sum of a stream: what deltas add up to, and what is refused rather than guessed."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabir import messages
from sabir.deltas import (
    MAX_CHOICES,
    Assembler,
    Blob,
    Close,
    Count,
    Event,
    Finish,
    Head,
    Note,
    Open,
    State,
    Text,
)
from sabir.errors import StreamProtocolError
from sabir.messages import Audio, File, Image, Message, ProviderState, Refusal, ServerItem, Thinking, ToolCall
from sabir.usage import Usage


def added(*deltas):
    assembler = Assembler("d")
    for delta in deltas:
        assembler.add(delta)
    return assembler


def parts_of(*deltas):
    return added(*deltas).message().parts


def test_nothing_sums_to_an_empty_message():
    nothing = added()
    assert nothing.message() == Message("assistant", ())
    assert nothing.choices == (Message("assistant", ()),)
    assert nothing.usage == Usage()
    assert nothing.finishes == {}


@pytest.mark.parametrize(
    ("deltas", "part"),
    [
        ([Open(0, "text"), Text(0, "a"), Text(0, "b")], messages.Text(text="ab")),
        ([Open(0, "thinking"), Text(0, "a")], Thinking(text="a")),
        ([Open(0, "refusal"), Text(0, "a")], Refusal(text="a")),
        ([Open(0, "call", "c1", "f"), Text(0, "{}")], ToolCall(name="f", input="{}", id="c1")),
        ([Open(0, "call", name="f")], ToolCall(name="f", input="")),
        (
            [Open(0, "image", media_type="image/png"), Blob(0, b"a"), Blob(0, b"b")],
            Image(data=b"ab", media_type="image/png"),
        ),
        (
            [Open(0, "audio", "a1", media_type="audio/wav"), Blob(0, b"a"), Text(0, "la")],
            Audio(data=b"a", media_type="audio/wav", id="a1", transcript="la"),
        ),
        (
            [Open(0, "file", name="x.pdf", media_type="application/pdf"), Blob(0, b"a")],
            File(data=b"a", media_type="application/pdf", name="x.pdf"),
        ),
        ([Open(0, "server", "s1", "search"), Text(0, "a")], ServerItem(kind="search", text="a", id="s1")),
        ([Open(0, "text"), Note(0, 1), Text(0, "a"), Note(0, None)], messages.Text(text="a", notes=(1, None))),
        ([Open(0, "thinking"), Note(0, {"sig": 1})], Thinking(text="", notes=({"sig": 1},))),
    ],
)
def test_a_part_is_the_sum_of_its_deltas(deltas, part):
    assert parts_of(*deltas) == (part,)
    assert parts_of(*deltas, Close(0)) == (part,)


def test_parts_keep_the_order_in_which_they_began_however_their_pieces_come():
    assert parts_of(
        Open(0, "thinking"),
        Open(1, "call", "c1", "f"),
        Text(1, '{"x"'),
        Open(2, "text"),
        Text(0, "a"),
        Text(2, "t"),
        Open(3, "thinking"),
        Text(1, ":1}"),
        Text(3, "b"),
        Text(0, "!"),
    ) == (
        Thinking(text="a!"),
        ToolCall(name="f", input='{"x":1}', id="c1"),
        messages.Text(text="t"),
        Thinking(text="b"),
    )


def test_the_head_names_the_answer_and_later_heads_add_to_it():
    message = added(
        Head("r1", "m1", {"a": 1, "b": 1}), Open(0, "text", state={"s": 1}), Head(None, "m2"), Head(state={"b": 2})
    ).message()
    assert (message.role, message.id, message.model) == ("assistant", "r1", "m2")
    assert message.state == ProviderState("d", {"a": 1, "b": 2}, "m2")
    assert message.parts[0].state == ProviderState("d", {"s": 1}, "m2")


def test_state_is_merged_key_by_key_into_a_part_even_a_complete_one_or_the_message():
    assembler = added(
        Open(0, "text", state={"a": 1, "b": [1]}),
        Close(0),
        State(0, {"b": [2], "c": None}),
        State(None, {"m": 1}),
        State(None, {"m": 2}),
    )
    assert assembler.message().parts[0].state == ProviderState("d", {"a": 1, "b": [2], "c": None})
    assert assembler.message().state == ProviderState("d", {"m": 2})
    assert parts_of(Open(0, "text"))[0].state is None


def test_the_state_a_delta_brought_is_not_changed_by_what_is_merged_into_it():
    opening, patch = {"a": 1}, {"b": 1}
    added(Head(state=patch), Open(0, "text", state=opening), State(0, {"a": 2}), State(None, {"b": 2}))
    assert (opening, patch) == ({"a": 1}, {"b": 1})


def test_an_id_and_a_name_may_come_late():
    assert parts_of(Open(0, "call"), Text(0, "{}"), State(0, {}, id="c1"), State(0, {"k": 1}, name="f")) == (
        ToolCall(name="f", input="{}", id="c1", state=ProviderState("d", {"k": 1})),
    )
    repeated = State(0, {}, id="c1", name="f")
    assert parts_of(Open(0, "call", "c1", "f"), repeated, repeated) == (ToolCall(name="f", input="", id="c1"),)


def test_a_message_can_be_read_at_any_time_without_disturbing_the_sum():
    assembler = Assembler("d")
    seen = []
    for delta in (Head("r"), Open(0, "text"), Text(0, "a"), Open(1, "thinking"), Text(0, "b"), Close(0), Text(1, "c")):
        assembler.add(delta)
        seen.append((assembler.message().text, assembler.message().thinking, len(assembler.choices)))
    assert seen == [("", "", 1), ("", "", 1), ("a", "", 1), ("a", "", 1), ("ab", "", 1), ("ab", "", 1), ("ab", "c", 1)]


def test_events_are_carried_and_add_nothing():
    assert added(Event({"ping": 1})).message() == added().message()


def test_several_answers_are_several_messages():
    assembler = added(
        Head("r1", "m"),
        Open(0, "text", choice=2),
        Open(1, "text", choice=0),
        Text(0, "two"),
        Text(1, "zero"),
        Open(2, "call", "c", "f", choice=2),
        Finish("stop", 0, "stop"),
        Finish("length", 3, "length"),
    )
    assert [choice.text for choice in assembler.choices] == ["zero", "", "two", ""]
    assert assembler.choices[2].tool_calls == (ToolCall(name="f", input="", id="c"),)
    assert {choice.id for choice in assembler.choices} == {"r1"}
    assert assembler.message(2) == assembler.choices[2]
    assert {number: finish.reason for number, finish in assembler.finishes.items()} == {0: "stop", 3: "length"}


@pytest.mark.parametrize("choice", [-1, MAX_CHOICES, 10**12])
def test_an_answer_whose_number_no_call_could_have_asked_for_is_refused(choice):
    for delta in (Open(0, "text", choice=choice), Finish("stop", choice)):
        with pytest.raises(StreamProtocolError, match="numbered"):
            added(delta)
    assert len(added(Finish("stop", MAX_CHOICES - 1)).choices) == MAX_CHOICES


@pytest.mark.parametrize(
    "deltas",
    [
        pytest.param([Text(0, "a")], id="text for a part never opened"),
        pytest.param([Open(0, "text"), Text(1, "a")], id="text for the next part"),
        pytest.param([Open(0, "text"), Text(-1, "a")], id="text for part -1"),
        pytest.param([Blob(0, b"a")], id="bytes for a part never opened"),
        pytest.param([Note(0, 1)], id="a note for a part never opened"),
        pytest.param([State(0, {})], id="state for a part never opened"),
        pytest.param([Open(0, "text"), State(-1, {})], id="state for part -1"),
        pytest.param([Close(0)], id="an end of a part never opened"),
        pytest.param([Open(1, "text")], id="the second part before the first"),
        pytest.param([Open(0, "text"), Open(0, "text")], id="a part opened twice"),
        pytest.param([Open(0, "text"), Open(2, "text")], id="a part left out"),
        pytest.param([Open(0, "text"), Close(0), Text(0, "a")], id="text after the end"),
        pytest.param([Open(0, "image"), Close(0), Blob(0, b"a")], id="bytes after the end"),
        pytest.param([Open(0, "text"), Close(0), Note(0, 1)], id="a note after the end"),
        pytest.param([Open(0, "text"), Close(0), Close(0)], id="two ends"),
        pytest.param([Open(0, "call", "a", "f"), State(0, {}, id="b")], id="another id"),
        pytest.param([Open(0, "call", "a", "f"), State(0, {}, name="g")], id="another name"),
        pytest.param([Open(0, "text"), Text(0, "abc"), Close(0, "abd")], id="a whole that contradicts"),
        pytest.param([Open(0, "text"), Text(0, "abc"), Close(0, "ab")], id="a whole that is shorter"),
        pytest.param([Open(0, "text"), Text(0, "😀"), Close(0, "\ud83d")], id="a whole that is half a character"),
    ],
)
def test_what_does_not_fit_is_refused(deltas):
    *before, last = deltas
    assembler = added(*before)
    with pytest.raises(StreamProtocolError):
        assembler.add(last)


def test_a_call_of_no_tool_is_refused_when_it_is_read():
    assembler = added(Open(0, "call", "c1"), Text(0, "{}"), Open(1, "text"), Text(1, "a"))
    with pytest.raises(StreamProtocolError, match="name"):
        assembler.message()
    assert assembler.message(is_partial=True).parts == (messages.Text(text="a"),)
    assembler.add(State(0, {}, name="f"))
    assert assembler.message().parts == (ToolCall(name="f", input="{}", id="c1"), messages.Text(text="a"))


@pytest.mark.parametrize(
    ("streamed", "final"),
    [
        ([], ""),
        ([], "abc"),
        (["ab"], "abc"),
        (["ab", "c"], "abc"),
        (["\ud83d", "\ude00"], "😀"),
        (["a\ud83d"], "a😀b"),
        (["é"], "é😀"),
    ],
)
def test_the_whole_of_a_part_may_extend_what_was_streamed(streamed, final):
    assert parts_of(Open(0, "text"), *(Text(0, piece) for piece in streamed), Close(0, final)) == (
        messages.Text(text=final),
    )


@pytest.mark.parametrize("kind", ["text", "thinking", "refusal"])
def test_the_halves_of_a_character_in_two_deltas_are_joined(kind):
    (part,) = parts_of(Open(0, kind), Text(0, "a\ud83d"), Text(0, ""), Text(0, "\ude00b"))
    assert part.text == "a😀b"
    (part,) = parts_of(Open(0, kind), Text(0, "a\ud83d"), Text(0, "b"))
    assert part.text == "a\ud83db"


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(exclude_categories=()), max_size=12), st.lists(st.integers(0, 24), max_size=4))
def test_a_text_cut_between_any_two_utf16_units_sums_to_itself(text, cuts):
    units = text.encode("utf-16-le", "surrogatepass")
    places = sorted({0, len(units), *(2 * cut for cut in cuts if 2 * cut <= len(units))})
    pieces = [units[start:end].decode("utf-16-le", "surrogatepass") for start, end in pairwise(places)]
    (part,) = parts_of(Open(0, "text"), *(Text(0, piece) for piece in pieces))
    assert part.text == units.decode("utf-16-le", "surrogatepass")


KINDS = {"text": messages.Text, "thinking": Thinking, "refusal": Refusal}


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_interleaving_of_the_pieces_of_parts_gives_the_same_parts(data):
    written = data.draw(
        st.lists(
            st.tuples(st.sampled_from(sorted(KINDS)), st.integers(0, 2), st.lists(st.text(max_size=3), max_size=4)),
            max_size=4,
        )
    )
    queues = [
        [Open(number, kind, choice=choice), *(Text(number, piece) for piece in pieces), Close(number)]
        for number, (kind, choice, pieces) in enumerate(written)
    ]
    assembler = Assembler("d")
    opened = 0
    while any(queues):
        ready = [queue for number, queue in enumerate(queues) if queue and number <= opened]
        delta = data.draw(st.sampled_from(ready)).pop(0)
        opened += isinstance(delta, Open)
        assembler.add(delta)
    for choice in range(3):
        assert assembler.message(choice).parts == tuple(
            KINDS[kind](text="".join(pieces)) for kind, number, pieces in written if number == choice
        )


def test_deltas_compare_copy_and_pickle():
    deltas = [
        Head("a", "m", {"x": 1}),
        Open(0, "call", "c", "f", 1, {"x": 1}, "a/b"),
        Text(0, "a"),
        Blob(0, b"a"),
        Note(0, {"x": 1}),
        State(None, {"x": 1}, "c", "f"),
        Close(0, "a"),
        Count(Usage(input=1)),
        Finish("stop", 1, "stop", {"x": 1}),
        Event([1]),
    ]
    assert copy.deepcopy(deltas) == deltas
    assert pickle.loads(pickle.dumps(deltas)) == deltas
    assert Text(0, "a") != Text(0, "b")
    assert Text(0, "a") != Close(0, "a")


# Usage.

counts = st.none() | st.integers(0, 1000)
usages = st.builds(Usage, **dict.fromkeys(Usage.__struct_fields__, counts))


def test_counts_are_cumulative_and_later_fields_win():
    usage = added(
        Count(Usage(input=10, output=1)),
        Count(Usage(output=5, cache_read=0)),
        Count(Usage(output=7, reasoning=2, reported_total=19)),
    ).usage
    assert usage == Usage(input=10, output=7, cache_read=0, reasoning=2, reported_total=19)


def test_totals_are_the_sum_of_disjoint_buckets():
    usage = Usage(input=1, cache_read=2, cache_write=4, input_audio=8, output=16, reasoning=32, output_audio=64)
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (15, 112, 127)
    assert usage.cached_tokens == 2


def test_a_number_nobody_told_is_none_and_never_zero():
    assert (Usage().input_tokens, Usage().output_tokens, Usage().total_tokens) == (None, None, None)
    assert Usage().cached_tokens is None
    assert Usage(input=3).total_tokens == 3
    assert Usage(reasoning=0).output_tokens == 0
    assert (Usage() + Usage()) == Usage()
    assert (Usage(input=1) + Usage(output=2)) == Usage(input=1, output=2)


@settings(deadline=None, max_examples=100)
@given(usages, usages, usages)
def test_usage_adds_up_in_any_order(one, two, three):
    assert one + two == two + one
    assert (one + two) + three == one + (two + three)
    assert one + Usage() == one
    for name in Usage.__struct_fields__:
        alone = [count for count in (getattr(one, name), getattr(two, name)) if count is not None]
        assert getattr(one + two, name) == (sum(alone) if alone else None)


@settings(deadline=None, max_examples=100)
@given(usages, usages)
def test_a_later_count_replaces_what_it_tells_and_keeps_the_rest(earlier, later):
    now = earlier.updated(later)
    for name in Usage.__struct_fields__:
        told = getattr(later, name)
        assert getattr(now, name) == (getattr(earlier, name) if told is None else told)
    assert now.updated(later) == now
    assert Usage().updated(later) == later
