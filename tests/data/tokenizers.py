"""Small real tokenizers, so that any text goes in and comes out unchanged, and chat templates of many kinds."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from trex_ds.data.encoding import Encoded, encode_examples
from trex_ds.tasks.base import Example

_TEXTS = ["how many letters", "the answer is seven"] * 3

# SmolLM2's, with a shorter default system message.
CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML


# Chat templates in the shape that families of models have, written for these tests.
_ALTERNATE = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    + _ALTERNATE
    + "{% for message in messages %}{{ '<start_of_turn>' + ('user' if message['role'] == 'user' else 'model') + '\n'"
    " + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
    "{% for message in rest %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}" + _ALTERNATE + "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)
QWEN = CHATML.replace("loop.first and message['role'] != 'system'", "false")
NO_GENERATION_PROMPT = CHATML[: CHATML.index("{% if add_generation_prompt")]
# The last answer has an empty block of thoughts, the generation prompt has none.
THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if loop.last and message['role'] == 'assistant' and '</think>' not in message['content'] %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] if loop.last else message['content'].split('</think>')[-1].lstrip('\n') }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The generation prompt opens a block of thoughts, and answers are written without.
REASONING = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}"
)
# The last message ends otherwise than the others.
CHANNELS = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '<|message|>' + message['content'] }}"
    "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
# No token ends an answer.
OPEN_ENDED = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
CONTROL_TOKENS = [
    *("<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|start_header_id|>"),
    *("<|end_header_id|>", "<|eot_id|>", "<|start|>", "<|message|>", "<|return|>", "<|endoftext|>"),
]


def make_tokenizer(
    chat_template: str | None = None,
    *,
    bos: bool = False,
    final_eos: bool = False,
    eos_token: str | None = "<|im_end|>",
    sentencepiece: bool = False,
) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes, or one that marks words by a space before each, as those made by SentencePiece do.

    Args:
        chat_template: of conversations.
        bos: whether it puts `<s>` before every text of its own accord.
        final_eos: whether it puts `<|im_end|>` after it.
        eos_token: its end of sequence.
        sentencepiece: whether a text begins with the mark of a word, and rare characters are bytes.
    """
    specials = ["<pad>", "<s>", "<|im_start|>", "<|im_end|>"]
    tokenizer = _words(specials) if sentencepiece else _bytes(specials)
    if bos or final_eos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=("<s> " if bos else "") + "$A" + (" <|im_end|>" if final_eos else ""),
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("<s>", "<|im_end|>")],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token=eos_token,
        chat_template=chat_template,
    )


def with_control_tokens(chat_template: str, *, eos_token: str, sentencepiece: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer with the control tokens of all the templates above."""
    tokenizer = make_tokenizer(chat_template, bos=True, eos_token=eos_token, sentencepiece=sentencepiece)
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    return tokenizer


def _bytes(specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(_TEXTS, trainer)
    return tokenizer


def _words(specials: list[str]) -> Tokenizer:
    """A tokenizer like LLaMA-2's: a space before every text between special tokens; spaces are part of words."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    letters = [chr(i) for i in range(33, 127)]
    trained.train_from_iterator(_TEXTS, trainers.BpeTrainer(vocab_size=200, initial_alphabet=letters))
    model = json.loads(trained.to_str())["model"]
    names = [*specials, "<unk>", *(f"<0x{i:02X}>" for i in range(256)), *model["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={name: i for i, name in enumerate(names)},
            merges=[tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(specials)
    return tokenizer


def encode_example(tokenizer: Any, example: Example, system_prompt: str | None) -> Encoded:
    """The row of one example."""
    return encode_examples(tokenizer, [example], system_prompt)[0]
