"""Profile texts: written by the base from the user's own history alone, once, and kept where the user's tensors are."""

import stat

import pytest
import torch

from fed.base.model import BaseModel
from fed.lamp.tasks import get_task
from fed.lamp.user import User
from fed.privacy.vault import Vault
from fed.prompts import profile
from fed.prompts.profile import Profiles
from fed.prompts.wording import REQUESTS
from fed.randomness import generator

TWEETS = get_task("LaMP_7")


def user(name, count=3, words="hi"):
    return User(name, tuple({"id": str(i), "text": f"{words}{i}"} for i in range(count)), ())


@pytest.fixture
def base(make_base):
    made = make_base("float32", max_position_embeddings=2048)
    with torch.no_grad():
        made.model.lm_head.weight[0].zero_()  # a base that would end at once writes no profile to look at
    return made


@pytest.fixture
def make(base, tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "NEW_TOKENS", 12)

    def profiles(**changes):
        settings = {"vault": Vault(tmp_path / "vault"), "base": base, "task": TWEETS, "seed": 0, "token_budget": 9000}
        return Profiles(**{**settings, **changes})

    return profiles


def greedy(base, request, count):
    ids = list(base.tokenizer(request)["input_ids"])
    start = len(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(base.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == base.tokenizer.eos_token_id:
            break
    return " ".join(base.tokenizer.decode(ids[start:], skip_special_tokens=True).split())


def test_the_text_is_the_bases_own_greedy_answer_to_the_request(make, base):
    one = user("zoe")
    make().write([one])
    request = f"{REQUESTS['LaMP_7']} History: tweet: hi0 | tweet: hi1 | tweet: hi2 Answer:"
    text = make().read(one)
    assert text == greedy(base, request, 12) != "" and "\n" not in text


def test_users_written_together_get_the_texts_they_get_alone(make, tmp_path):
    users, ticks = [user("zoe"), user("adam", 5, "yo"), user("mia", 1, "oh")], []
    make().write(users, ticks.append)
    alone = make(vault=Vault(tmp_path / "other"))
    for one in users:
        alone.write([one])
        assert make().read(one) == alone.read(one)
    assert sum(ticks) == 3 and len({make().read(one) for one in users}) > 1


def test_it_lies_in_the_users_folder_readable_by_its_owner_alone_and_goes_with_it(make, tmp_path):
    vault, one = Vault(tmp_path / "vault"), user("zoe")
    make().write([one])
    path = vault.folder("zoe") / "personal.profile.safetensors"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    vault.erase("zoe")
    assert make().read(one) is None


def test_a_text_of_another_base_history_or_seed_is_not_read(make, base, tmp_path):
    one = user("zoe", 30)
    assert make().read(one) is None
    make().write([one])
    other = BaseModel("other", base.model, base.tokenizer, base.dtype, base.device, "1" * 16)
    assert make().read(one) is not None
    assert make(base=other).read(one) is None and make(seed=1).read(one) is None
    assert make().read(user("zoe", 29)) is None


def test_ten_items_are_drawn_by_the_seed_and_the_user_and_the_context_bounds_them(make, base):
    many = user("zoe", 40)
    drawn = torch.randperm(40, generator=generator(0, "profile", "zoe"))[:10].tolist()
    asked = base.tokenizer.decode(make()._prompt(many))
    assert asked.endswith(" | ".join(f"tweet: hi{i}" for i in sorted(drawn)) + " Answer:")
    long = user("zoe", 40, "x" * 300)
    ids = make()._prompt(long)
    assert 0 < len(ids) <= 2048 - 12 and base.tokenizer.decode(ids).count("tweet: x") == 5
    assert make()._prompt(user("zoe", 2, "y" * 3000)) == ()
    make().write([user("zoe", 2, "y" * 3000)])
    assert make().read(user("zoe", 2, "y" * 3000)) == ""  # nothing fits: no profile, rather than one of nothing


def test_a_base_with_a_chat_format_is_asked_in_it(make, base, tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[bot]{% endif %}"
    )
    chat = BaseModel("chat", base.model, tokenizer, base.dtype, base.device, base.fingerprint)
    asked = tokenizer.decode(make(base=chat)._prompt(user("zoe", 1)))
    assert asked == f"[user]{REQUESTS['LaMP_7']} History: tweet: hi0 Answer:[bot]"
