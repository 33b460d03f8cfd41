from __future__ import annotations

import json
import re

import pytest

from trex_ds.tasks import Example
from trex_ds.tasks.records import parse

USER, ASSISTANT = {"role": "user", "content": "2 + 2 ="}, {"role": "assistant", "content": "4"}
SYSTEM = {"role": "system", "content": "Be brief."}


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
        (line(prompt="p", answer=7), "answer must be text that is not empty, got 7; the position of a choice needs"),
        (line(prompt="p", answer=True, choices=["a", "b"]), "answer must be text that is not empty, got true"),
        (line(prompt="p", answer="a", task=None), "task must be text that is not empty, got null"),
        (line(prompt="p", answer="a", system=1), "system must be text, got 1"),
        (line(prompt="p", answer="a", choices="ab"), 'choices must be a list of at least two texts, got "ab"'),
        (line(prompt="p", answer="a", choices=["a"]), 'choices must be a list of at least two texts, got ["a"]'),
        (line(prompt="p", answer="a", choices=["a", 1]), "choices must be a list of at least two texts"),
        (line(prompt="p", answer="a", choices=["a", "b", "a"]), "choices has one twice"),
        (line(prompt="p", answer="a", choices=["b", "c"]), 'answer "a" is not among the choices ["b", "c"]'),
        (line(prompt="p", answer=2, choices=["b", "c"]), "answer 2 is no position among 2 choices, 0 to 1"),
        (line(prompt="p", answer=-1, choices=["b", "c"]), "answer -1 is no position among 2 choices"),
        (line(promt="p", answer="a"), "unknown key 'promt'; did you mean prompt?; prompt is missing"),
        (line(prompt="p", answer="a", zzz=1), "unknown key 'zzz'; known: prompt, answer, task, choices, system, mess"),
        (b'{"prompt": "p", "answer": "\\ud800"}', "has half of a surrogate pair"),
        (line(messages=[USER, ASSISTANT], prompt="p"), "messages take the place of prompt"),
        (line(messages="hi"), "messages must be a list with at least a user's and an assistant's, got \"hi\""),
        (line(messages=["hi"]), 'message 1 must have role and content, got "hi"'),
        (line(messages=[{"role": "user"}]), "message 1 must have role and content"),
        (line(messages=[{**USER, "role": "human"}, ASSISTANT]), 'role "human" is none of system, user, assistant'),
        (line(messages=[USER, SYSTEM, ASSISTANT]), "message 2 is a system message; only the first may be"),
        (line(messages=[USER, {**ASSISTANT, "content": None}]), "message 2: content must be text that is not empty"),
        (line(messages=[USER]), "messages must end with a user's and the assistant's answer, got user"),
        (line(messages=[ASSISTANT, USER]), "messages must end with a user's and the assistant's answer, got assistant"),
    ],
)
def test_what_is_wrong_with_a_row(row, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse(row, "mine", {})
