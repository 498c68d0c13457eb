"""Who serves models: one row for each provider, with its address, its key and what it does otherwise than others.

Opens no connection, reads no environment and finds nothing; `providers` looks rows up. A row's comment names where its
facts come from: a page, or "recorded" for traffic of the provider itself that the tests replay. What neither of them
says a provider takes is not sent to it without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

from .dialects import Dialect, EmbeddingDialect, RerankDialect, Unsupported, Verdicts
from .dialects.anthropic import CLOUD_MEDIA, Anthropic
from .dialects.anthropic_batches import AnthropicBatches
from .dialects.batches import BatchDialect
from .dialects.bedrock import Bedrock
from .dialects.cache_marks import LEAST_OF_CLAUDE, OPENAI_CACHING, Caching
from .dialects.cohere import Cohere
from .dialects.cohere_embeddings import CohereEmbeddings
from .dialects.cohere_rerank import CohereRerank
from .dialects.efforts import Efforts, Family
from .dialects.gemini import Gemini
from .dialects.gemini_batches import GeminiBatches
from .dialects.gemini_embeddings import GeminiEmbeddings
from .dialects.gemini_media import VERTEX_IMAGE_PARAMETERS, GeminiImages, GeminiSpeech, GeminiTranscripts
from .dialects.media_formats import (
    Drawn,
    ImageAnswer,
    ImageRequest,
    MediaDialect,
    Said,
    Sound,
    SpeechAnswer,
    SpeechRequest,
    TranscriptAnswer,
    TranscriptRequest,
)
from .dialects.media_rules import MediaRules
from .dialects.mistral import Mistral
from .dialects.mistral_batches import MistralBatches
from .dialects.ollama import Ollama
from .dialects.ollama_embeddings import OllamaEmbeddings
from .dialects.ollama_pull import OllamaPull
from .dialects.openai_batches import OpenAIBatches
from .dialects.openai_chat import MEDIA, OPEN_PARAMETERS, OPENAI_PARAMETERS, OPENAI_RANGES, OpenAIChat
from .dialects.openai_completions import COMPLETION_PARAMETERS, OPEN_COMPLETION_PARAMETERS, OpenAICompletions
from .dialects.openai_embeddings import EMBEDDING_PARAMETERS, OpenAIEmbeddings
from .dialects.openai_images import IMAGE_PARAMETERS, OpenAIImages
from .dialects.openai_responses import OpenAIResponses
from .dialects.openai_speech import SPEECH_PARAMETERS, OpenAISpeech
from .dialects.openai_transcripts import TRANSCRIPT_PARAMETERS, OpenAITranscripts
from .dialects.prefills import CLAUDE, CONTINUED, DEEPSEEK
from .dialects.ranges import PORTABLE
from .dialects.subsets import LLAMA_CPP, LLGUIDANCE
from .dialects.tei import TeiEmbeddings, TeiRerank
from .dialects.vertex_embeddings import VertexEmbeddings
from .messages import Audio, File, Image

KeyHeader = Literal["authorization", "x-api-key", "x-goog-api-key", "api-key"]
Account = Literal["organization", "project"]
Cloud = Literal["aws", "google", "azure"]


@dataclass(frozen=True)
class Provider:
    """One row: where it serves, in which dialect, and which environment variables may hold its key.

    Attributes:
        url: its own address, to which the environment's key may go. `{NAME}` in it stands for the variable NAME,
            `{ONE|OTHER}` for the first that is set, `{NAME=global}` for "global" where it is not. None for a model in
            this process, or where every server has an address of its own.
        hosts: the servers that are called otherwise than `url` says, by what it says.
        key: the variable that holds the key, or several of which the first that is set counts; None if it wants none.
        is_key_optional: whether it is asked without a key where none is found.
        key_header: the header that carries the key.
        token_header: the header that carries what a function given as api_key= returns; None if it is the key's.
        cloud: whose standard credentials prove who asks where there is no key; None if nobody's do.
        signing: the service of AWS in whose name requests are signed; None if they are not.
        account_headers: the headers that say for whom a request is, by the setting that they come from.
        engine: the engine that runs its models in this process.
        model: the only model id there is, where a bare provider name is a model string.
        capabilities: what all its models can do; None where that differs or is not known.
        defaults: options that its models want, under everything that a client or call says.
        embeddings: the format in which it makes embeddings; None if it makes none.
        embeddings_by_model: formats in which some models make them, by what their ids begin with.
        rerank: the format in which it ranks documents; None if it ranks none.
        completions: the format in which it goes on with raw text; None if it does not.
        images: the format in which it makes pictures; None if it makes none.
        speech: the format in which it speaks; None if it does not.
        transcripts: the format in which it writes down what is spoken; None if it does not.
        batches: the format in which it answers many requests within a day; None if it does not.
        pull: the format in which it is told to fetch a model; None if it fetches none.
        has_chat: whether it holds conversations; else `dialect` says nothing.
        is_generic: whether it says nothing of the server behind it, so that what `sabir probe` found out counts.
        by_model: dialects in which some models are spoken to at its own address, by what their ids begin with.
    """

    name: str
    dialect: Dialect = field(default_factory=OpenAIChat)
    url: str | None = None
    hosts: Mapping[str, str] = field(default_factory=dict[str, str])
    key: str | tuple[str, ...] | None = None
    is_key_optional: bool = False
    key_header: KeyHeader = "authorization"
    token_header: KeyHeader | None = None
    cloud: Cloud | None = None
    signing: str | None = None
    account_headers: Mapping[Account, str] = field(default_factory=dict[Account, str])
    engine: str | None = None
    model: str | None = None
    capabilities: frozenset[str] | None = None
    defaults: Mapping[str, Any] | None = None
    embeddings: EmbeddingDialect | None = None
    embeddings_by_model: tuple[tuple[str, EmbeddingDialect], ...] = ()
    rerank: RerankDialect | None = None
    completions: Dialect | None = None
    images: MediaDialect[ImageRequest, Drawn, ImageAnswer] | None = None
    speech: MediaDialect[SpeechRequest, Sound, SpeechAnswer] | None = None
    transcripts: MediaDialect[TranscriptRequest, Said, TranscriptAnswer] | None = None
    batches: BatchDialect | None = None
    pull: OllamaPull | None = None
    has_chat: bool = True
    is_generic: bool = False
    by_model: tuple[tuple[str, Dialect], ...] = ()

    def dialect_of(self, model: str, base_url: str | None) -> Dialect:
        """What is spoken with a model; at an address of the caller's own, always the provider's common dialect."""
        others = (dialect for pattern, dialect in self.by_model if base_url is None and re.match(pattern, model))
        return next(others, self.dialect)

    def embeddings_of(self, model: str) -> EmbeddingDialect | None:
        """The format in which a model makes embeddings."""
        return next((made for start, made in self.embeddings_by_model if re.match(start, model)), self.embeddings)

    @property
    def keys(self) -> tuple[str, ...]:
        """The variables that may hold the key."""
        return (self.key,) if isinstance(self.key, str) else self.key or ()


def _without(parameters: Verdicts, *names: str, why: str = "this API documents no such parameter") -> Verdicts:
    return {**parameters, **dict.fromkeys(names, Unsupported(f"{why}; try extra={{…}} if you know better"))}


def _passed_over(*names: str) -> Verdicts:
    return dict.fromkeys(names, Unsupported("this server passes over it without a word; leave it out"))


# https://docs.vllm.ai/en/latest/api/vllm/sampling_params.html, and llama.cpp: as hot as one likes.
_HOTTER = {**OPENAI_RANGES, "temperature": PORTABLE["temperature"]}
# Hosts of open models that take the samplers too, and the efforts of models that think.
_OPEN = OpenAIChat(limit="max_tokens", parameters=OPEN_PARAMETERS)
_OPEN_TEMPLATE = OpenAIChat(limit="max_tokens", parameters=OPEN_PARAMETERS, ranges=_HOTTER, thinking="template")
_OPEN_SWITCH = OpenAIChat(limit="max_tokens", parameters=OPEN_PARAMETERS, thinking="switch")
_OPEN_REASONING = OpenAIChat(limit="max_tokens", parameters=OPEN_PARAMETERS, thinking="reasoning")
# The same of hosts that pass on what OpenAI's own API takes.
_COMPATIBLE = OpenAIChat(limit="max_tokens")
_COMPATIBLE_SILENT = OpenAIChat(limit="max_tokens", thinking=None)
_NO_EFFORT = {"reasoning_effort": "none"}
# https://github.com/ollama/ollama/blob/main/openai/openai.go; https://lmstudio.ai/docs/python/llm-prediction/image-input
# and lmstudio-ai/lmstudio-bug-tracker#1120: both refuse every address.
_FETCHES_NOTHING = replace(
    MEDIA,
    inlined=(Image, Audio, File),
    types={**MEDIA.types, Image: ("image/png", "image/jpeg", "image/webp")},
    most={},
)
_MORE_AUDIO = ("audio/aac", "audio/aiff", "audio/flac", "audio/mp4", "audio/ogg")
_WITH_FILMS = replace(MEDIA, types={**MEDIA.types, File: (*MEDIA.types[File], "video/")})
_OPENROUTER_MEDIA = replace(
    _WITH_FILMS, inlined=(Audio,), types={**_WITH_FILMS.types, Audio: (*MEDIA.types[Audio], *_MORE_AUDIO)}
)
# Servers that one starts oneself: what they see is for their model to say.
_OWN_SERVER = replace(_OPEN_TEMPLATE, media=_WITH_FILMS)
_LLAMA_PARAMETERS = {**OPEN_PARAMETERS, "repetition_penalty": "repeat_penalty"}
_LLAMA = OpenAIChat(
    limit="max_tokens",
    parameters=_LLAMA_PARAMETERS,
    ranges=_HOTTER,
    thinking="template",
    subset=LLAMA_CPP,
    tool_subset=LLAMA_CPP,
    prefill=CONTINUED,
)
_LLAMA_HERE = replace(_LLAMA, schema="llguidance", subset=LLGUIDANCE)
_OPEN_COMPLETIONS = OpenAICompletions(parameters=OPEN_COMPLETION_PARAMETERS)
# What `transformers serve` does not do as it is told.
_NOT_SERVED = {
    **_passed_over("n", "user", "parallel_tool_calls", "logprobs", "top_logprobs", "presence_penalty"),
    **dict.fromkeys(
        ("frequency_penalty", "repetition_penalty"),
        Unsupported(
            "this server makes a repetition penalty of its frequency_penalty: extra={'frequency_penalty': 0.1} is one "
            "of 1.1"
        ),
    ),
}
# llama.cpp's `logprobs: 0` is none at all; its rows are those of chat completions.
_LLAMA_COMPLETIONS = OpenAICompletions(
    parameters={**OPEN_COMPLETION_PARAMETERS, "repetition_penalty": "repeat_penalty"}, least_logprobs=1
)
_UP_TO_HIGH = ("low", "medium", "high")
# https://console.groq.com/docs/reasoning, theopenco/llmgateway#3422; recorded: Qwen's "none", gpt-oss's "high".
_GROQ_EFFORTS: Efforts = (
    Family(r"gpt-oss", _UP_TO_HIGH, thinks="always"),
    Family(r"qwen", ("default",), off="none"),
    Family(r"llama|gemma|allam|mistral|kimi-k2-instruct|compound", thinks="never"),
)
# https://docs.x.ai/docs/guides/reasoning, .../developers/model-capabilities/text/reasoning, and the models of
# https://models.dev (2026-10): most that think refuse the field.
_XAI_EFFORTS: Efforts = (
    Family(r"non-reasoning|grok-(?:2|3(?!-mini)|vision|beta)", thinks="never"),
    Family(r"grok-3-mini", ("low", "high"), thinks="always"),
    Family(r"multi-agent", _UP_TO_HIGH, thinks="always"),
    Family(r"grok-4\.3", _UP_TO_HIGH, off="none"),
    Family(r"grok-4(?:\.20|-|$)|grok-(?:code|build)", thinks="always"),
    Family(r"grok-(?:4\.[4-9]|[5-9])", _UP_TO_HIGH, thinks="always"),
)
# https://docs.z.ai: from GLM-5.2 on there are efforts; https://docs.together.ai/docs/glm-5.3-quickstart: and GLM-5.3
# always thinks.
_GLM_EFFORTS: Efforts = (
    Family(r"glm-(?:5\.[3-9]|[6-9])", ("low", "high"), thinks="always"),
    Family(r"glm-5\.2", ("low", "high")),
    Family(""),
)
_KIMI = OpenAIChat(
    limit="max_tokens",
    thinking="toggle",
    parameters=_without(OPENAI_PARAMETERS, "seed", "parallel_tool_calls", "logprobs", "top_logprobs", "user"),
)
_GLM = OpenAIChat(
    limit="max_tokens",
    thinking="toggle",
    efforts=_GLM_EFFORTS,
    schema="json_object",
    parameters={
        **_without(
            OPENAI_PARAMETERS,
            *("seed", "n", "frequency_penalty", "presence_penalty", "parallel_tool_calls", "logprobs", "top_logprobs"),
        ),
        "user": "user_id",
    },
)

# https://platform.openai.com/docs/guides/embeddings: how long the vectors of each model are.
_OPENAI_EMBEDDINGS = OpenAIEmbeddings(
    encoding_unless_asked="base64",
    dimensions_of={"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536},
)
# https://platform.openai.com/docs/guides/batch: "50% cost discount compared to synchronous APIs".
_HALF = Decimal("0.5")
_OPENAI_BATCHES = OpenAIBatches(price=_HALF)
# https://platform.openai.com/docs/guides/reasoning: chat completions forget the reasoning between the rounds of a turn,
# and some of these models are only served as responses.
_OPENAI_REASONERS = r"(?:ft:)?(?:o\d|gpt-(?:5(?!-chat)|[6-9])|codex|computer-use)"
# https://platform.openai.com/docs/api-reference/authentication
_OPENAI_ACCOUNT: dict[Account, str] = {"organization": "openai-organization", "project": "openai-project"}
# https://github.com/ggml-org/llama.cpp/issues/10887 brought base64; `dimensions` is passed over without a word.
_LLAMA_EMBEDDINGS = OpenAIEmbeddings(
    encoding_unless_asked="base64",
    parameters={
        **EMBEDDING_PARAMETERS,
        "dimensions": Unsupported("llama.cpp gives what its model has; cut the vectors and normalise them yourself"),
    },
)
# https://docs.mistral.ai/api/endpoint/embeddings. It takes 16,384 tokens ("Too many tokens in batch",
# https://github.com/aurelio-labs/semantic-router/issues/297) and refuses 257 inputs (recorded).
_MISTRAL_EMBEDDINGS = OpenAIEmbeddings(
    max_inputs=256,
    max_bytes=16_384,
    parameters={
        **EMBEDDING_PARAMETERS,
        "dimensions": "output_dimension",
        "user": Unsupported("Mistral has no word for it; it takes extra={'metadata': {…}}"),
    },
    dimensions_of={"mistral-embed": 1024},
)
# https://ai.google.dev/gemini-api/docs/embeddings: the lengths where none is asked for.
_GEMINI_DIMENSIONS = {"gemini-embedding-001": 3072, "gemini-embedding-2": 3072}
# https://docs.voyageai.com/reference/embeddings-api: 1,000 texts and, for most models, 120,000 tokens, none of which is
# less than a byte. It cuts what is too long unless told not to. Recorded: base64.
_VOYAGE_EMBEDDINGS = OpenAIEmbeddings(
    encoding_unless_asked="base64",
    says_float=False,
    unasked={"truncation": False},
    max_inputs=1000,
    max_bytes=120_000,
    parameters={
        "dimensions": "output_dimension",
        "encoding_format": "encoding_format",
        "input_type": "input_type",
        "user": Unsupported("Voyage has no field for your users; leave it out"),
    },
)
# https://api.jina.ai/redoc; "input length is larger than the largest allowed size 2048",
# https://github.com/refly-ai/refly/issues/831.
_JINA_EMBEDDINGS = OpenAIEmbeddings(
    max_bytes=None,
    parameters={
        "dimensions": "dimensions",
        "encoding_format": "embedding_type",
        "input_type": "task",
        "user": Unsupported("Jina has no field for your users; leave it out"),
    },
    input_types={"query": "retrieval.query", "document": "retrieval.passage"},
)

# https://platform.openai.com/docs/api-reference/images/createEdit; recorded: edits in JSON.
_OPENAI_IMAGES = OpenAIImages(edits="json", media=MediaRules())
# https://docs.x.ai/docs/guides/image-generation: shapes are told as aspect_ratio; recorded.
_XAI_IMAGES = OpenAIImages(
    edits=None,
    unasked={"response_format": "b64_json"},
    streams=False,
    parameters={
        **_without(IMAGE_PARAMETERS, "quality", "background", "format", "previews"),
        "size": Unsupported("xAI has ratios instead: extra={'aspect_ratio': '16:9'}"),
    },
)
# https://docs.mistral.ai/api/endpoint/audio; recorded, and the types of mistralai 3.7: a switch for speakers, a sound
# in JSON.
_MISTRAL_SPEECH = OpenAISpeech(
    parameters=_without(SPEECH_PARAMETERS, "speed", "instructions"),
    streaming={"stream": True},
    in_json="audio_data",
)
_MISTRAL_TRANSCRIPTS = OpenAITranscripts(
    asks="switch",
    parameters={
        **TRANSCRIPT_PARAMETERS,
        "diarize": "diarize",
        "prompt": Unsupported("Mistral has words that may come up: extra={'context_bias': […]}"),
        "translate": Unsupported("Mistral writes down what is said; translate the text"),
    },
)
_PLAIN_SPEECH = OpenAISpeech(parameters=_without(SPEECH_PARAMETERS, "instructions"))
_NO_SPEAKERS = OpenAITranscripts(parameters=_without(TRANSCRIPT_PARAMETERS, "diarize"))
_ONLY_WORDS = OpenAITranscripts(
    parameters=_without(TRANSCRIPT_PARAMETERS, "timestamps", "diarize", "translate"), streams=False
)

_LABS = (
    *(
        Provider(
            name,
            OpenAIChat(caching=OPENAI_CACHING),
            url="https://api.openai.com/v1",
            key="OPENAI_API_KEY",
            account_headers=_OPENAI_ACCOUNT,
            embeddings=_OPENAI_EMBEDDINGS,
            images=_OPENAI_IMAGES,
            speech=OpenAISpeech(),
            transcripts=OpenAITranscripts(),
            completions=OpenAICompletions(),
            batches=_OPENAI_BATCHES,
            by_model=others,
        )
        for name, others in (("openai", ((_OPENAI_REASONERS, OpenAIResponses(background=True)),)), ("openai-chat", ()))
    ),
    Provider(
        "openai-responses",
        OpenAIResponses(background=True),
        url="https://api.openai.com/v1",
        key="OPENAI_API_KEY",
        account_headers=_OPENAI_ACCOUNT,
        embeddings=_OPENAI_EMBEDDINGS,
        images=_OPENAI_IMAGES,
        speech=OpenAISpeech(),
        transcripts=OpenAITranscripts(),
        completions=OpenAICompletions(),
        batches=_OPENAI_BATCHES,
    ),
    Provider(
        "anthropic",
        Anthropic(),
        url="https://api.anthropic.com",
        key="ANTHROPIC_API_KEY",
        key_header="x-api-key",
        # https://docs.anthropic.com/en/docs/build-with-claude/batch-processing: half of everything, discounts of the
        # cache included.
        batches=AnthropicBatches(price=_HALF),
    ),
    # https://docs.cohere.com/v2/reference/chat. .../reference/embed: 96 texts. .../docs/reranking-best-practices:
    # 10,000 documents.
    Provider(
        "cohere",
        Cohere(),
        url="https://api.cohere.com/v2",
        key=("COHERE_API_KEY", "CO_API_KEY"),
        embeddings=CohereEmbeddings(dimensions_of={"embed-v4.0": 1536}),
        rerank=CohereRerank(max_documents=10_000),
        # https://docs.cohere.com/reference/create-audio-transcription; recorded.
        transcripts=OpenAITranscripts(
            parameters=_without(TRANSCRIPT_PARAMETERS, "prompt", "timestamps", "diarize", "translate"), streams=False
        ),
    ),
    # https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html: a key, or a signature with AWS's credentials.
    Provider(
        "bedrock",
        Bedrock(),
        url="https://bedrock-runtime.{AWS_REGION|AWS_DEFAULT_REGION}.amazonaws.com",
        key="AWS_BEARER_TOKEN_BEDROCK",
        cloud="aws",
        signing="bedrock",
    ),
    # https://ai.google.dev/gemini-api/docs/api-key: either variable; "google" is another name of the same.
    *(
        Provider(
            name,
            Gemini(),
            url="https://generativelanguage.googleapis.com/v1beta",
            key=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            key_header="x-goog-api-key",
            # "at most 100 requests can be in one batch", https://github.com/geldata/gel/issues/9032.
            embeddings=GeminiEmbeddings(dimensions_of=_GEMINI_DIMENSIONS),
            images=GeminiImages(),
            speech=GeminiSpeech(),
            transcripts=GeminiTranscripts(),
            # https://ai.google.dev/gemini-api/docs/batch-api: half, but what comes from the cache costs as always.
            batches=GeminiBatches(price=_HALF, full_price=frozenset({"cache_read"})),
        )
        for name in ("gemini", "google")
    ),
    # https://docs.mistral.ai/api: chat completions with contents of its own, and unknown fields are refused.
    Provider(
        "mistral",
        Mistral(),
        url="https://api.mistral.ai/v1",
        key="MISTRAL_API_KEY",
        embeddings=_MISTRAL_EMBEDDINGS,
        speech=_MISTRAL_SPEECH,
        transcripts=_MISTRAL_TRANSCRIPTS,
        # https://docs.mistral.ai/studio-api/batch-processing: "at a 50% discount".
        batches=MistralBatches(price=_HALF),
    ),
    # https://api-docs.deepseek.com/guides/thinking_mode, .../json_mode: "some JSON" only, thinking is a switch with two
    # efforts. Recorded: "Thinking mode does not support this tool_choice".
    Provider(
        "deepseek",
        OpenAIChat(
            limit="max_tokens",
            thinking="toggle",
            efforts=(Family("", ("low", "high")),),
            forced_thinking=False,
            schema="json_object",
            parameters={
                **OPENAI_PARAMETERS,
                "seed": Unsupported("DeepSeek has no seed; set temperature=0"),
                "parallel_tool_calls": Unsupported("DeepSeek has no such switch"),
                "n": Unsupported("DeepSeek gives one answer; ask several times"),
            },
            prefill=DEEPSEEK,
        ),
        url="https://api.deepseek.com",
        key="DEEPSEEK_API_KEY",
    ),
    # https://docs.x.ai/developers/rest-api-reference/inference; recorded: max_tokens, efforts, thinking sent back.
    *(
        Provider(
            name,
            replace(_COMPATIBLE, efforts=_XAI_EFFORTS),
            url="https://api.x.ai/v1",
            key="XAI_API_KEY",
            images=_XAI_IMAGES,
        )
        for name in ("xai", "grok")
    ),
    # https://docs.perplexity.ai/docs/sonar/openai-compatibility; recorded: efforts. It searches by itself.
    Provider(
        "perplexity",
        OpenAIChat(
            limit="max_tokens",
            parameters=_without(
                OPENAI_PARAMETERS, "seed", "n", "parallel_tool_calls", "logprobs", "top_logprobs", "user"
            ),
        ),
        url="https://api.perplexity.ai",
        key="PERPLEXITY_API_KEY",
    ),
    # https://platform.kimi.ai/docs/api/chat: one address for the world, one for China.
    Provider("moonshot", _KIMI, url="https://api.moonshot.ai/v1", key="MOONSHOT_API_KEY"),
    Provider("moonshot-cn", _KIMI, url="https://api.moonshot.cn/v1", key="MOONSHOT_API_KEY"),
    # https://docs.z.ai/guides/capabilities/thinking, https://open.bigmodel.cn; recorded: the switch.
    Provider("zai", _GLM, url="https://api.z.ai/api/paas/v4", key=("ZAI_API_KEY", "ZHIPU_API_KEY")),
    Provider("zhipu", _GLM, url="https://open.bigmodel.cn/api/paas/v4", key=("ZHIPU_API_KEY", "ZHIPUAI_API_KEY")),
    # https://www.alibabacloud.com/help/en/model-studio/deep-thinking: a switch and a budget beside the messages.
    # .../qwen-vl-compatible-with-openai: films.
    *(
        Provider(
            name,
            OpenAIChat(
                limit="max_tokens",
                thinking="switch",
                parameters={**_without(OPENAI_PARAMETERS, "frequency_penalty", "user"), "top_k": "top_k"},
                media=_WITH_FILMS,
            ),
            url=url,
            key="DASHSCOPE_API_KEY",
        )
        for name, url in (
            ("dashscope", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
            ("dashscope-cn", "https://dashscope.aliyuncs.com/compatible-mode/v1"),
        )
    ),
    # https://platform.minimax.io/docs/api-reference/text-openai-api: unasked, thinking stands as tags in the text.
    Provider(
        "minimax",
        OpenAIChat(
            thinking=None,
            parameters=_without(
                OPENAI_PARAMETERS,
                *("seed", "n", "frequency_penalty", "presence_penalty", "parallel_tool_calls"),
                *("logprobs", "top_logprobs", "user"),
            ),
        ),
        url="https://api.minimax.io/v1",
        key="MINIMAX_API_KEY",
        defaults={"extra": {"reasoning_split": True}},
    ),
    # https://platform.stepfun.com/docs/zh/api-reference/chat/chat-completion-create
    Provider("stepfun", _COMPATIBLE, url="https://api.stepfun.com/v1", key="STEPFUN_API_KEY"),
    # https://docs.inceptionlabs.ai/api-reference/chat/create-a-chat-completion
    Provider("inception", _COMPATIBLE, url="https://api.inceptionlabs.ai/v1", key="INCEPTION_API_KEY"),
    # https://developers.upstage.ai/docs/apis/chat
    Provider("upstage", _COMPATIBLE, url="https://api.upstage.ai/v1/solar", key="UPSTAGE_API_KEY"),
    # https://docs.ai21.com/reference/jamba-1-6-api-ref
    Provider(
        "ai21",
        OpenAIChat(
            limit="max_tokens",
            thinking=None,
            schema="json_object",
            parameters=_without(
                OPENAI_PARAMETERS,
                *("seed", "frequency_penalty", "presence_penalty", "parallel_tool_calls"),
                *("logprobs", "top_logprobs", "user"),
            ),
        ),
        url="https://api.ai21.com/studio/v1",
        key="AI21_API_KEY",
    ),
    # https://llama.developer.meta.com/docs/features/compatibility
    Provider("meta", _COMPATIBLE_SILENT, url="https://api.llama.com/compat/v1", key="LLAMA_API_KEY"),
)

# The places that are no region. Recorded, and in google-genai 3.4 and anthropic 2.12.
_VERTEX_HOSTS = {
    "global-aiplatform.googleapis.com": "aiplatform.googleapis.com",
    "us-aiplatform.googleapis.com": "aiplatform.us.rep.googleapis.com",
    "eu-aiplatform.googleapis.com": "aiplatform.eu.rep.googleapis.com",
}

_CLOUDS = (
    # https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle: the surface without api-version; a model's
    # id is the name of its deployment. Recorded: efforts, schemas.
    Provider(
        "azure",
        OpenAIChat(caching=OPENAI_CACHING),
        url="{AZURE_OPENAI_ENDPOINT}/openai/v1",
        key="AZURE_OPENAI_API_KEY",
        key_header="api-key",
        token_header="authorization",
        cloud="azure",
        embeddings=_OPENAI_EMBEDDINGS,
        images=OpenAIImages(),
        speech=OpenAISpeech(),
        transcripts=OpenAITranscripts(),
    ),
    Provider(
        "azure-responses",
        OpenAIResponses(background=True),
        url="{AZURE_OPENAI_ENDPOINT}/openai/v1",
        key="AZURE_OPENAI_API_KEY",
        key_header="api-key",
        token_header="authorization",
        cloud="azure",
        embeddings=_OPENAI_EMBEDDINGS,
        images=OpenAIImages(),
        speech=OpenAISpeech(),
        transcripts=OpenAITranscripts(),
    ),
    # https://cloud.google.com/vertex-ai/generative-ai/docs/start/api-keys; regions and variables of google-genai 3.4.
    Provider(
        "vertex",
        # "Unable to submit request because it must have a mimeType parameter":
        # https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference#filedata
        Gemini(typed_addresses=True),
        url="https://{GOOGLE_CLOUD_LOCATION|CLOUD_ML_REGION=global}-aiplatform.googleapis.com/v1/projects/"
        "{GOOGLE_CLOUD_PROJECT|GCLOUD_PROJECT}/locations/{GOOGLE_CLOUD_LOCATION|CLOUD_ML_REGION=global}"
        "/publishers/google",
        hosts=_VERTEX_HOSTS,
        key="GOOGLE_API_KEY",
        key_header="x-goog-api-key",
        token_header="authorization",
        cloud="google",
        # Recorded: embedContent with gemini-embedding-2. Where options stand is from google-genai 3.4. It cuts what is
        # too long unless told not to.
        embeddings=GeminiEmbeddings(
            method="embedContent",
            config="embedContentConfig",
            unasked={"autoTruncate": False},
            max_inputs=1,
            dimensions_of=_GEMINI_DIMENSIONS,
        ),
        # https://cloud.google.com/vertex-ai/generative-ai/docs/embeddings/get-text-embeddings: 250 texts and 20,000
        # tokens, none of which is less than a byte.
        embeddings_by_model=(
            (
                r"(?!.*(?:gemini|maas))",
                VertexEmbeddings(
                    max_bytes=20_000,
                    dimensions_of=dict.fromkeys(
                        ("text-embedding-004", "text-embedding-005", "text-multilingual-embedding-002"), 768
                    ),
                ),
            ),
        ),
        # Recorded: a format of pictures, which the Gemini API does not take.
        images=GeminiImages(parameters=VERTEX_IMAGE_PARAMETERS),
        speech=GeminiSpeech(),
        transcripts=GeminiTranscripts(),
    ),
    # https://docs.anthropic.com/en/api/claude-on-vertex-ai: the model in the address, the version in the body. Regions
    # and variables as in anthropic 2.12; that of the token, which lasts an hour, is Terraform's.
    Provider(
        "vertex-anthropic",
        Anthropic(host="vertex", media=CLOUD_MEDIA),
        url="https://{CLOUD_ML_REGION|GOOGLE_CLOUD_LOCATION=global}-aiplatform.googleapis.com/v1/projects/"
        "{ANTHROPIC_VERTEX_PROJECT_ID|GOOGLE_CLOUD_PROJECT|GCLOUD_PROJECT}"
        "/locations/{CLOUD_ML_REGION|GOOGLE_CLOUD_LOCATION=global}/publishers/anthropic",
        hosts=_VERTEX_HOSTS,
        key="GOOGLE_OAUTH_ACCESS_TOKEN",
        cloud="google",
    ),
    # https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/api-reference; recorded: tools, schemas.
    Provider(
        "databricks",
        OpenAIChat(limit="max_tokens", parameters={**OPENAI_PARAMETERS, "top_k": "top_k"}),
        url="{DATABRICKS_HOST}/serving-endpoints",
        key="DATABRICKS_TOKEN",
    ),
    # https://docs.snowflake.com/en/user-guide/snowflake-cortex/cortex-rest-api; recorded: reasoning as an object.
    Provider(
        "snowflake",
        OpenAIChat(thinking="reasoning"),
        url="https://{SNOWFLAKE_ACCOUNT}.snowflakecomputing.com/api/v2/cortex/v1",
        key=("SNOWFLAKE_CORTEX_PAT", "SNOWFLAKE_PAT"),
    ),
    # https://developers.cloudflare.com/workers-ai/configuration/open-ai-compatibility/; recorded: schemas, seed.
    Provider(
        "cloudflare",
        _COMPATIBLE_SILENT,
        url="https://api.cloudflare.com/client/v4/accounts/{CLOUDFLARE_ACCOUNT_ID}/ai/v1",
        key=("CLOUDFLARE_API_TOKEN", "CLOUDFLARE_API_KEY"),
    ),
    # https://docs.github.com/en/github-models; recorded: tools, tool_choice, schemas.
    Provider("github", url="https://models.github.ai/inference", key="GITHUB_TOKEN"),
)

_HOSTS = (
    # https://console.groq.com/docs/reasoning: thinking comes as `reasoning` and is not taken back. Recorded: "none".
    Provider(
        "groq",
        OpenAIChat(replay_thinking=False, efforts=_GROQ_EFFORTS),
        url="https://api.groq.com/openai/v1",
        key="GROQ_API_KEY",
        # https://console.groq.com/docs/speech-to-text, .../text-to-speech
        speech=_PLAIN_SPEECH,
        transcripts=replace(_NO_SPEAKERS, streams=False),
    ),
    # https://inference-docs.cerebras.ai/resources/openai: these are refused with 400. Recorded: effort "none".
    Provider(
        "cerebras",
        OpenAIChat(
            no_thinking=_NO_EFFORT,
            parameters=_without(
                OPENAI_PARAMETERS,
                *("frequency_penalty", "presence_penalty", "parallel_tool_calls"),
                why="Cerebras refuses it",
            ),
        ),
        url="https://api.cerebras.ai/v1",
        key="CEREBRAS_API_KEY",
    ),
    # https://docs.sambanova.ai/docs/en/features/openai-compatibility: these are passed over.
    Provider(
        "sambanova",
        OpenAIChat(
            limit="max_tokens",
            parameters={
                **_without(
                    OPENAI_PARAMETERS,
                    *("logprobs", "top_logprobs", "n", "frequency_penalty", "presence_penalty"),
                    why="SambaNova passes over it",
                ),
                "top_k": "top_k",
            },
        ),
        url="https://api.sambanova.ai/v1",
        key="SAMBANOVA_API_KEY",
    ),
    # https://docs.together.ai/reference/chat-completions, .../docs/inference/chat/reasoning
    Provider(
        "together",
        OpenAIChat(limit="max_tokens", parameters=OPEN_PARAMETERS, no_thinking={"reasoning": {"enabled": False}}),
        url="https://api.together.ai/v1",
        key="TOGETHER_API_KEY",
        embeddings=OpenAIEmbeddings(),
    ),
    # https://docs.fireworks.ai/api-reference/post-chatcompletions, .../guides/reasoning, .../guides/completions-api
    Provider(
        "fireworks",
        _OPEN,
        url="https://api.fireworks.ai/inference/v1",
        key="FIREWORKS_API_KEY",
        embeddings=OpenAIEmbeddings(),
        completions=_OPEN_COMPLETIONS,
    ),
    # https://docs.deepinfra.com/chat/reasoning: effort "none" turns it off.
    Provider(
        "deepinfra",
        OpenAIChat(limit="max_tokens", parameters=OPEN_PARAMETERS, no_thinking=_NO_EFFORT),
        url="https://api.deepinfra.com/v1/openai",
        key=("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"),
        embeddings=OpenAIEmbeddings(),
    ),
    # https://docs.api.nvidia.com/nim/reference/llm-apis: each model has a closed list of fields, these are on most.
    Provider(
        "nvidia",
        OpenAIChat(
            limit="max_tokens",
            thinking=None,
            parameters=_without(
                OPENAI_PARAMETERS,
                *("n", "parallel_tool_calls", "logprobs", "top_logprobs", "user"),
                why="NVIDIA's models refuse fields they do not list",
            ),
        ),
        url="https://integrate.api.nvidia.com/v1",
        key="NVIDIA_API_KEY",
    ),
    # https://docs.hyperbolic.xyz/docs/rest-api
    Provider(
        "hyperbolic",
        OpenAIChat(limit="max_tokens", parameters=OPEN_PARAMETERS, thinking=None),
        url="https://api.hyperbolic.xyz/v1",
        key="HYPERBOLIC_API_KEY",
    ),
    # https://docs.siliconflow.com/en/api-reference/chat-completions/chat-completions: a switch and a budget.
    Provider(
        "siliconflow",
        OpenAIChat(limit="max_tokens", thinking="switch", parameters=_without(OPEN_PARAMETERS, "repetition_penalty")),
        url="https://api.siliconflow.com/v1",
        key="SILICONFLOW_API_KEY",
    ),
    # https://novita.ai/docs/api-reference/model-apis-llm-create-chat-completion
    Provider("novita", _OPEN_SWITCH, url="https://api.novita.ai/openai/v1", key="NOVITA_API_KEY"),
    # https://docs.tokenfactory.nebius.com/api-reference/inference/create-chat-completion
    Provider("nebius", _OPEN, url="https://api.tokenfactory.nebius.com/v1", key="NEBIUS_API_KEY"),
    # https://friendli.ai/docs/openapi/model-apis/chat-completions
    Provider("friendli", _OPEN_TEMPLATE, url="https://api.friendli.ai/serverless/v1", key="FRIENDLI_TOKEN"),
    # https://docs.baseten.co/reference/inference-api/chat-completions
    Provider("baseten", _OPEN, url="https://inference.baseten.co/v1", key="BASETEN_API_KEY"),
    # https://chutes.ai/docs/guides/reasoning-models: the chat template of the model decides.
    Provider("chutes", _OPEN_TEMPLATE, url="https://llm.chutes.ai/v1", key="CHUTES_API_KEY"),
    # https://docs.venice.ai; recorded: the switch that turns thinking off, schemas.
    Provider(
        "venice",
        OpenAIChat(
            limit="max_tokens",
            parameters=OPEN_PARAMETERS,
            no_thinking={"venice_parameters": {"disable_thinking": True}},
        ),
        url="https://api.venice.ai/api/v1",
        key="VENICE_API_KEY",
        embeddings=OpenAIEmbeddings(),
        # https://docs.venice.ai/api-reference; recorded, as far as speech and transcripts go.
        images=OpenAIImages(edits=None, streams=False),
        speech=_PLAIN_SPEECH,
        transcripts=_ONLY_WORDS,
    ),
    # https://docs.doubleword.ai/inference-api; recorded: effort "none", seed, schemas, thinking sent back.
    Provider(
        "doubleword",
        OpenAIChat(limit="max_tokens", no_thinking=_NO_EFFORT),
        url="https://api.doubleword.ai/v1",
        key="DOUBLEWORD_API_KEY",
        embeddings=OpenAIEmbeddings(),
    ),
    # https://www.scaleway.com/en/docs/generative-apis/how-to/query-reasoning-models/: effort "none" turns it off.
    Provider(
        "scaleway",
        OpenAIChat(limit="max_tokens", no_thinking=_NO_EFFORT),
        url="https://api.scaleway.ai/v1",
        key="SCALEWAY_API_KEY",
    ),
    # https://www.ovhcloud.com/en/public-cloud/ai-endpoints/catalog/
    Provider("ovhcloud", _COMPATIBLE, url="https://oai.endpoints.kepler.ai.cloud.ovh.net/v1", key="OVHCLOUD_API_KEY"),
    # https://docs.wandb.ai/inference/response-settings/reasoning
    Provider("wandb", _OPEN_TEMPLATE, url="https://api.inference.wandb.ai/v1", key="WANDB_API_KEY"),
    # https://api.vultrinference.com/: OpenRouter's object.
    Provider("vultr", _OPEN_REASONING, url="https://api.vultrinference.com/v1", key="VULTR_API_KEY"),
    # https://io.net/docs/guides/intelligence/reasoning-for-chat-completions
    Provider(
        "io-net",
        _COMPATIBLE,
        url="https://api.intelligence.io.solutions/api/v1",
        key="IOINTELLIGENCE_API_KEY",
    ),
    # https://docs.ollama.com/cloud, .../api/openai-compatibility; recorded: thinking sent back.
    Provider(
        "ollama-cloud",
        OpenAIChat(limit="max_tokens", no_thinking=_NO_EFFORT, media=_FETCHES_NOTHING),
        url="https://ollama.com/v1",
        key="OLLAMA_API_KEY",
    ),
)

_GATEWAYS = (
    # https://openrouter.ai/docs/use-cases/reasoning-tokens, .../guides/overview/multimodal/pdfs, .../audio, .../videos,
    # .../guides/best-practices/prompt-caching: whose models are told where to keep a prompt.
    Provider(
        "openrouter",
        replace(
            _OPEN_REASONING,
            media=_OPENROUTER_MEDIA,
            prefill=CLAUDE,
            caching=Caching(
                marked=re.compile("^~?(?:anthropic|google|qwen)/"), with_tools=False, least=LEAST_OF_CLAUDE
            ),
        ),
        url="https://openrouter.ai/api/v1",
        key="OPENROUTER_API_KEY",
        embeddings=OpenAIEmbeddings(),
        # https://openrouter.ai/docs/guides/evaluate-and-optimize/rag; recorded.
        rerank=CohereRerank(),
        # Recorded.
        transcripts=_ONLY_WORDS,
    ),
    # https://huggingface.co/docs/inference-providers; recorded: schemas, tool_choice.
    *(
        Provider(name, _COMPATIBLE, url="https://router.huggingface.co/v1", key=("HF_TOKEN", "HUGGINGFACE_API_KEY"))
        for name in ("huggingface", "hf")
    ),
    # https://vercel.com/docs/ai-gateway/sdks-and-apis/openai-chat-completions/advanced; recorded: its object.
    # .../docs/ai-gateway/models-and-providers/automatic-caching: Claude keeps what is marked, the others by themselves.
    Provider(
        "vercel",
        OpenAIChat(
            limit="max_tokens",
            thinking="reasoning",
            caching=Caching(marked=re.compile("^anthropic/"), with_tools=False, least=LEAST_OF_CLAUDE),
        ),
        url="https://ai-gateway.vercel.sh/v1",
        key="AI_GATEWAY_API_KEY",
        embeddings=OpenAIEmbeddings(),
    ),
    # https://docs.requesty.ai/quickstart
    Provider("requesty", _COMPATIBLE, url="https://router.requesty.ai/v1", key="REQUESTY_API_KEY"),
    # https://docs.helicone.ai/rest/ai-gateway/post-v1-chat-completions
    Provider("helicone", _COMPATIBLE, url="https://ai-gateway.helicone.ai/v1", key="HELICONE_API_KEY"),
    # https://creator.poe.com/docs/external-applications/openai-compatible-api
    Provider("poe", _COMPATIBLE, url="https://api.poe.com/v1", key="POE_API_KEY"),
    # https://docs.aihubmix.com/cn/api/unified-inference
    Provider("aihubmix", _COMPATIBLE, url="https://aihubmix.com/v1", key="AIHUBMIX_API_KEY"),
    # https://docs.litellm.ai/docs/proxy/user_keys; recorded: n, usage of streams. Asks for a key if it was given one.
    Provider(
        "litellm",
        _OPEN,
        url="http://localhost:4000",
        key=("LITELLM_PROXY_API_KEY", "LITELLM_API_KEY"),
        is_key_optional=True,
        embeddings=OpenAIEmbeddings(),
        # https://docs.litellm.ai/docs/text_completion
        completions=_OPEN_COMPLETIONS,
        # https://docs.litellm.ai/docs/image_generation, .../text_to_speech, .../audio_transcription
        images=OpenAIImages(),
        speech=OpenAISpeech(),
        transcripts=OpenAITranscripts(),
    ),
)

# Who serves search, and holds no conversations.
_SEARCH = (
    # https://docs.voyageai.com/reference/reranker-api: 1,000 documents, cut unless told not to. Recorded.
    Provider(
        "voyage",
        url="https://api.voyageai.com/v1",
        key="VOYAGE_API_KEY",
        embeddings=_VOYAGE_EMBEDDINGS,
        rerank=CohereRerank(top_n="top_k", rows="data", unasked={"truncation": False}, max_documents=1000),
        has_chat=False,
    ),
    # https://api.jina.ai/redoc: the documents come back unless told not to.
    Provider(
        "jina",
        url="https://api.jina.ai/v1",
        key="JINA_API_KEY",
        embeddings=_JINA_EMBEDDINGS,
        rerank=CohereRerank(unasked={"return_documents": False}),
        has_chat=False,
    ),
    # https://huggingface.co/docs/text-embeddings-inference/cli_arguments: --max-client-batch-size is 32.
    Provider(
        "tei",
        url="http://localhost:8080",
        embeddings=TeiEmbeddings(),
        rerank=TeiRerank(),
        has_chat=False,
    ),
)

# Servers on one's own machine. Their keys, if any, are made up by who starts them: pass api_key=.
_LOCAL = (
    # https://docs.ollama.com/api; its own format has num_ctx, without which it cuts the context in silence.
    Provider("ollama", Ollama(), url="http://localhost:11434", embeddings=OllamaEmbeddings(), pull=OllamaPull()),
    # https://docs.ollama.com/api/openai-compatibility
    *(
        Provider(
            name,
            OpenAIChat(limit="max_tokens", media=_FETCHES_NOTHING),
            url="http://localhost:11434/v1",
            embeddings=OpenAIEmbeddings(),
        )
        for name in ("ollama-compat", "ollama-openai")
    ),
    # https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md; recorded.
    *(
        Provider(
            name,
            _LLAMA,
            url="http://localhost:8080/v1",
            embeddings=_LLAMA_EMBEDDINGS,
            rerank=CohereRerank(),
            completions=_LLAMA_COMPLETIONS,
        )
        # https://github.com/mozilla-ai/llamafile: llama.cpp's server in a file.
        for name in ("llama-server", "llamaserver", "llamafile")
    ),
    # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html, .../features/multimodal_inputs.html; base64
    # since vllm-project/vllm#5935.
    Provider(
        "vllm",
        replace(_OWN_SERVER, prefill=CONTINUED),
        url="http://localhost:8000/v1",
        embeddings=OpenAIEmbeddings(encoding_unless_asked="base64"),
        rerank=CohereRerank(),
        # Recorded, as far as OpenAI's own parameters go.
        completions=_OPEN_COMPLETIONS,
        # https://docs.vllm.ai/en/stable/serving/openai_compatible_server.html
        transcripts=_NO_SPEAKERS,
    ),
    # https://docs.sglang.ai/basic_usage/openai_api_completions.html, .../openai_api_vision.html
    Provider(
        "sglang",
        replace(_OWN_SERVER, prefill=CONTINUED),
        url="http://localhost:30000/v1",
        embeddings=OpenAIEmbeddings(),
        completions=_OPEN_COMPLETIONS,
    ),
    # https://github.com/jundot/omlx
    Provider("omlx", _OPEN_TEMPLATE, url="http://localhost:8000/v1", embeddings=OpenAIEmbeddings()),
    # https://lmstudio.ai/docs/developer/openai-compat/chat-completions, .../completions: a closed list of fields.
    Provider(
        "lmstudio",
        OpenAIChat(
            limit="max_tokens",
            thinking=None,
            parameters={
                **_without(OPENAI_PARAMETERS, "n", "user", "parallel_tool_calls", "logprobs", "top_logprobs"),
                "top_k": "top_k",
                "repetition_penalty": "repeat_penalty",
            },
            media=_FETCHES_NOTHING,
        ),
        url="http://localhost:1234/v1",
        embeddings=OpenAIEmbeddings(),
        completions=OpenAICompletions(
            parameters={
                **_without(COMPLETION_PARAMETERS, "n", "user", "logprobs", "top_logprobs"),
                "top_k": "top_k",
                "repetition_penalty": "repeat_penalty",
            },
        ),
    ),
    # https://huggingface.co/docs/transformers/serve-cli/serving, and tests/real_servers: `transformers serve`.
    *(
        Provider(
            name,
            OpenAIChat(
                limit="max_tokens",
                parameters={**OPENAI_PARAMETERS, **_NOT_SERVED},
                thinking="template",
                schema=None,
                tool_choice=None,
            ),
            url="http://localhost:8000/v1",
            completions=OpenAICompletions(parameters={**COMPLETION_PARAMETERS, **_NOT_SERVED}),
        )
        for name in ("transformers-serve", "hf-openai")
    ),
    # https://llama-cpp-python.readthedocs.io/en/latest/server/, and tests/real_servers: `python -m llama_cpp.server`.
    Provider(
        "llama-cpp-python",
        OpenAIChat(
            limit="max_tokens",
            parameters={**_LLAMA_PARAMETERS, **_passed_over("n", "user", "parallel_tool_calls")},
            thinking=None,
            schema="json_object.schema",
            subset=LLAMA_CPP,
            tool_choice="name",
            says_null=False,
        ),
        url="http://localhost:8000/v1",
        embeddings=OpenAIEmbeddings(
            parameters={**EMBEDDING_PARAMETERS, **_passed_over("dimensions", "encoding_format", "user")}
        ),
        completions=OpenAICompletions(
            parameters={
                **OPEN_COMPLETION_PARAMETERS,
                "repetition_penalty": "repeat_penalty",
                **_passed_over("n", "user"),
            }
        ),
    ),
    # https://huggingface.co/docs/text-generation-inference/messages_api
    Provider("tgi", _COMPATIBLE_SILENT, url="http://localhost:8080/v1"),
    # https://localai.io/features/openai-functions/
    Provider(
        "localai",
        _OPEN_TEMPLATE,
        url="http://localhost:8080/v1",
        embeddings=OpenAIEmbeddings(),
        # https://localai.io/features/image-generation/, .../text-to-audio/, .../audio-to-text/
        images=OpenAIImages(edits=None, unasked={"response_format": "b64_json"}, streams=False),
        speech=_PLAIN_SPEECH,
        transcripts=replace(_NO_SPEAKERS, streams=False),
    ),
    # https://jan.ai/docs/desktop/api-server: llama.cpp's server behind it.
    Provider("jan", _LLAMA, url="http://localhost:1337/v1", completions=_LLAMA_COMPLETIONS),
    # https://github.com/LostRuins/koboldcpp/wiki
    Provider(
        "koboldcpp",
        OpenAIChat(
            limit="max_tokens",
            thinking=None,
            parameters={**OPEN_PARAMETERS, "repetition_penalty": "rep_pen"},
        ),
        url="http://localhost:5001/v1",
    ),
    # https://github.com/EricLBuehler/mistral.rs/blob/master/docs/HTTP.md; recorded: usage of streams.
    Provider("mistralrs", _OPEN_SWITCH, url="http://localhost:1234/v1"),
    # https://docs.docker.com/ai/model-runner/api-reference/: llama.cpp's server behind it.
    Provider("docker-model-runner", _LLAMA, url="http://localhost:12434/engines/v1", completions=_LLAMA_COMPLETIONS),
    # https://docs.gpustack.ai: everyone's own address. Recorded: the switch, thinking sent back.
    Provider("gpustack", _OPEN_SWITCH),
    # Any other server of chat completions, at an address of one's own.
    Provider(
        "openai-compat",
        _OWN_SERVER,
        embeddings=OpenAIEmbeddings(),
        completions=_OPEN_COMPLETIONS,
        is_generic=True,
        images=OpenAIImages(),
        speech=OpenAISpeech(),
        transcripts=OpenAITranscripts(),
    ),
)

_IN_PROCESS = (
    Provider("llamacpp", _LLAMA_HERE, engine="llama_cpp", completions=_LLAMA_COMPLETIONS),
    # The model in the package. It thinks when asked, which llama.cpp would otherwise make it do always.
    Provider(
        "pico",
        replace(_LLAMA_HERE, thinking_unless_asked=False),
        engine="llama_cpp",
        model="pico",
        capabilities=frozenset({"tools", "thinking", "structured"}),
        # At this size chance is no help, and an answer that has lost its way does not find its end.
        defaults={"temperature": 0.0, "max_tokens": 512},
        completions=_LLAMA_COMPLETIONS,
    ),
)

ROWS: tuple[Provider, ...] = (*_LABS, *_CLOUDS, *_HOSTS, *_GATEWAYS, *_SEARCH, *_LOCAL, *_IN_PROCESS)
