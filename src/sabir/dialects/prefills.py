"""How models are given the beginning of their own answer, to go on with it: written once for all formats.

The beginning is an assistant's message at the end of the conversation. Which models take it, and what must be said
beside it, is data of a dialect; a model that is not known to take it is never given one, as it might begin anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..messages import Message, ProviderState, Text
from ..requests import Request


@dataclass(frozen=True)
class Prefill:
    """What a server wants of a beginning.

    Attributes:
        models: which ids of models take one.
        trims: whether one that ends in white space is refused.
        repeats: whether the answer tells it once more.
        fields: what is said of it beside the messages.
        marks: what is said of it in its message.
        root: what stands before the path of the address for that, if it is another.
    """

    models: re.Pattern[str] = re.compile("")
    trims: bool = False
    repeats: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    marks: Mapping[str, Any] = field(default_factory=dict[str, Any])
    root: str = ""

    def begun(self, request: Request, text: str, dialect: str) -> Request | None:
        """The request with the beginning of its answer; None if its model takes none, or not of such an answer.

        A thinking model begins with its thoughts, a schema holds from the first sign on: neither goes on with a text.
        """
        is_shaped = request.schema is not None and request.schema.mode != "prompt"
        is_last = bool(request.messages) and request.messages[-1].role == "assistant"
        if request.thinking or is_shaped or is_last or (request.n or 1) > 1 or not self.models.search(request.model):
            return None
        state = ProviderState(dialect, {"set": dict(self.marks)}) if self.marks else None
        message = Message("assistant", (Text(text=text),), state=state)
        extra = {**self.fields, **request.extra}
        return msgspec.structs.replace(request, messages=(*request.messages, message), extra=extra)

    def root_of(self, request: Request) -> str:
        """What stands before the path of the address that a request goes to."""
        last = request.messages[-1] if request.messages else None
        if last is None or last.role != "assistant" or last.state is None:
            return ""
        return self.root if self.marks.items() <= last.state.value.get("set", {}).items() else ""


# https://platform.claude.com/docs/en/about-claude/models/migration-guide: from 4.6 on, HTTP 400. "final assistant
# content cannot end with trailing whitespace" is another.
CLAUDE = Prefill(
    models=re.compile(r"claude-(?:instant|v?[123](?!\d))|claude-[a-z]+-4(?:[-.][0-5](?!\d)|-\d{8}|@|$)"), trims=True
)
# https://docs.mistral.ai/capabilities/completion/prefix. The answer has it again, as the provider of Vercel's AI SDK
# knows (packages/mistral/src/mistral-chat-language-model.ts).
PREFIXED = Prefill(trims=True, repeats=True)
# https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html; llama.cpp takes the same words (#23012).
CONTINUED = Prefill(fields={"continue_final_message": True, "add_generation_prompt": False})
# https://api-docs.deepseek.com/guides/chat_prefix_completion
DEEPSEEK = Prefill(marks={"prefix": True}, root="/beta")
