"""What a reader of a stream sees: chunks that say which phase of the answer they belong to; knows no wire format."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple


class Phase(StrEnum):
    """The kinds of chunk; each compares equal to its name, `chunk.phase == "generating"`."""

    THINKING = "thinking"
    GENERATING = "generating"
    TOOL_CALLING = "tool_calling"
    IMAGE_GENERATING = "image_generating"
    AUDIO_GENERATING = "audio_generating"
    SPEECH_GENERATING = "speech_generating"
    RESTARTING = "restarting"
    DONE = "done"


class Restart(NamedTuple):
    """Why the text of an answer so far is void, and the number of the attempt that follows."""

    reason: str
    attempt: int


class StreamChunk(NamedTuple):
    """One piece of a streamed answer.

    The shape of `content` follows `phase`: a str for thinking and generating; `{"name", "arguments", "response"}` for
    tool_calling, once the tool has run; `{"step", "total_steps", "image", "final", "result"}` for image_generating;
    `{"step", "total_steps", "final", "result", "duration_s"}` for audio_generating; `{"chunk_index", "total_chunks",
    "final", "result"}` for speech_generating; `{"reason", "attempt"}` for restarting, when the text of the answer so
    far is void and comes anew; and for done, which ends every stream once, an empty str.
    `agent` names the agent that spoke, `iteration` is the zero-based round of its tool loop.
    """

    phase: Phase
    content: Any
    agent: str | None = None
    iteration: int = 0

    def is_text(self) -> bool:
        """Whether `content` is text of the answer or of its thinking."""
        return self.phase is Phase.GENERATING or self.phase is Phase.THINKING

    def is_thinking(self) -> bool:
        return self.phase is Phase.THINKING

    def is_tool_call(self) -> bool:
        return self.phase is Phase.TOOL_CALLING

    def is_image_progress(self) -> bool:
        return self.phase is Phase.IMAGE_GENERATING

    def is_audio_progress(self) -> bool:
        return self.phase is Phase.AUDIO_GENERATING

    def is_speech_progress(self) -> bool:
        return self.phase is Phase.SPEECH_GENERATING

    def is_restart(self) -> bool:
        """Whether the answer's text so far is void: a page that shows it should clear it."""
        return self.phase is Phase.RESTARTING

    def is_done(self) -> bool:
        return self.phase is Phase.DONE
