"""Models for a real server, written here and now: nothing is downloaded.

A random Llama with a byte-level tokenizer says printable nonsense of exactly the length asked for, and
calls tools and writes JSON where the server's grammar leads it;
all-MiniLM-L6-v2 is the model that K-9 itself embeds with, in the file format of llama.cpp.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, PoolingType, TokenType

from k9_broker.minilm.weights import read_safetensors

SPECIAL = ["<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
BEGIN, END = 0, 1
LETTERS = len(SPECIAL)
"""The token of byte 0."""
CALL = LETTERS + 256
"""The token that begins a call of a tool, in one: a caller who gives it a bias gets a call."""

TEMPLATE = r"""
{%- if tools %}
    {{- '<|system|>You may call these tools:' }}
    {%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '<|end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|' + message.role + '|>' }}
    {%- if message.content %}{{- message.content }}{%- endif %}
    {%- if message.tool_calls %}
        {%- for call in message.tool_calls %}
            {{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
    {%- endif %}
    {{- '<|end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}
"""
"""Hermes' way of calling tools, from which the server derives the grammar of a forced call."""

QUIET = -30.0
"""Added to the score of a token: it is not said unless a grammar leaves no other."""


def byte_letters() -> list[str]:
    """The character that stands for each byte in GPT-2's vocabulary.

    Source: openai/gpt-2, src/encoder.py, `bytes_to_unicode`: printable Latin-1 stands for itself, the
    others are numbered from U+0100.
    """
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def write_llama(path: Path, *, width: int = 64, layers: int = 2, context: int = 4096, seed: int = 0) -> Path:
    """A random Llama of `layers` layers, `width` a multiple of 4 heads."""
    rng = np.random.default_rng(seed)
    heads, groups, inner = 4, 2, width * 2
    letters = byte_letters()
    tokens = [*SPECIAL, *letters, "<tool_call>" + letters[ord("\n")]]
    kinds = [TokenType.CONTROL] * len(SPECIAL) + [TokenType.NORMAL] * 257

    out = GGUFWriter(path, "llama")
    out.add_name(path.stem)
    out.add_context_length(context)
    out.add_embedding_length(width)
    out.add_block_count(layers)
    out.add_feed_forward_length(inner)
    out.add_head_count(heads)
    out.add_head_count_kv(groups)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(width // heads)
    out.add_vocab_size(len(tokens))
    _add_tokens(out, "gpt2", "default", tokens, kinds)
    out.add_token_merges(["t h"])  # the format wants one; without the joined token it never applies
    out.add_bos_token_id(BEGIN)
    out.add_eos_token_id(END)
    out.add_add_bos_token(True)
    out.add_chat_template(TEMPLATE.strip())

    def random(*shape: int) -> Any:
        return rng.normal(0, 0.08, shape).astype(np.float32)

    ones = np.ones(width, np.float32)
    narrow = width // heads * groups
    words, scores = random(len(tokens), width), random(len(tokens), width)
    # The first number of every token is large, and after the last norm about the root of the width: the first
    # column of the scores adds the same to a token whatever was said before.
    words[:, 0] = 4.0
    scores[:, 0] = 0.0
    spoken = range(LETTERS + 0x20, LETTERS + 0x7F)
    scores[[token for token in range(len(tokens)) if token not in spoken], 0] = QUIET / width**0.5

    out.add_tensor("token_embd.weight", words)
    out.add_tensor("output_norm.weight", ones)
    out.add_tensor("output.weight", scores)
    for layer in range(layers):
        shapes = {
            "attn_q": (width, width),
            "attn_k": (narrow, width),
            "attn_v": (narrow, width),
            "attn_output": (width, width),
            "ffn_gate": (inner, width),
            "ffn_up": (inner, width),
            "ffn_down": (width, inner),
        }
        for name in ("attn_norm", "ffn_norm"):
            out.add_tensor(f"blk.{layer}.{name}.weight", ones)
        for name, shape in shapes.items():
            out.add_tensor(f"blk.{layer}.{name}.weight", random(*shape))
    return _written(out, path)


def write_minilm(folder: Path, path: Path) -> Path:
    """The model in `folder` (safetensors, vocabulary) with mean pooling."""
    config = json.loads((folder / "config.json").read_text())
    weights = read_safetensors(folder / "model.safetensors")
    vocabulary = (folder / "vocab.txt").read_text("utf-8").split("\n")[: config["vocab_size"]]

    out = GGUFWriter(path, "bert")
    out.add_name(path.stem)
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(config["num_attention_heads"])
    out.add_layer_norm_eps(config["layer_norm_eps"])
    out.add_causal_attention(False)
    out.add_pooling_type(PoolingType.MEAN)

    # WordPiece marks what continues a word (`##ing`), llama.cpp what begins one.
    special = {"[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"}
    tokens = [
        token if token in special else token[2:] if token.startswith("##") else f"\u2581{token}"
        for token in vocabulary
    ]
    kinds = [TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens]
    kinds[tokens.index("[UNK]")] = TokenType.UNKNOWN
    _add_tokens(out, "bert", "jina-v2-en", tokens, kinds)
    out.add_token_type_count(config["type_vocab_size"])
    out.add_bos_token_id(tokens.index("[CLS]"))
    out.add_eos_token_id(tokens.index("[SEP]"))
    out.add_sep_token_id(tokens.index("[SEP]"))
    out.add_unk_token_id(tokens.index("[UNK]"))
    out.add_pad_token_id(tokens.index("[PAD]"))
    out.add_mask_token_id(tokens.index("[MASK]"))

    for theirs, ours in _minilm_names(config["num_hidden_layers"]).items():
        for part in ("weight", "bias"):
            if f"{theirs}.{part}" in weights:
                numbers = np.ascontiguousarray(weights[f"{theirs}.{part}"], np.float32)
                out.add_tensor(f"{ours}.{part}", numbers)
    return _written(out, path)


def _minilm_names(layers: int) -> dict[str, str]:
    names = {
        "embeddings.word_embeddings": "token_embd",
        "embeddings.position_embeddings": "position_embd",
        "embeddings.token_type_embeddings": "token_types",
        "embeddings.LayerNorm": "token_embd_norm",
    }
    parts = {
        "attention.self.query": "attn_q",
        "attention.self.key": "attn_k",
        "attention.self.value": "attn_v",
        "attention.output.dense": "attn_output",
        "attention.output.LayerNorm": "attn_output_norm",
        "intermediate.dense": "ffn_up",
        "output.dense": "ffn_down",
        "output.LayerNorm": "layer_output_norm",
    }
    for layer in range(layers):
        names |= {f"encoder.layer.{layer}.{long}": f"blk.{layer}.{short}" for long, short in parts.items()}
    return names


def _add_tokens(out: GGUFWriter, model: str, split: str, tokens: list[str], kinds: list[TokenType]) -> None:
    out.add_tokenizer_model(model)
    out.add_tokenizer_pre(split)
    out.add_token_list(tokens)
    out.add_token_types([int(kind) for kind in kinds])


def _written(out: GGUFWriter, path: Path) -> Path:
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path
