"""What is learned of conversations, against what `apply_chat_template` of the tokenizer itself gives."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from tests.data import tokenizers
from tests.data.tokenizers import encode_example, with_control_tokens
from trex_ds.data.encoding import encode_examples, encode_prompt, turn_ends
from trex_ds.data.templates import template_of
from trex_ds.tasks.base import Example
from trex_ds.tasks.records import parse

EXAMPLE = Example("how many letters?", "seven", "letters")
TALK = replace(
    EXAMPLE, history=(("user", "the answer is"), ("assistant", "how  many\nletters"), ("user", "s"), ("assistant", "x"))
)
# Template, the tokenizer's end of sequence, the token that ends a turn, and what is learned of the answer "seven".
FAMILIES = {
    "gemma": (tokenizers.GEMMA, "<|endoftext|>", "<end_of_turn>", "seven<end_of_turn>"),
    "phi-3": (tokenizers.PHI3, "<|endoftext|>", "<|end|>", "seven<|end|>"),
    "llama-2": (tokenizers.LLAMA2, "<|im_end|>", "<|im_end|>", " seven <|im_end|>"),
    "llama-3": (tokenizers.LLAMA3, "<|endoftext|>", "<|eot_id|>", "seven<|eot_id|>"),
    "mistral": (tokenizers.MISTRAL, "<|im_end|>", "<|im_end|>", "seven<|im_end|>"),
    "qwen": (tokenizers.QWEN, "<|endoftext|>", "<|im_end|>", "seven<|im_end|>"),
    "smollm2": (tokenizers.CHATML, "<|im_end|>", "<|im_end|>", "seven<|im_end|>"),
    "no generation prompt": (tokenizers.NO_GENERATION_PROMPT, "<|im_end|>", "<|im_end|>", "seven<|im_end|>"),
    "thinking": (tokenizers.THINKING, "<|im_end|>", "<|im_end|>", "seven<|im_end|>"),
    "reasoning": (tokenizers.REASONING, "<|im_end|>", "<|im_end|>", "seven<|im_end|>"),
    "channels": (tokenizers.CHANNELS, "<|return|>", "<|return|>", "seven<|return|>"),
}
WARNED = {
    "no generation prompt": "writes no generation prompt: prompts end in '<|im_start|>assistant\\n' here",
    "thinking": "writes something between its generation prompt and an answer: prompts end in",
    "reasoning": "writes something between its generation prompt and an answer: prompts end in '",
    "channels": "writes something between its generation prompt and an answer: prompts end in ",
}


@pytest.fixture(params=[False, True], ids=["bytes", "sentencepiece"])
def sentencepiece(request) -> bool:
    return request.param


def messages_of(example: Example) -> list[dict[str, str]]:
    turns = [*example.history, ("user", example.prompt), ("assistant", example.answer)]
    return [{"role": role, "content": text} for role, text in turns]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("answer", ["seven", "how many\nletters", "é\u4e2d", "\n\nx "])
@pytest.mark.parametrize("talk", [False, True])
def test_a_row_is_the_conversation_as_far_as_its_last_turn_ends(family, sentencepiece, answer, talk):
    template, eos, end, _ = FAMILIES[family]
    tokenizer = with_control_tokens(template, eos_token=eos, sentencepiece=sentencepiece)
    example = replace(TALK if talk else EXAMPLE, answer=answer)
    whole = tokenizer.apply_chat_template(messages_of(example), return_dict=False)
    ends = [i for i, token in enumerate(whole) if token == tokenizer.convert_tokens_to_ids(end)]
    encoded = encode_example(tokenizer, example, None)
    if answer.startswith("\n") and encoded.ids != whole[: ends[-1] + 1]:
        # Line breaks that go into one token with those of the prompt: the prompt keeps its own tokens.
        assert tokenizer.decode(encoded.ids) == tokenizer.decode(whole[: ends[-1] + 1])
    else:
        assert encoded.ids == whole[: ends[-1] + 1]
    prompt = encode_prompt(tokenizer, example, None)
    assert encoded.ids[: len(prompt)] == prompt
    assert encoded.labels == [-100] * len(prompt) + encoded.ids[len(prompt) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_and_what_is_learned(family, sentencepiece):
    template, eos, end, learned = FAMILIES[family]
    tokenizer = with_control_tokens(template, eos_token=eos, sentencepiece=sentencepiece)
    encoded = encode_example(tokenizer, EXAMPLE, None)
    ids = [label for label in encoded.labels if label != -100]
    assert tokenizer.decode(ids).strip() == learned.strip()
    assert ids[-1] == tokenizer.convert_tokens_to_ids(end)
    assert turn_ends(tokenizer) == tuple(dict.fromkeys(map(tokenizer.convert_tokens_to_ids, (eos, end))))
    asked = tokenizer.apply_chat_template(messages_of(EXAMPLE)[:1], add_generation_prompt=True, return_dict=False)
    warnings = template_of(tokenizer).warnings
    assert (encode_prompt(tokenizer, EXAMPLE, None) == asked) == (family not in WARNED)
    assert len(warnings) == (family in WARNED)
    assert WARNED.get(family, "") in "".join(warnings)


def test_answers_with_thoughts_of_their_own_follow_the_generation_prompt():
    tokenizer = with_control_tokens(tokenizers.THINKING, eos_token="<|im_end|>")
    thought = replace(EXAMPLE, answer="<think>\nhow\n</think>\n\nseven")
    whole = tokenizer.apply_chat_template(messages_of(thought), return_dict=False)
    asked = tokenizer.apply_chat_template(messages_of(thought)[:1], add_generation_prompt=True, return_dict=False)
    encoded = encode_example(tokenizer, thought, None)
    assert encoded.ids == whole[:-1]
    assert encoded.labels == [-100] * len(asked) + whole[len(asked) : -1]


def test_without_a_token_that_ends_an_answer_the_end_of_sequence_is_learned():
    tokenizer = with_control_tokens(tokenizers.OPEN_ENDED, eos_token="<|im_end|>")
    encoded = encode_example(tokenizer, EXAMPLE, None)
    assert tokenizer.decode(encoded.ids) == "user: how many letters?\nassistant: seven<|im_end|>"
    assert tokenizer.decode([label for label in encoded.labels if label != -100]) == " seven<|im_end|>"
    (warning,) = template_of(tokenizer).warnings
    assert "writes '\\n' after an answer, in which is no token that could end it; <|im_end|> is learned" in warning
    assert turn_ends(tokenizer) == (tokenizer.eos_token_id,)


def test_an_end_that_only_earlier_answers_have_is_learned_after_the_last():
    template = tokenizers.QWEN.replace(
        "+ '<|im_end|>' + '\n'", "+ ('' if loop.last and not add_generation_prompt else '<|im_end|>\n')"
    )
    assert template != tokenizers.QWEN
    tokenizer = with_control_tokens(template, eos_token="<|endoftext|>")
    encoded = encode_example(tokenizer, EXAMPLE, None)
    assert tokenizer.decode([label for label in encoded.labels if label != -100]) == "seven<|im_end|>"
    assert (
        encoded.ids
        == encode_example(with_control_tokens(tokenizers.QWEN, eos_token="<|endoftext|>"), EXAMPLE, None).ids
    )


def test_messages_that_the_template_leaves_out_are_refused():
    silent = tokenizers.QWEN.replace(
        "{% for message in messages %}", "{% for message in messages if message['role'] != 'system' %}"
    )
    tokenizer = with_control_tokens(silent, eos_token="<|im_end|>")
    assert encode_prompt(tokenizer, EXAMPLE, None)
    for ask in (encode_prompt, encode_example):
        with pytest.raises(
            ValueError, match=r"'letters': .* leaves out message 1 .* roles system, user.*system_prompt to null"
        ):
            ask(tokenizer, EXAMPLE, "Be brief.")


def test_a_template_without_answers_is_refused():
    tokenizer = with_control_tokens("{{ messages[0]['content'] }}", eos_token="<|im_end|>")
    with pytest.raises(ValueError, match="does not write the assistant's message once; set another"):
        encode_prompt(tokenizer, EXAMPLE, None)


def test_text_after_a_line_has_no_space_of_its_own(sentencepiece):
    tokenizer = tokenizers.make_tokenizer(bos=True, sentencepiece=sentencepiece)
    encoded = encode_example(tokenizer, EXAMPLE, None)
    whole = tokenizer("how many letters?\nseven")["input_ids"]
    assert encoded.ids == [*whole, tokenizer.eos_token_id]


LEARNING = ["gemma", "phi-3", "llama-2", "llama-3", "mistral", "qwen", "smollm2", "no generation prompt", "channels"]


@pytest.mark.parametrize("family", LEARNING)
def test_every_answer_is_learned_with_its_end(family, sentencepiece):
    """What is learned of the whole conversation is what `encode_example` learns of each answer on its own."""
    template, eos, _, _ = FAMILIES[family]
    tokenizer = with_control_tokens(template, eos_token=eos, sentencepiece=sentencepiece)
    (row,) = encode_examples(tokenizer, [TALK], None, learn="all_answers")
    last = encode_example(tokenizer, TALK, None)
    assert row.ids == last.ids
    assert row.answer_length == last.answer_length
    turns = [*TALK.history, ("user", TALK.prompt), ("assistant", TALK.answer)]
    expected = []
    for i in range(1, len(turns), 2):
        alone = Example(turns[i - 1][1], turns[i][1], "letters", history=tuple(turns[: i - 1]))
        one = encode_example(tokenizer, alone, None)
        expected.append([label for label in one.labels if label != -100])
    if family == "channels":  # which ends earlier answers otherwise
        for ids in expected[:-1]:
            ids[-1] = tokenizer.convert_tokens_to_ids("<|end|>")
    assert runs(row.labels) == expected
    assert all(label in (-100, token) for token, label in zip(row.ids, row.labels, strict=True))


def runs(labels: list[int]) -> list[list[int]]:
    """What is learned, in pieces."""
    learned = (list(group) for wanted, group in itertools.groupby(labels, lambda label: label != -100) if wanted)
    return list(learned)


def test_weights_decide_which_answers_are_learned():
    tokenizer = with_control_tokens(tokenizers.QWEN, eos_token="<|im_end|>")
    asked = {"role": "user", "content": "how"}
    for weights, learn, expected in (
        ((None, None), "last_answer", "c"),
        ((None, None), "all_answers", "abc"),
        ((1, None), "last_answer", "ac"),
        ((0, None), "all_answers", "bc"),
        ((0, 0), "all_answers", "c"),
        ((1, 0), "last_answer", "ac"),
    ):
        answers = [{"role": "assistant", "content": text} for text in "abc"]
        for answer, weight in zip(answers, weights, strict=False):
            answer.update({} if weight is None else {"weight": weight})
        example = parse({"messages": [m for answer in answers for m in (asked, answer)]}, "letters", {})
        (row,) = encode_examples(tokenizer, [example], None, learn=learn)
        assert [tokenizer.decode(run) for run in runs(row.labels)] == [f"{text}<|im_end|>" for text in expected]
        plain = [
            {key: value for key, value in m.items() if key != "weight"}
            for m in (m for a in answers for m in (asked, a))
        ]
        assert row.ids == tokenizer.apply_chat_template(plain, return_dict=False)[:-1]


TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
WITH_TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\nTools: ' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}{{ '<call>' + (call['function'] | tojson) + '</call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tool_talk(*last: dict) -> Example:
    talk = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "4", "tool_call_id": "x"},
        *last,
    ]
    return parse({"messages": talk, "tools": TOOLS}, "letters", {})


@pytest.mark.parametrize("learn", ["last_answer", "all_answers"])
def test_tools_and_their_calls_are_written_where_the_template_takes_them(learn):
    tokenizer = with_control_tokens(WITH_TOOLS, eos_token="<|endoftext|>")
    example = tool_talk({"role": "assistant", "content": "seven"})
    (row,) = encode_examples(tokenizer, [example], None, learn=learn)
    messages = example.conversation["messages"]
    assert row.ids == tokenizer.apply_chat_template(messages, tools=TOOLS, return_dict=False)[:-1]
    call = '<call>{"name": "add", "arguments": {"a": 2}}</call><|im_end|>'
    learned = [*([call] if learn == "all_answers" else []), "seven<|im_end|>"]
    assert [tokenizer.decode(run) for run in runs(row.labels)] == learned
    asked = tokenizer.apply_chat_template(messages[:-1], tools=TOOLS, add_generation_prompt=True, return_dict=False)
    assert encode_prompt(tokenizer, example, None) == asked


def test_a_call_of_a_tool_is_an_answer():
    tokenizer = with_control_tokens(WITH_TOOLS, eos_token="<|endoftext|>")
    example = parse(
        {
            "messages": [
                {"role": "user", "content": "2?"},
                {"role": "assistant", "content": "Wait.", "tool_calls": [CALL]},
            ]
        },
        "letters",
        {},
    )
    encoded = encode_example(tokenizer, example, None)
    expected = 'Wait.<call>{"name": "add", "arguments": {"a": 2}}</call><|im_end|>'
    assert [tokenizer.decode(run) for run in runs(encoded.labels)] == [expected]


def test_a_template_that_leaves_out_tools_is_refused():
    example = tool_talk({"role": "assistant", "content": "seven"})
    with pytest.raises(ValueError, match="leaves out the calls of tools and the tools of a conversation; take a mod"):
        encode_example(with_control_tokens(tokenizers.QWEN, eos_token="<|im_end|>"), example, None)
    with pytest.raises(ValueError, match=r"has tools or their calls, and the tokenizer .* no chat template"):
        encode_example(tokenizers.make_tokenizer(), replace(example, history=()), None)


def test_a_template_that_fails_is_refused():
    tokenizer = with_control_tokens(
        tokenizers.QWEN.replace("message['role'] +", "message['role'] + none +"), eos_token="<s>"
    )
    with pytest.raises(
        ValueError, match=r"the chat template of '' fails \(TypeError\) on a conversation with the roles \['us"
    ):
        encode_prompt(tokenizer, EXAMPLE, None)


def test_a_template_that_writes_the_date_is_told_of():
    dated = "{{ '<|im_start|>system\nToday: ' + strftime_now('%d %b %Y') + '<|im_end|>\n' }}" + tokenizers.QWEN
    tokenizer = with_control_tokens(dated, eos_token="<|im_end|>")
    (warning,) = template_of(tokenizer).warnings
    assert "writes the date: prompts that are prepared on one day are not those of another" in warning
    whole = tokenizer.apply_chat_template(messages_of(EXAMPLE), return_dict=False)
    assert encode_example(tokenizer, EXAMPLE, None).ids == whole[:-1]


@pytest.mark.parametrize("bos", [False, True])
def test_a_template_and_its_tokenizer_write_one_beginning_of_sequence(bos):
    """The template alone decides, as in `apply_chat_template`, whatever the tokenizer puts before a text."""
    template = ("{{ bos_token }}" if bos else "") + tokenizers.QWEN
    tokenizer = tokenizers.make_tokenizer(template, bos=True)
    encoded = encode_example(tokenizer, EXAMPLE, None)
    assert encoded.ids == tokenizer.apply_chat_template(messages_of(EXAMPLE), return_dict=False)[:-1]
    assert encoded.ids.count(tokenizer.bos_token_id) == bos


def test_an_answer_of_which_the_template_leaves_out_a_part_is_refused():
    tokenizer = with_control_tokens(tokenizers.THINKING, eos_token="<|im_end|>")
    thought = "<think>\nhow\n</think>\n\nx"
    talk = replace(TALK, history=(("user", "a"), ("assistant", thought)))
    # Of an earlier answer the template leaves thoughts out, which is no matter as long as it is not learned.
    assert "how\n</think>" not in tokenizer.decode(encode_example(tokenizer, talk, None).ids)
    with pytest.raises(
        ValueError, match=r"leaves out a part of message 2 \('<think>.*learned, such as thoughts; remove"
    ):
        encode_examples(tokenizer, [talk], None, learn="all_answers")
    forgetful = tokenizers.QWEN.replace("message['content']", "message['content'].split('</think>')[-1]")
    with pytest.raises(ValueError, match="leaves out a part of message 2"):
        encode_example(with_control_tokens(forgetful, eos_token="<|im_end|>"), replace(EXAMPLE, answer=thought), None)
