"""What is remembered of a base model goes with it."""

from __future__ import annotations

import ast
import gc
import weakref

from fed.base import model as base_model
from fed.base.tokens.chat_template import ChatTemplate
from fed.forward import prefix_cache
from fed.forward.hidden_states import returns_states
from fed.weak_memory import remembered
from tests.conftest import REPOSITORY


class Owner:
    """Something to remember answers of."""


def test_an_answer_is_computed_once_and_forgotten_with_its_owner():
    computed = []

    @remembered
    def answer(owner, number, *, sign=1):
        computed.append(number)
        return sign * number

    owner, other = Owner(), Owner()
    assert [answer(owner, 3), answer(owner, 3), answer(owner, 3, sign=-1), answer(other, 3)] == [3, 3, -3, 3]
    assert computed == [3, 3, 3]
    gone = weakref.ref(owner)
    del owner
    assert gone() is None


def test_a_base_model_that_is_let_go_of_leaves_its_memory(tiny_chat_base):
    base_model.forget()
    base = base_model.load(str(tiny_chat_base), dtype="float32")
    assert returns_states(base, 1) and returns_states(base, 2)
    assert prefix_cache.bytes_of(base, 3, 1) > 0
    assert ChatTemplate.of(base.tokenizer).head
    assert base.serves and base.skeleton.layers == 4
    gone = [weakref.ref(one) for one in (base, base.model, base.tokenizer)]
    base_model.forget()
    del base
    gc.collect()  # a model's parts refer to each other
    assert [ref() for ref in gone] == [None, None, None]


def test_no_cache_of_the_standard_library_takes_what_holds_weights():
    """`functools.lru_cache` and `cache` keep their arguments: these must be texts, numbers and the like."""
    heavy = {"Any", "BaseModel", "Module", "PreTrainedModel", "Tensor"}
    keeping = []
    for house in ("fed", "clients", "server_strategy", "sims"):
        for file in sorted((REPOSITORY / house).rglob("*.py")):
            for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(function, ast.FunctionDef):
                    continue
                decorators = {ast.unparse(one).partition("(")[0].rpartition(".")[2] for one in function.decorator_list}
                arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
                names = {
                    getattr(node, "id", getattr(node, "attr", ""))
                    for one in arguments
                    if one.annotation
                    for node in ast.walk(one.annotation)
                }
                if decorators & {"lru_cache", "cache"} and names & heavy:
                    keeping.append(f"{file.relative_to(REPOSITORY)}: {function.name}")
    assert keeping == []
