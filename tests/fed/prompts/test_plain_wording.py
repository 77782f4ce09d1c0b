"""Plain wordings: written by the base from a bare tweet alone, once, and kept where the user's tensors are."""

import stat
from dataclasses import replace

import pytest
import torch

from fed.base.model import BaseModel
from fed.lamp.tasks import get_task
from fed.lamp.user import User
from fed.privacy.sealed import Secret
from fed.privacy.vault import Vault
from fed.prompts import plain_wording
from fed.prompts.plain_wording import REQUEST, PlainWordings, usable

TWEETS = replace(get_task("LaMP_7"), max_new_tokens=12)


def user(name, count=3, words="hi"):
    return User(name, tuple({"id": str(i), "text": f"{words}{i}"} for i in range(count)), ())


@pytest.fixture
def base(make_base):
    made = make_base("float32", max_position_embeddings=2048)
    with torch.no_grad():
        made.model.lm_head.weight[0].zero_()  # a base that would end at once writes nothing to look at
    return made


@pytest.fixture
def make(base, tmp_path):
    def wordings(**changes):
        arguments = {"vault": Vault(tmp_path / "vault"), "base": base, "task": TWEETS, "latest": 0}
        return PlainWordings(**{**arguments, "token_budget": 9000, **changes})

    return wordings


@pytest.fixture
def asked(monkeypatch):
    """The tweets that the base was asked for, in order."""
    tweets, generate = [], plain_wording.generate

    def counted(base, rows, *arguments, **options):
        requests = [base.tokenizer.decode(row.row.prompt) for row in rows]
        tweets.extend(request.partition("\nTweet: ")[2].partition("\n")[0] for request in requests)
        return generate(base, rows, *arguments, **options)

    monkeypatch.setattr(plain_wording, "generate", counted)
    return tweets


def greedy(base, request, count):
    ids = list(base.tokenizer(request)["input_ids"])
    start = len(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(base.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return base.tokenizer.decode(ids[start:], skip_special_tokens=True)


def inputs(worded):
    return [item.get("input") for item in worded.profile]


def test_the_input_is_the_bases_own_greedy_answer_to_the_request_on_one_line(make, base):
    one = user("zoe")
    assert make().read(one) is None
    assert make().write([one]) == (3, 0)
    worded = make().read(one)
    for item, given in zip(worded.profile, one.profile, strict=True):
        answer = greedy(base, f"{REQUEST}\nTweet: {given['text']}\nPlain sentence:", 12)
        expected = " ".join(answer.strip().split("\n")[0].split())
        assert item == {**given, "input": expected} and expected != ""
        assert TWEETS.history_pair(item) == (f"{TWEETS.instruction}{expected}\ntweet:", f" {given['text']}")


def test_users_written_together_get_what_they_get_alone(make, tmp_path):
    users, ticks = [user("zoe"), user("adam", 5, "yo"), user("mia", 1, "oh")], []
    assert make().write(users, lambda count, total: ticks.append((count, total))) == (9, 0)
    alone = make(vault=Vault(tmp_path / "other"))
    for one in users:
        alone.write([one])
        assert make().read(one) == alone.read(one)
    assert sum(count for count, _ in ticks) == 9 and {total for _, total in ticks} == {9}


def test_a_history_that_has_grown_is_asked_for_what_is_new_alone(make, asked):
    make().write([user("zoe", 2)])
    before = make().read(user("zoe", 2))
    grown = user("zoe", 4)
    assert make().read(grown) is None
    assert make().write([grown]) == (2, 0)
    assert asked == ["hi0", "hi1", "hi2", "hi3"]
    assert make().read(grown).profile[:2] == before.profile
    make().write([grown])
    assert len(asked) == 4
    changed = replace(grown, profile=({"id": "0", "text": "other"}, *grown.profile[1:]))
    assert make().read(changed) is None and make().write([changed]) == (1, 0)
    assert make().read(grown) is None  # what the history no longer has is no longer kept


def test_an_item_that_brings_an_input_is_used_as_it_is(make, asked):
    bare = user("zoe", 2)
    mixed = replace(bare, profile=({"id": "a", "input": "mine", "text": "yo"}, *bare.profile))
    make().write([mixed])
    assert asked == ["hi0", "hi1"] and make().read(mixed).profile[0] == mixed.profile[0]
    paired = replace(bare, profile=mixed.profile[:1])
    assert make().read(paired) == paired
    articles = User("a", ({"id": "1", "text": "t", "title": "h"},), ())
    assert make(task=get_task("LaMP_4")).read(articles) == articles


def test_a_user_whose_items_all_bring_inputs_leaves_no_file(make, tmp_path):
    paired = User("zoe", ({"id": "a", "input": "mine", "text": "yo"},), ())
    assert make().write([paired]) == (0, 0)
    assert not (tmp_path / "vault").exists()


def test_the_latest_items_alone_are_worded_where_no_more_are_used(make, asked):
    one = user("zoe", 5)
    make(latest=2).write([one])
    worded = make(latest=2).read(one)
    assert asked == ["hi3", "hi4"]
    assert [text is not None for text in inputs(worded)] == [False, False, False, True, True]
    assert make().read(one) is None


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("  I am  going. ", "I am going."),
        ("", ""),
        (" ...!", ""),
        ("So  HAPPY #win", ""),  # the tweet itself, but for case and spaces
        ("So happy", "So happy"),
    ],
)
def test_an_answer_of_no_use_is_none(answer, kept):
    assert usable(answer, "so happy #win") == kept


def test_a_tweet_without_a_usable_wording_stays_bare_and_is_counted_and_not_asked_again(make, base, asked):
    with torch.no_grad():
        base.model.lm_head.weight.zero_()  # every token as likely: the first, which ends the text
    one = user("zoe", 2)
    assert make().write([one]) == (2, 2)
    assert make().read(one) == one and TWEETS.history_pair(make().read(one).profile[0]).prompt == "tweet:"
    make().write([one])
    assert len(asked) == 2


def test_a_request_that_the_base_has_no_room_for_is_not_made(make, asked):
    one = User("zoe", ({"id": "1", "text": "x" * 3000}, {"id": "2", "text": "hi"}), ())
    assert make().write([one]) == (2, 1)
    assert asked == ["hi"] and [bool(text) for text in inputs(make().read(one))] == [False, True]


def test_they_lie_in_the_users_folder_for_its_owner_alone_and_go_with_it(make, tmp_path):
    vault, one = Vault(tmp_path / "vault"), user("zoe")
    make().write([one])
    assert stat.S_IMODE((vault.folder("zoe") / "personal.plain.safetensors").stat().st_mode) == 0o600
    vault.erase("zoe")
    assert make().read(one) is None


def test_they_are_sealed_where_the_vault_is(make, tmp_path):
    (tmp_path / "phrase").write_text("a long enough passphrase\n")
    (tmp_path / "phrase").chmod(0o600)
    vault, one = Vault(tmp_path / "sealed", Secret.from_passphrase_file(tmp_path / "phrase")), user("zoe")
    make(vault=vault).write([one])
    (text, *_) = inputs(make(vault=vault).read(one))
    (path,) = vault.folder("zoe").iterdir()
    assert path.name == "personal.plain.vault" and text.encode() not in path.read_bytes()


def test_wordings_of_another_base_are_not_read(make, base):
    one = user("zoe")
    make().write([one])
    other = BaseModel("other", base.model, base.tokenizer, base.dtype, base.device, "1" * 16)
    assert make().read(one) is not None and make(base=other).read(one) is None


def test_a_base_with_a_chat_format_is_asked_in_it(make, base, tiny_tokenizer, monkeypatch):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[bot]{% endif %}"
    )
    requests, generate = [], plain_wording.generate
    monkeypatch.setattr(
        plain_wording, "generate", lambda b, rows, *a, **o: requests.extend(rows) or generate(b, rows, *a, **o)
    )
    chat = BaseModel("chat", base.model, tokenizer, base.dtype, base.device, base.fingerprint)
    make(base=chat).write([user("zoe", 1)])
    (request,) = (tokenizer.decode(row.row.prompt) for row in requests)
    assert request == f"[user]{REQUEST}\nTweet: hi0\nPlain sentence:[bot]"
