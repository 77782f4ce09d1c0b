"""The job as a user would write it with Flower's example of a PyTorch app and a trainer for one user.

    python -m job.plain '{"method": "perfit", …}' FILE       on PYTHONPATH: sims and the checkout

A ServerApp with Flower's own FedAvg; a ClientApp with `train` and `evaluate`, a SuperNode a user, one at a time (the
machine's cores are its own). Every message loads the base, trains its one user by pyreft's interventions or PEFT's
LoRA, and answers row by row. Data, rows, minibatches, rates, prompts and scores are those of the product, so that the
two do the same job; nothing of what it shares between users, rows or arms is used. The answers' loop is the product's
with one row in it, which is no slower than `transformers.generate`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from safetensors.torch import load_file, save_file

from fed import methods
from fed.answering.evaluation import TestUser, arm_scores, evaluate
from fed.base import model as base_model
from fed.forward.batching import tokenize
from fed.lamp import metrics
from fed.lamp.cohorts import roster, stage1_pairs, stage2_pairs, test_pairs
from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from fed.methods.method import Method, Tensors, UserRows
from fed.settings.settings import Settings

TIMEOUT = 3 * 3600.0  # seconds for a round of all users, one after the other


class Client:
    """What one message of one user needs, made anew for each, as in Flower's example."""

    def __init__(self, message: Message, context: Context) -> None:
        config = message.content.config_records["config"]
        self.settings = s = Settings.parse(json.loads(str(config["job"])))
        self.folder, self.round = Path(str(config["folder"])), int(str(config.get("server-round", 1)))
        self.task = get_task(s.task)
        self.corpus = open_corpus(s.data_source, self.task, seed=s.seed)
        self.users = roster(self.corpus, cohorts=s.cohorts, stage1_users=s.stage1_users, stage2_users=s.stage2_users)
        self.place = int(str(context.node_config["partition-id"]))
        base_model.forget()  # an actor keeps its process between messages, and the example nothing in it
        self.base = base_model.load(s.base_source, device=s.device, dtype=s.dtype)
        self.method: Method = methods.make(s, self.base.skeleton)
        arrays = message.content.array_records["arrays"].to_torch_state_dict()
        self.collective: Tensors = {name: arrays[name] for name in self.method.collective_shapes()}

    def federate(self) -> tuple[Tensors, dict[str, float]]:
        """The user's collective edit after its local epochs, and its numbers."""
        s, user = self.settings, self.users.stage1[self.place]
        pairs = stage1_pairs(self.task, self.corpus.user(user), cohorts=s.cohorts, max_items=s.max_items)
        rows = UserRows(user, tokenize(pairs, self.base.tokenizer, s.max_length))
        (trained,) = self.method.train_collective(self.base, self.collective, [rows], round_number=self.round)
        return trained.tensors, {"num-examples": len(pairs), "loss": trained.result.mean_loss}

    def personalize(self) -> dict[str, float]:
        """Train the user's private edit and keep it on disk."""
        s, user = self.settings, self.users.stage2[self.place]
        pairs = stage2_pairs(self.task, self.corpus.user(user), max_items=s.max_items)
        rows = UserRows(user, tokenize(pairs, self.base.tokenizer, s.max_length))
        (trained,) = self.method.train_private(self.base, self.collective, [rows])
        save_file({name: tensor.contiguous() for name, tensor in trained.tensors.items()}, self._private(user))
        return {"num-examples": 1, "loss": trained.result.mean_loss}

    def test(self) -> dict[str, float]:
        """The four arms, a row at a time; sums over the user's queries."""
        s, users = self.settings, self.users.stage2
        user, partner = users[self.place], users[(self.place + 1) % len(users)]
        asked = test_pairs(self.task, self.corpus.user(user), cohorts=s.cohorts, max_queries=s.max_queries)
        private = {name: load_file(self._private(name)) for name in (user, partner)}
        reader = self.method.reader(self.base, self.collective, private)
        sums: dict[str, dict[str, list[float]]] = {}
        for query, pair in asked:
            row = tokenize([pair], self.base.tokenizer, s.max_length)
            found = evaluate(
                self.task,
                cast(Any, _OneByOne(reader)),
                [TestUser(user, [query], row)],
                [user],
                partners={user: partner if partner != user else None},
                max_new_tokens=s.max_new_tokens,
            )
            for arm, statistics in found[user].items():
                for name, value in statistics.items():
                    sums.setdefault(arm, {}).setdefault(name, []).append(value)
        flat = {f"{arm}/{name}": sum(values) for arm, of in sums.items() for name, values in of.items()}
        return {"num-examples": 1, **flat}

    def _private(self, user: str) -> Path:
        return self.folder / f"{user}.safetensors"


class _OneByOne:
    """A reader that is asked one question at a time."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def losses(self, questions: Any, on_rows: Callable[[int], None] | None = None) -> list[Any]:
        return [loss for question in questions for loss in self._reader.losses([question], on_rows)]

    def generate(self, questions: Any, **options: Any) -> list[str]:
        return [text for question in questions for text in self._reader.generate([question], **options)]


client = ClientApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    edit, numbers = Client(message, context).federate()
    reply = RecordDict({"arrays": ArrayRecord(edit), "metrics": MetricRecord(dict(numbers))})
    return Message(content=reply, reply_to=message)


@client.evaluate()
def evaluated(message: Message, context: Context) -> Message:
    here = Client(message, context)
    private = message.content.config_records["config"]["phase"] == "personalize"
    numbers = here.personalize() if private else here.test()
    return Message(content=RecordDict({"metrics": MetricRecord(dict(numbers))}), reply_to=message)


def server_of(config: dict[str, Any], folder: Path, file: Path) -> ServerApp:
    """The ServerApp: rounds of FedAvg, each user's private training, then the test; writes the scores to a file."""
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        settings = Settings.parse(config)
        users = settings.stage2_users
        method = methods.make(settings, base_model.load(settings.base_source, dtype=settings.dtype).skeleton)
        told: dict[str, Any] = {"job": json.dumps(config), "folder": str(folder)}
        few = {"min_train_nodes": 1, "min_evaluate_nodes": users, "min_available_nodes": users}
        result = FedAvg(fraction_evaluate=0.0, **few).start(  # type: ignore[arg-type]
            grid,
            ArrayRecord(method.initial_collective()),
            num_rounds=settings.rounds,
            timeout=TIMEOUT,
            train_config=ConfigRecord(dict(told)),
        )
        for phase in ("personalize", "test"):
            tested = FedAvg(fraction_train=0.0, **few).start(  # type: ignore[arg-type]
                grid,
                result.arrays,
                num_rounds=1,
                timeout=TIMEOUT,
                evaluate_config=ConfigRecord(told | {"phase": phase}),
            )
        # FedAvg gives means over users, of the same number of them in every arm.
        means = dict(tested.evaluate_metrics_clientapp[1])
        arms: dict[str, dict[str, float]] = {}
        for name, value in means.items():
            arm, _, statistic = name.partition("/")
            if statistic:
                arms.setdefault(arm, {})[statistic] = float(value) * users  # type: ignore[arg-type]
        scores = {arm: arm_scores(get_task(settings.task), [metrics.merge([sums])]) for arm, sums in arms.items()}
        file.write_text(json.dumps(scores))

    return server


def main() -> int:
    from flwr.simulation import run_simulation

    config, file = json.loads(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="perfit-plain-") as folder:
        run_simulation(
            server_of(config, Path(folder), file),
            client,
            num_supernodes=int(config["stage2-users"]),
            backend_config={"client_resources": {"num_cpus": float(config.pop("cores", 2))}},
        )
    return int(not file.is_file())


if __name__ == "__main__":
    sys.exit(main())
