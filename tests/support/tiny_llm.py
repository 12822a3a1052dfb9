"""A tiny Llama with random weights, a tokenizer trained on the spot and a preference dataset: enough for TRL to train on."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

WORDS = "red green blue good bad small large quick slow warm cold the a of and is was very not".split()  # noqa: SIM905


def make_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.add_special_tokens(["<pad>", "<eos>", "<unk>"])
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def save_model(folder: Path, seed: int = 0) -> Path:
    """Model and tokenizer in a folder that `from_pretrained` reads; about 20,000 weights in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, pad_token_id=0, eos_token_id=1,
        bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pairs(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Prompts with a chosen and a rejected completion of different lengths."""
    rng = random.Random(seed)

    def text(low: int, high: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))

    return [{"prompt": text(2, 5), "chosen": " " + text(1, 6), "rejected": " " + text(1, 6)} for _ in range(count)]
