"""Rows of texts: prompt and completion are one text, begin with BOS where the tokenizer adds one, and end once."""

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fed.base import sources
from fed.edits.positions import Positions
from fed.forward.batching import Row, pad, tokenize
from fed.forward.tokenization import Worded, before_text
from fed.lamp.records import open_corpus
from fed.lamp.tasks import TASKS

SPECIAL = {"</s>": 0, "<s>": 1, "<unk>": 2}


def wrapped(made, template="$A"):
    """A tokenizer of the `tokenizers` library with BOS and EOS, which it puts where the template says."""
    if template != "$A":
        added = [("<s>", SPECIAL["<s>"]), ("</s>", SPECIAL["</s>"])]
        made.post_processor = processors.TemplateProcessing(single=template, special_tokens=added)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def characters(template="$A"):
    """One token a character."""
    letters = dict.fromkeys("\nabcdefghijklmnopqrstuvwxyz<>/:# ")
    made = Tokenizer(models.WordLevel(SPECIAL | {c: i + 3 for i, c in enumerate(letters)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return wrapped(made, template)


def pieces(*merges, metaspace=None):
    """BPE over characters with these merges; metaspace: a word's blank is a "▁" before it, a text's first word too."""
    letters = dict.fromkeys("abcdefghijklmnopqrstuvwxyz:▁ \n")
    vocabulary = SPECIAL | {c: i + 3 for i, c in enumerate(letters)}
    for one, other in merges:
        vocabulary.setdefault(one + other, len(vocabulary))
    made = Tokenizer(models.BPE(vocabulary, list(merges), unk_token="<unk>"))
    if metaspace:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=metaspace, split=True)
    return wrapped(made, "<s> $A")


class WithoutOffsets:
    """A tokenizer in Python, which cannot say where its tokens lie."""

    def __init__(self, fast):
        self._fast, self.eos_token_id = fast, fast.eos_token_id

    def __call__(self, text, *, add_special_tokens):
        return {"input_ids": self._fast(text, add_special_tokens=add_special_tokens)["input_ids"]}


def words(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(list(ids))


def test_rows_are_the_texts_tokens_and_the_completion_ends_with_eos(tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    (row,) = tokenize([("ab\ntweet:", " cd")], tokenizer, 64)
    assert tokenizer.decode(row.prompt) == "ab\ntweet:"
    assert tokenizer.decode(row.completion[:-1]) == " cd" and row.completion[-1] == tokenizer.eos_token_id
    assert len(row) == 9 + 3 + 1 and row.asked == ()


@pytest.mark.parametrize(
    ("max_length", "prompt", "completion"),
    [
        (13, "ab\ntweet:", " cd$"),
        (12, "b\ntweet:", " cd$"),  # the start of the prompt goes first
        (10, "tweet:", " cd$"),
        (5, ":", " cd$"),  # the cue's end stays, and so does all of the completion
        (4, ":", " cd"),  # then the completion loses its end
        (2, ":", " "),
    ],
)
@pytest.mark.parametrize("begins", [False, True], ids=["", "with BOS"])
def test_a_long_row_keeps_its_cue_its_completion_and_bos(max_length, prompt, completion, begins):
    tokenizer = characters("<s> $A" if begins else "$A")
    (row,) = tokenize([("ab\ntweet:", " cd")], tokenizer, max_length + begins)
    assert len(row) <= max_length + begins
    assert words(tokenizer, row.prompt) == ["<s>"] * begins + list(prompt)
    assert words(tokenizer, row.completion) == ["</s>" if c == "$" else c for c in completion]


def test_every_row_begins_with_bos_so_that_first_positions_mean_it_in_each():
    tokenizer = characters("<s> $A")
    rows = tokenize([("cue:", " ok"), ("x" * 300 + "\ncue:", " ok"), ("", " ok")], tokenizer, 64)
    assert {row.prompt[0] for row in rows} == {1} and max(map(len, rows)) == 64
    batch = pad(rows, 0, "cpu")
    assert Positions.parse("f1").mask(batch.prompt, batch.tokens).tolist() == (batch.input_ids == 1).tolist()
    skipped = batch.tokens & ~Positions.parse("all-f1").mask(batch.prompt, batch.tokens)
    assert skipped.tolist() == (batch.input_ids == 1).tolist()
    assert before_text(tokenizer) == (1,) and before_text(characters()) == ()


@pytest.mark.parametrize("metaspace", ["always", "first", "never"])
@pytest.mark.parametrize("has_offsets", [True, False], ids=["by offsets", "without offsets"])
def test_a_completions_tokens_are_those_of_the_whole_text(metaspace, has_offsets):
    fast = pieces(("o", "k"), ("▁", "ok"), metaspace=metaspace)
    tokenizer = fast if has_offsets else WithoutOffsets(fast)
    (row,) = tokenize([("cue:", " ok")], tokenizer, 64)
    assert [*row.prompt, *row.completion] == [*fast("cue: ok")["input_ids"], 0]
    assert words(fast, row.completion) == ["▁ok", "</s>"] and row.asked == ()


@pytest.mark.parametrize("has_offsets", [True, False], ids=["by offsets", "without offsets"])
def test_a_token_across_the_seam_belongs_to_the_completion_and_the_question_is_the_prompt_alone(has_offsets):
    fast = pieces((":", " "))
    tokenizer = fast if has_offsets else WithoutOffsets(fast)
    (row,) = tokenize([("cue:", " ok")], tokenizer, 64)
    assert words(fast, row.prompt) == ["<s>", *"cue"] and words(fast, row.completion) == [": ", "o", "k", "</s>"]
    assert words(fast, row.question) == ["<s>", *"cue:"]
    batch = pad([row], 0, "cpu", left=True, prompts_only=True)
    assert batch.input_ids[0].tolist() == list(row.question) and batch.prompt.all()


@pytest.mark.parametrize("template", ["$A </s>", "<s> $A </s>", "</s> $A"], ids=["after", "around", "before"])
@pytest.mark.parametrize("has_offsets", [True, False], ids=["by offsets", "without offsets"])
def test_no_end_stands_inside_a_row_whatever_the_tokenizer_puts_around_a_text(template, has_offsets):
    fast = characters(template)
    tokenizer = fast if has_offsets else WithoutOffsets(fast)
    (row,) = tokenize([("cue:", " ok")], tokenizer, 64)
    before = template.split(" $A")[0].split() if " $A" in template else []
    assert words(fast, row.prompt) == [*before, *"cue:"] and words(fast, row.completion) == [*" ok", "</s>"]


def test_what_a_user_writes_ends_no_text():
    tokenizer = characters("<s> $A")
    (row,) = tokenize([("a</s>b:", " c<s></s>")], tokenizer, 64)
    assert words(tokenizer, row.prompt) == ["<s>", *"a</s>b:"]
    assert words(tokenizer, row.completion) == [*" c<s></s>", "</s>"]
    unknown_is_end = characters("<s> $A")
    unknown_is_end.eos_token = "<unk>"  # as GPT-2's, whose unknown token is its end
    (row,) = tokenize([("a?b:", " c!")], unknown_is_end, 64)
    assert words(tokenizer, row.prompt) == ["<s>", *"ab:"] and words(tokenizer, row.completion) == [*" c", "<unk>"]


def test_a_text_may_say_what_no_cut_takes_and_which_token_ends_it():
    tokenizer = characters("<s> $A")
    worded = Worded("<s>user:" + "x" * 50 + "#bot:", "ok", head=8, tail=5, end=2, control=True)
    (row,) = tokenize([worded], tokenizer, 20)
    assert words(tokenizer, row.prompt) == ["<s>", *"user:", *"xxxxxx", *"#bot:"]
    assert words(tokenizer, row.completion) == ["o", "k", "<unk>"]
    (row,) = tokenize([worded], tokenizer, 20, answer_room=8)
    assert words(tokenizer, row.prompt) == ["<s>", *"user:", "x", *"#bot:"]
    with pytest.raises(ValueError, match="room for an answer behind the 11 tokens .* got 11; raise max-length to 27"):
        tokenize([worded], tokenizer, 11)


def test_rows_without_a_completion_are_questions():
    tokenizer = characters("<s> $A")
    assert tokenize([("ab", "")], tokenizer, 64) == [Row((1, *tokenizer("ab")["input_ids"][1:]), (0,))]


@pytest.mark.nightly
def test_the_embedded_bases_rows_are_what_they_were_while_both_texts_were_tokenized_apart():
    """Its tokenizer begins no text with BOS and merges nothing across a cue's colon."""
    tokenizer = AutoTokenizer.from_pretrained(sources.resolve(sources.EMBEDDED)[1])
    for task in TASKS.values():
        corpus = open_corpus("synthetic", task, seed=0)
        users = [corpus.user(user) for user in corpus.cohorts["others"][:8]]
        pairs = [task.query_pair(query) for user in users for query in user.queries]
        pairs += [task.history_pair(item) for user in users for item in user.profile]
        for pair, row in zip(pairs, tokenize(pairs, tokenizer, 256), strict=True):
            completion = [*tokenizer(pair.completion)["input_ids"], tokenizer.eos_token_id]
            prompt = tokenizer(pair.prompt)["input_ids"][-(256 - len(completion)) :]
            assert ([*row.prompt], [*row.completion], row.asked) == (prompt, completion, ())
