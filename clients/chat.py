"""Answer prompts on the device: its base model with the collective edit and the user's own, private one.

    python -m clients.chat /var/lib/perfit/vault                          at a terminal: a prompt a line, Ctrl-D ends
    echo "I am going to run tomorrow." | python -m clients.chat VAULT     by pipe: one answer a line, nothing else
    python -m clients.chat VAULT --compare                                base, stage 1 and stage 1 + 2

A line is the text that the task is about (a tweet to paraphrase, an article to title). It is worded as the vault's run
worded its rows: the task's own words around it, the user's profile text and retrieved items of the history before it,
in the run's prompt-format. What cannot be had is said in a warning. `--raw` takes a line as the whole prompt.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from clients.vault import add_secret_options, one_user, secret_of
from fed import methods
from fed.answering.reader import Question
from fed.base import facts as base_facts
from fed.base import model as base_model
from fed.forward.batching import tokenize
from fed.lamp.cohorts import history as seen_history
from fed.lamp.own_history import open_history
from fed.lamp.records import open_corpus
from fed.lamp.tasks import Pair, Task, get_task
from fed.lamp.user import Query, User
from fed.privacy.tensor_files import VaultError
from fed.privacy.vault import Vault
from fed.prompts.before_rows import Prompts
from fed.prompts.profile import kept_text
from fed.settings.settings import Settings

ARMS = {"base": (False, False), "stage1": (True, False), "stage1+2": (True, True)}  # collective, private


class Chat:
    """One user's personalized model, loaded once.

    Args:
        vault: where the edits are.
        user_id: whose.
        base: the base model's source; None: that of the vault's run.
        temperature: of the answers; 0: the likeliest.
        history: the user's own, where the run retrieved from it; None: the user's of the run's data, if it is there.
    Attributes:
        missing: what the run put before its prompts and is not to be had here, a sentence each.
    Raises:
        ValueError: the vault does not open, or the base model is not the one it was made for.
    """

    def __init__(
        self,
        vault: Vault,
        user_id: str,
        *,
        base: str | None = None,
        temperature: float = 0.0,
        history: Path | None = None,
    ) -> None:
        entry = vault.open(user_id)
        config = dict(json.loads(entry.header["settings"]))
        self.settings = replace(Settings.parse(config, finished=True), temperature=temperature)
        if base:
            self.settings = replace(self.settings, base_model=base)
        self.task, self.user_id = get_task(self.settings.task), user_id
        model = base_model.load(self.settings.base_source, device=self.settings.device, dtype=self.settings.dtype)
        if model.fingerprint != entry.header["base"]:
            raise VaultError(
                f"the vault of user {user_id!r} is of the base model {entry.header['base']}, and {model.name} is "
                f"{model.fingerprint}; give the right one with --base-model"
            )
        base_facts.check(model, self.settings.max_length, self.settings.prompt_format)
        self.base = model
        method = methods.make(self.settings, model.skeleton)
        self._federates = bool(method.collective_shapes())
        collective = vault.read_collective(entry.header["collective"])
        self._reader = method.reader(model, collective, {user_id: entry.tensors})
        self._questions = 0
        self.missing: list[str] = []
        self._words = self._wording(vault, history)
        for sentence in self.missing:
            print(f"warning: {sentence}", file=sys.stderr)

    def _wording(self, vault: Vault, file: Path | None) -> Task | Prompts:
        """What the run worded its rows by."""
        s, profile = self.settings, None
        if s.profile and (profile := kept_text(vault, self.user_id)) is None:
            self.missing.append(
                f"the run began each prompt with a profile text of user {self.user_id!r} (profile = true), and the "
                "vault keeps none; prompts go without it"
            )
        items = self._history(file) if s.retrieved else ()
        if not (profile or items):
            return self.task
        return Prompts(
            self.task,
            User(self.user_id, items, ()),
            retrieved=s.retrieved if items else 0,
            profile=profile or "",
            tokenizer=self.base.tokenizer,
            max_length=s.max_length,
            prompt_format=s.prompt_format,
        )

    def _history(self, file: Path | None) -> tuple[Mapping[str, str], ...]:
        """The items that the run retrieved from; () where there are none here."""
        s = self.settings
        if file is not None:
            corpus = open_history(file, self.task, self.user_id)
        else:
            try:
                corpus = open_corpus(s.data_source, self.task, seed=s.seed)
                corpus.user(self.user_id)
            except (ValueError, OSError):
                self.missing.append(
                    f"the run put up to {s.retrieved} items of the user's history before each prompt (retrieved = "
                    f"{s.retrieved}), and its data have no user {self.user_id!r} here; give --history FILE, or prompts "
                    "go without them"
                )
                return ()
        return seen_history(corpus.user(self.user_id), held_out=s.held_out)

    def answer(self, text: str, *, arm: str = "stage1+2", raw: bool = False, max_new_tokens: int | None = None) -> str:
        """The continuation of one prompt, up to its first line break.

        Args:
            text: what the task is about, or with `raw` the whole prompt.
            arm: which edits apply, a name of ARMS.
            raw: leave the task's words out.
            max_new_tokens: the longest answer; None: the run's, or the task's.
        """
        pair = Pair(text, "") if raw else self._words.query_pair(Query("", f"{self.task.instruction}{text}", ""))
        written = "plain" if raw else self.settings.prompt_format
        (row,) = tokenize([pair], self.base.tokenizer, self.settings.max_length, prompt_format=written)
        collective, private = ARMS[arm]
        self._questions += 1
        question = Question(
            row, collective and self._federates, self.user_id if private else None, ("chat", str(self._questions))
        )
        length = max_new_tokens or self.settings.max_new_tokens or self.task.max_new_tokens
        (answer,) = self._reader.generate([question], max_new_tokens=length, stop="\n")
        return " ".join(answer.split())


def _lines(interactive: bool) -> Iterator[str]:
    """Prompts from standard input, blank lines left out."""
    while True:
        if interactive:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clients.chat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("vault", type=Path, help="the folder that node config `vault` names")
    add("--user", metavar="ID", help="whose edits; needed where the vault holds several users")
    add("--base-model", metavar="SOURCE", help="hub id, folder, GGUF file or embedded; default: the run's")
    add("--history", type=Path, metavar="FILE", help="the user's history, where the run retrieved items of it")
    add("--arm", choices=tuple(ARMS), default="stage1+2", help="which edits apply (default: stage1+2)")
    add("--compare", action="store_true", help="answer with every arm")
    add("--raw", action="store_true", help="a line is the whole prompt, without the task's words")
    add("--max-new-tokens", type=int, metavar="N", help="longest answer; default: the run's")
    add("--temperature", type=float, default=0.0, metavar="T", help="0: the likeliest answer (default)")
    add_secret_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    interactive = sys.stdin.isatty()
    try:
        if not options.vault.is_dir():
            raise VaultError(f"the vault must be a folder, and there is none at {str(options.vault)!r}")
        if options.temperature < 0 or (options.max_new_tokens is not None and options.max_new_tokens < 1):
            raise ValueError(
                f"--temperature must not be negative and --max-new-tokens at least 1, got {options.temperature} and "
                f"{options.max_new_tokens}"
            )
        vault = Vault(options.vault, secret_of(options))
        user = one_user(vault, options.user)
        chat = Chat(vault, user, base=options.base_model, temperature=options.temperature, history=options.history)
        if interactive:
            print(f"{user} on {chat.base.name}, {chat.task.name}; a text a line, Ctrl-D ends", file=sys.stderr)
        for text in _lines(interactive):
            for arm in ARMS if options.compare else (options.arm,):
                said = chat.answer(text, arm=arm, raw=options.raw, max_new_tokens=options.max_new_tokens)
                print(f"{arm:<9} {said}" if options.compare else said, flush=True)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
