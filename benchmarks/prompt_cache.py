"""What `cache=` costs a call: CPU of the caller's thread, over real HTTP on loopback; asserts nothing.

A history of 100 messages is asked for again and again, with and without the option, turn about. The last column is
what fingerprints and the comparison with earlier requests take of the call. Figures are medians of all rounds but the
first, in microseconds.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from time import thread_time_ns

import sabir
from sabir.messages import Message
from sabir.prompt_cache import PromptMemory, Watch
from sabir.requests import Request
from sabir.usage import Usage

ROUNDS = 9
CALLS = 40
MESSAGES = 100
MODELS = ("openai:gpt-4o", "anthropic:claude-sonnet-4-6")
BODIES = {
    "/chat/completions": {
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20_000, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 19_000}},
    },
    "/v1/messages": {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Yes."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1000, "cache_read_input_tokens": 19_000, "output_tokens": 2},
    },
}


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps(BODIES[self.path]).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)

    def log_message(self, *_):
        pass


def history():
    turns = [sabir.system("Be kind. " * 100)]
    for at in range(MESSAGES // 2):
        turns += [sabir.user(f"Question {at}: " + "why " * 80), sabir.assistant(f"Answer {at}: " + "because " * 80)]
    return turns


def per_call(client, messages, **options):
    began = thread_time_ns()
    for at in range(CALLS):
        client.ask([*messages, sabir.user(f"And {at}?")], **options)
    return (thread_time_ns() - began) / CALLS / 1000


def watching(messages):
    memory = PromptMemory()
    usage, answer = Usage(input=1000, cache_read=19_000, output=2), Message("assistant", ())
    requests = [Request(model="m", messages=(*messages, sabir.user(f"And {at}?")), cache=True) for at in range(CALLS)]
    began = thread_time_ns()
    for request in requests:
        Watch(memory, "m", lambda *_: None, None).saw(request, usage, answer)
    return (thread_time_ns() - began) / CALLS / 1000


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    messages = history()
    print(f"{'µs a call of ' + str(MESSAGES) + ' messages':32} {'without':>9} {'with':>9} {'watching':>9} {'share':>7}")
    for model in MODELS:
        url = f"http://127.0.0.1:{server.server_port}"
        with sabir.Client(model, base_url=url, api_key="k", max_tokens=5) as client:
            rounds = [
                (per_call(client, messages), per_call(client, messages, cache=True), watching(messages))
                for _ in range(ROUNDS)
            ]
        plain, kept, watched = (median(column) for column in zip(*rounds[1:], strict=True))
        print(f"{model:32} {plain:9.0f} {kept:9.0f} {watched:9.1f} {watched / plain:7.1%}")
    server.shutdown()


if __name__ == "__main__":
    main()
