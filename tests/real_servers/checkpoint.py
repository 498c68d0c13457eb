"""Writes Pico as a checkpoint of transformers, from the GGUF in the package. A program: checkpoint.py GGUF FOLDER"""

from __future__ import annotations

import sys
from pathlib import Path

from gguf import GGUFReader
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main(weights: Path, folder: Path) -> None:
    source = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
    config = AutoConfig.from_pretrained(**source)
    # The loader takes the length of a head for the usual one.
    config.head_dim = int(GGUFReader(weights).fields["qwen3.attention.key_length"].contents())
    whole = GgufConfig(dequantize=True)
    AutoModelForCausalLM.from_pretrained(**source, config=config, quantization_config=whole).save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
