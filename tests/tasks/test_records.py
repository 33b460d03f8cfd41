from __future__ import annotations

import json
import re

import pytest

from trex_ds.tasks.base import Example
from trex_ds.tasks.records import parse

USER, ASSISTANT = {"role": "user", "content": "2 + 2 ="}, {"role": "assistant", "content": "4"}
SYSTEM = {"role": "system", "content": "Be brief."}


def calling(arguments, **more) -> dict:
    """A message of the assistant that calls a tool."""
    call = {"id": "a1", "type": "function", "function": {"name": "add", "arguments": arguments}}
    return {"role": "assistant", "tool_calls": [call], **more}


def line(**record) -> bytes:
    return json.dumps(record).encode()


def test_prompt_and_answer():
    row = {"prompt": "Is 2 even?", "answer": "yes", "choices": ["yes", "no"], "system": "Be brief."}
    expected = Example("Is 2 even?", "yes", "mine", ("yes", "no"), (("system", "Be brief."),))
    assert parse(line(**row), "mine", {}) == parse(row, "mine", {}) == expected
    assert parse(line(prompt="p", answer="a", task="other"), "mine", {}) == Example("p", "a", "other")
    assert parse(b"\xef\xbb\xbf" + line(prompt="p", answer="a"), "mine", {}) == Example("p", "a", "mine")


@pytest.mark.parametrize(("answer", "text"), [(0, "yes"), (1, "no"), ("no", "no")])
def test_answer_may_be_the_position_of_a_choice(answer, text):
    assert parse(line(prompt="p", answer=answer, choices=["yes", "no"]), "mine", {}).answer == text


def test_messages():
    talk = [SYSTEM, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, USER, ASSISTANT]
    example = parse(line(messages=talk, task="chat"), "mine", {})
    assert (example.prompt, example.answer, example.task) == ("2 + 2 =", "4", "chat")
    assert example.history == (("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"))
    assert example.text == "Be brief.\nHi\nHello\n2 + 2 ="
    assert parse(line(messages=[{**SYSTEM, "content": ""}, USER, ASSISTANT]), "mine", {}).history == (("system", ""),)


def test_calls_of_tools_are_kept_with_their_arguments_as_objects():
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    result = {"role": "tool", "tool_call_id": "a1", "name": "add", "content": "4"}
    expected = calling({"a": 2, "b": 2}, content="")
    for arguments in ({"a": 2, "b": 2}, '{"a": 2, "b": 2}'):
        for more in ({}, {"content": None}, {"content": ""}, {"refusal": None, "annotations": []}):
            talk = [USER, calling(arguments, **more), result, ASSISTANT]
            example = parse(line(messages=talk, tools=tools), "mine", {})
            assert example.conversation == {"messages": [USER, expected, result, ASSISTANT], "tools": tools}
            assert (example.prompt, example.answer) == ("4", "4")
            assert example.history[1] == ("assistant", '{"arguments": {"a": 2, "b": 2}, "name": "add"}')
    # In tables every object has all keys, and tools may be JSON.
    table = [{**message, "name": None, "weight": None} for message in talk]
    table[1]["tool_calls"][0]["function"]["arguments"] = {"a": 2, "b": 2, "c": None}
    table[2]["name"] = "add"
    assert parse({"messages": table, "tools": json.dumps(tools)}, "mine", {}) == example
    last = parse(line(messages=[USER, calling({}, content="Wait.")]), "mine", {})
    assert last.answer == 'Wait.\n{"arguments": {}, "name": "add"}'


def test_weights_say_which_answers_are_learned():
    bad, good = {**ASSISTANT, "content": "5", "weight": 0}, {**ASSISTANT, "weight": 1}
    example = parse(line(messages=[USER, bad, USER, ASSISTANT]), "mine", {})
    assert example.answer == "4"
    assert example.conversation["messages"] == [USER, bad, USER, ASSISTANT]
    # What follows the last answer that is learned has no part in it.
    assert parse(line(messages=[USER, good, USER, bad]), "mine", {}) == parse(line(messages=[USER, good]), "mine", {})
    assert parse(line(messages=[USER, ASSISTANT, USER, bad]), "mine", {}) == parse(
        line(messages=[USER, ASSISTANT]), "mine", {}
    )
    assert parse(line(messages=[USER, {**ASSISTANT, "weight": None}]), "mine", {}).conversation is None


def test_columns_are_all_that_is_read():
    row = {"question": "2 + 2 =", "response": "4", "kind": "sums", "task": 3, "choices": "none"}
    columns = {"prompt": "question", "answer": "response", "task": "kind"}
    assert parse(line(**row), "mine", columns) == parse(row, "mine", columns) == Example("2 + 2 =", "4", "sums")
    assert parse(line(talk=[USER, ASSISTANT], prompt=1), "mine", {"messages": "talk"}).prompt == "2 + 2 ="


def test_tables_have_columns_for_others_and_nulls():
    row = {"prompt": "p", "answer": "a", "task": None, "choices": [], "system": None, "idx": 5}
    assert parse(row, "mine", {}) == Example("p", "a", "mine")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (b"{", "not JSON: Expecting property name"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        (b"3", "must be an object with prompt and answer, or messages, got 3"),
        (line(answer="a"), "prompt is missing"),
        (line(prompt="p"), "answer is missing"),
        (line(prompt=" ", answer="a"), 'prompt must be text that is not empty, got " "'),
        (
            line(prompt="p", answer=7),
            "answer must be text that is not empty, got 7; it is a number: write it in quotes, or give the choi",
        ),
        (line(prompt="p", answer=True, choices=["a", "b"]), "answer must be text that is not empty, got true"),
        (line(prompt="p", answer="a", task=None), "task must be text that is not empty, got null"),
        (line(prompt="p", answer="a", system=1), "system must be text, got 1"),
        (line(prompt="p", answer="a", choices="ab"), 'choices must be a list of at least two texts, got "ab"'),
        (line(prompt="p", answer="a", choices=["a"]), 'choices must be a list of at least two texts, got ["a"]'),
        (line(prompt="p", answer="a", choices=["a", 1]), "choices must be a list of at least two texts"),
        (line(prompt="p", answer="a", choices=["a", "b", "a"]), "choices has one twice"),
        (line(prompt="p", answer="a", choices=["b", "c"]), 'answer "a" is not among the choices ["b", "c"]'),
        (line(prompt="p", answer=2, choices=["b", "c"]), "answer 2 is not a position among 2 choices, 0 to 1"),
        (line(prompt="p", answer=-1, choices=["b", "c"]), "answer -1 is not a position among 2 choices"),
        (line(promt="p", answer="a"), "unknown key 'promt'; did you mean prompt?; prompt is missing"),
        (line(prompt="p", answer="a", zzz=1), "unknown key 'zzz'; known: prompt, answer, task, choices, system, mess"),
        (b'{"prompt": "p", "answer": "\\ud800"}', "has half of a surrogate pair"),
        (line(messages=[USER, ASSISTANT], prompt="p"), "messages take the place of prompt"),
        (line(messages="hi"), "messages must be a list with at least a user's and an assistant's, got \"hi\""),
        (
            line(prompt=3, answer="a"),
            "prompt must be text that is not empty, got 3; it is a number: write it in quotes",
        ),
        (line(messages=[USER, {**ASSISTANT, "content": 4}]), "got 4; it is a number: write it in quotes"),
        (line(prompt="p", answer="a", choices=["a", "A "]), "choices has one twice, up to case and white space"),
        (line(prompt="p", answer=7.5), "got 7.5; it is a number: write it in quotes"),
        (line(prompt="p", answer=False), "got false; it is true or false: write it in quotes"),
        (line(prompt="p", answer=None), "answer must be text that is not empty, got null"),
        (line(prompt="p", answer=""), 'answer must be text that is not empty, got ""'),
        (line(prompt="p", answer="\u200b\ufeff"), "answer must be text that is not empty"),
        (line(prompt="p", answer=" \u00a0"), "answer must be text that is not empty"),
        (line(prompt="p", answer=["a"]), 'answer must be text that is not empty, got ["a"]'),
        (line(prompt="p", answer={"text": "a"}), 'answer must be text that is not empty, got {"text": "a"}'),
        (
            b'{"prompt": "p", "answer": ' + b"9" * 5000 + b"}",
            "has a number of 5000 digits, which is not a choice",
        ),
        (b'{"prompt": "p", "answer": "a", "prompt": "q"}', "the key 'prompt' stands 2 times in one object; keep one"),
        (b'{"messages": [{"role": "user", "role": "system", "content": "a"}]}', "the key 'role' stands 2 times"),
        (b'{"prompt": "p\x00", "answer": "a"}', "has NUL bytes, so it is not text, or damaged"),
        (line(prompt="p", answer="a", tools=[{"name": "t"}]), "tools need messages"),
        (line(messages=[USER, ASSISTANT], tools="t"), "tools must be a list or its JSON, and this is none"),
        (line(messages=[USER, ASSISTANT], tools={"name": "t"}), "tools must be a list of descriptions, got"),
        (
            line(messages=[USER, {**ASSISTANT, "wieght": 0}]),
            "message 2: 'wieght' of the assistant cannot be read; unknown ke",
        ),
        (line(messages=[USER, {**ASSISTANT, "wieght": 0}]), "did you mean weight?; remove it"),
        (
            line(messages=[USER, {**ASSISTANT, "name": "Bo"}]),
            "'name' of the assistant cannot be read; only the message of tool",
        ),
        (
            line(messages=[{**USER, "weight": 1}, ASSISTANT]),
            "message 1: 'weight' of the user cannot be read; only the mess",
        ),
        (
            line(messages=[{**USER, "zzz": 1}, ASSISTANT]),
            "message 1: 'zzz' of the user cannot be read; unknown key 'zzz'; kn",
        ),
        (line(messages=[USER, {**ASSISTANT, "weight": 0.5}]), "message 2: weight must be 0 or 1, got 0.5"),
        (line(messages=[USER, {**ASSISTANT, "weight": True}]), "message 2: weight must be 0 or 1, got true"),
        (
            line(messages=[USER, {**ASSISTANT, "weight": 0}]),
            "every answer has weight 0, so that there is nothing to lea",
        ),
        (line(messages=[USER, {**ASSISTANT, "tool_calls": "f"}]), 'message 2: tool_calls must be a list, got "f"'),
        (
            line(messages=[USER, {**ASSISTANT, "tool_calls": [{"name": "f"}]}]),
            "message 2: a call of a tool must have a func",
        ),
        (
            line(messages=[USER, calling("[1]")]),
            "message 2: a call of a tool must have a function with its name and ar",
        ),
        (line(messages=[USER, calling("{")]), "message 2: a call of a tool must have a function with its name and ar"),
        (
            line(messages=[USER, {"role": "tool", "content": "a"}]),
            "must end with a user's and the assistant's answer, got user, to",
        ),
        (line(messages=["hi"]), 'message 1 must have role and content, got "hi"'),
        (line(messages=[{"role": "user"}]), "message 1 must have role and content"),
        (line(messages=[{**USER, "role": "human"}, ASSISTANT]), 'role "human" is not one of system, user, assistant'),
        (line(messages=[USER, SYSTEM, ASSISTANT]), "message 2 is a system message; only the first may be"),
        (line(messages=[USER, {**ASSISTANT, "content": None}]), "message 2: content must be text that is not empty"),
        (line(messages=[USER]), "messages must end with a user's and the assistant's answer, got user"),
        (line(messages=[ASSISTANT, USER]), "messages must end with a user's and the assistant's answer, got assistant"),
    ],
)
def test_what_is_wrong_with_a_row(row, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse(row, "mine", {})
