"""A tokenizer's own chat template, taken apart: what stands before a question, behind it, and after an answer.

    head · system? · question · tail │ lead · answer · end        │: where the model goes on

The parts are found by rendering the template with marked messages, so that whatever it writes around them (names of
roles, a default system text, BOS) stays its own. Thinking is off where a template has it. A template without a system
role, by refusing it or by leaving it out, gets what would stand there at the question's beginning. A template that
writes the day writes one day always, or a row of tomorrow were another row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fed.weak_memory import remembered

NO_TEMPLATE = (
    "prompt-format = 'chat' needs a base model with a chat template, and its tokenizer has none; give an "
    "instruction-tuned base-model or set prompt-format='plain'"
)
_SYSTEM, _QUESTION, _ANSWER = "SystemTextHere", "QuestionTextHere", "AnswerTextHere"
_NO_THINKING = {"enable_thinking": False, "thinking": False}  # the names that templates have for it
_DAY = "26 Jul 2024"  # Llama 3's own, where it does not ask for the day
_ONE_DAY = "{% macro strftime_now(format) %}" + _DAY + "{% endmacro %}"


class ChatTemplateError(ValueError):
    """The tokenizer has no chat template, or one that a question and an answer cannot be written by."""


@dataclass(frozen=True)
class ChatTemplate:
    """What a chat template writes around a question and its answer.

    Attributes:
        head, tail: before and behind the question.
        system: (before the system text, between it and the question); None: the template has no system role.
        lead: between the point where the model goes on and the answer's first word.
        end: the token that ends an answer; None: the tokenizer's EOS.
        control: the written forms of control tokens, which no user writes.
    """

    head: str
    tail: str
    system: tuple[str, str] | None
    lead: str
    end: int | None
    control: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> ChatTemplate:
        """The tokenizer's. Raises ChatTemplateError."""
        return _of(tokenizer, str(getattr(tokenizer, "chat_template", None) or ""))

    def before(self, system: str) -> str:
        """What stands before a question, a system text (or "") among it."""
        if not system or self.system is None:
            return self.head
        return f"{self.system[0]}{self.said(system)}{self.system[1]}"

    def said(self, text: str) -> str:
        """A text as it is said in a turn: without blanks around it, and without a written control token."""
        for token in self.control:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text.strip()


def has_template(tokenizer: Any) -> bool:
    """Whether the tokenizer has a chat template at all."""
    return bool(getattr(tokenizer, "chat_template", None))


def turn_end(tokenizer: Any) -> int | None:
    """The token that ends a turn by the tokenizer's chat template; None where there is no such token or template."""
    if not has_template(tokenizer):
        return None
    try:
        return ChatTemplate.of(tokenizer).end
    except ChatTemplateError:  # a template that is not used may be as it likes
        return None


@remembered
def _of(tokenizer: Any, template: str) -> ChatTemplate:
    if not template:
        raise ChatTemplateError(NO_TEMPLATE)
    question = {"role": "user", "content": _QUESTION}
    head, found, tail = _rendered(tokenizer, [question], goes_on=True).partition(_QUESTION)
    if not found:
        raise ChatTemplateError(
            "prompt-format = 'chat' needs a chat template that writes a user's text, and the base model's does not; "
            "set prompt-format='plain'"
        )
    system = None
    try:
        whole = _rendered(tokenizer, [{"role": "system", "content": _SYSTEM}, question], goes_on=True)
        before, found, rest = whole.partition(_SYSTEM)
        between, asked, behind = rest.partition(_QUESTION)
        if found and asked and behind == tail:
            system = (before, between)
    except ChatTemplateError:
        pass
    lead, end = "", None
    try:
        whole = _rendered(tokenizer, [question, {"role": "assistant", "content": _ANSWER}], goes_on=False)
        between, found, after = whole.partition(_QUESTION)[2].partition(_ANSWER)
        if found:
            lead = between.removeprefix(tail) if between.startswith(tail) else ""
            end = _control_token(tokenizer, after)
    except ChatTemplateError:
        pass
    written = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
    control = tuple(text for text, special in written.items() if len(text) > 2 and (special or text in template))
    return ChatTemplate(head, tail, system, lead, end, control)


def _rendered(tokenizer: Any, messages: list[Mapping[str, str]], *, goes_on: bool) -> str:
    from jinja2 import TemplateError  # here: a process that words nothing by a template need not import it

    template = tokenizer.chat_template
    if isinstance(template, Mapping):  # several, by name
        template = template.get("default") or next(iter(template.values()))
    if "strftime_now" in template:
        template = _ONE_DAY + template
    try:
        return str(
            tokenizer.apply_chat_template(
                messages,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=goes_on,
                date_string=_DAY,
                **_NO_THINKING,
            )
        )
    except (TemplateError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ChatTemplateError(
            f"the base model's chat template cannot be used: {reason}; set prompt-format='plain'"
        ) from error


def _control_token(tokenizer: Any, text: str) -> int | None:
    """The added token that a text begins with, blanks before it left out; None where it begins with none."""
    ids = tokenizer(text.lstrip(), add_special_tokens=False)["input_ids"] if text.strip() else []
    return int(ids[0]) if ids and ids[0] in tokenizer.added_tokens_decoder else None
