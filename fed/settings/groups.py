"""Every run-config key: its type, its rule, and what it means, in six groups.

Field names are the keys with `_` for `-`. A meaning is the comment that stands beside the key in sims/*/pyproject.toml.
Keys of later releases have defaults, so that a settings file or a vault written before them still parses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fed.averages.average import AVERAGES
from fed.base.device import DTYPES
from fed.communication.wire import CODINGS, WIRE_DTYPES
from fed.lamp.rouge_words import TOKENIZERS
from fed.lamp.tasks import TASKS
from fed.settings import paths
from fed.settings.methods import ENGINES, METHODS
from fed.settings.rules import (
    among,
    at_least,
    below_one,
    between,
    block,
    block_numbers,
    blocks,
    flag,
    number,
    one_of,
    places,
    private_blocks,
    share,
    text,
    text_or_none,
    within,
)

COHORTS = ("paper", "all")
ANSWERS = ("decode", "choice")
HISTORY_ROWS = ("bare", "pairs")
STAGE1 = ("federated", "pooled")
PROMPT_FORMATS = ("plain", "chat")
SCHEDULES = ("linear", "constant")
# Flower's that compare replies entry by entry -> the average that compares the maps, which a run has to use instead.
OF_ENTRIES = {
    "fedmedian": "median",
    "fedtrimmedavg": "trimmed",
    "krum": "krum",
    "multikrum": "multikrum",
    "bulyan": "bulyan",
}
STRATEGIES = ("fedavg", "fedavgm", "fedadam", "fedadagrad", "fedyogi", "fedprox", *OF_ENTRIES)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Whose texts, and which of them."""

    app: str = text("the app's own name")
    task: str = one_of(TASKS, "LaMP_2N, LaMP_2M, LaMP_3, LaMP_4, LaMP_5 or LaMP_7")
    data: str = text("synthetic users, or a folder in OPPU's or LaMP's layout, or its parent")
    cohorts: str = one_of(COHORTS, "paper: some users federate, others personalize; all: every user does both")
    stage1_users: int = at_least(0, "users who federate, the first by id; 0 = all")
    stage2_users: int = at_least(
        0, "who personalize and are tested, first by id (LaMP's layout: longest histories); 0 = all"
    )
    max_items: int = at_least(0, "training rows a user, the latest: by date, else the file's last; 0 = all")
    held_out: int = at_least(0, "n = test on the last n history items, kept from training, not on queries", default=0)
    history_rows: str = one_of(
        HISTORY_ROWS,
        "of tweets without inputs: bare = the cue alone; or pairs = a plain wording by the base",
        default="bare",
    )
    retrieved: int = at_least(
        0, "items of the user's history before each prompt (RAG, by BM25), with any method", default=0
    )
    profile: bool = flag(
        "a text about the user, written by the base, before that (PAG), with any method", default=False
    )

    @property
    def data_source(self) -> str:
        """`data`, a relative folder made absolute."""
        return paths.data_source(self.data)


@dataclass(frozen=True, kw_only=True)
class Base:
    """The base model, and what it computes with."""

    base_model: str = text("embedded, a hub id, a folder or a GGUF file")
    device: str = text("auto, or by torch's name: cpu, cuda, cuda:1, mps, xpu")
    dtype: str = one_of(("auto", *DTYPES), "auto = the one that the device multiplies fastest")
    prompt_format: str = one_of(
        PROMPT_FORMATS, "plain, as in the paper; or chat = in turns, by the base's own template", default="plain"
    )
    max_length: int = at_least(16, "tokens a row")
    token_budget: int = at_least(16, "padded tokens of one forward pass")
    activation_cache: int = at_least(
        0, "MiB a process for rows' states below a layer's first edit; 0 = off", default=512
    )

    @property
    def base_source(self) -> str:
        """`base-model`, a relative folder or file made absolute where there is one."""
        return paths.base_source(self.base_model)


@dataclass(frozen=True, kw_only=True)
class Edits:
    """The method, and the edits that it trains: where they apply, of what rank."""

    method: str = one_of(METHODS, "perfit, lora-c, lora-p, oppu, rag, …: fed/settings/methods.py lists them")
    engine: str = one_of(
        ENGINES, "batched: all users at once; or pyreft (the reference, slower: one user after the other)"
    )
    layers: str = blocks("decoder blocks edited, from 0; or all")
    stage1_rank: int = at_least(1, "of the collective edit, per layer")
    stage2_rank: int = at_least(1, "of the private edit, per layer")
    stage2_layers: str = private_blocks("blocks of the private edit; same = those of layers; last2 = their last two")
    positions: str = places("tokens edited: all-f1 = not the first, the attention sink; or all, prompt, last, f3+l3")
    stage2_positions: str = places(
        "those of the private edit; same = as in stage 1; l2 = the prompt's last two; or answer", or_same=True
    )
    style_layer: int = block("of stylevector: the decoder block, from 0; -1 = the middle one", default=-1)
    style_strength: float = number("of stylevector: how much of the style is added", default=0.1)

    def edited_layers(self, blocks: int) -> tuple[int, ...]:
        """The decoder blocks to edit in a base model of `blocks` blocks. Raises SettingsError for one it has not."""
        return within("layers", block_numbers("layers", self.layers), blocks)

    def private_layers(self, blocks: int) -> tuple[int, ...]:
        """The same for the private edit."""
        numbers = among("stage2-layers", self.stage2_layers, self.edited_layers(blocks))
        return within("stage2-layers", numbers, blocks)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How both stages train."""

    local_epochs: int = at_least(1, "passes over a user's rows in a round of stage 1")
    stage2_epochs: int = at_least(1, "passes over a user's history in stage 2")
    batch_size: int = at_least(1, "rows of a step, a user's own")
    stage1_lr: float = between(0, 1, "AdamW's rate in stage 1")
    stage2_lr: float = between(0, 1, "AdamW's rate in stage 2")
    warmup: float = share("of a user's steps, with a rising rate, in both stages", default=0.1, or_none=True)
    schedule: str = one_of(
        SCHEDULES, "of stage 1's rate: linear = warm-up, then down to 0; constant = neither", default="linear"
    )
    weight_decay: float = at_least(0, "AdamW's, in both stages")
    clip: float = at_least(0, "largest norm of a user's gradient; 0 = any")
    seed: int = at_least(0, "of all draws: synthetic users, edits, batches, sampled users and tokens")


@dataclass(frozen=True, kw_only=True)
class Federation:
    """Stage 1's rounds, what travels in them, and whom the server waits for."""

    stage1: str = one_of(
        STAGE1,
        "federated; or pooled = rounds × local-epochs epochs on everybody's rows, the reference",
        default="federated",
    )
    strategy: str = one_of(STRATEGIES, "of the server's step: fedavg, fedavgm, fedadam, fedadagrad, fedyogi or fedprox")
    rounds: int = at_least(1, "federated rounds of stage 1")
    fraction: float = share("of stage 1's users, sampled in each round")
    average: str = one_of(
        AVERAGES, "of users' edits: svd, polar, exact, frozen-r, fedavg, median, krum, …: fed/averages"
    )
    exact_rank: int = at_least(
        0, "rows that average exact may use in a block; 0 = the hidden size, which is always enough", default=0
    )
    server_lr: float = at_least(
        0, "of the server's step; 0 = the strategy's: 1, or 0.01 of fedadam, fedadagrad and fedyogi", default=0.0
    )
    momentum: float = below_one("of the server's steps: fedavgm's, fedadam's and fedyogi's", default=0.9)
    proximal_mu: float = at_least(0, "of fedprox: how hard users are pulled to where the round began", default=0.1)
    attackers: int = at_least(
        0, "users of a round that median, krum, multikrum, trimmed and bulyan expect to lie", default=0
    )
    wire_dtype: str = one_of(
        WIRE_DTYPES, "edits on the network: float32, float64; changes of them: float16, bfloat16, int8, int4"
    )
    wire_coding: str = one_of(
        CODINGS, "of these changes: plain; or deflate = entropy-coded, of a size that no shape tells", default="plain"
    )
    node_timeout: int = at_least(1, "seconds to wait for SuperNodes")
    min_nodes: int = at_least(0, "SuperNodes to wait for; 0 = one, who says how many a simulation has", default=0)
    reply_timeout: int = at_least(0, "seconds to wait for devices in each step; 0 = as long as it takes", default=0)
    min_replies: int = at_least(1, "users of a round of stage 1 whose replies must be left to average", default=1)
    norm_bound: float = at_least(0, "× a round's median size of change, the most of a user's; 0 = any", default=10.0)
    drop_rate: float = below_one("chance of a device to drop out of a round that it is asked to join", default=0.0)
    slow_rate: float = at_least(0, "simulated seconds of a step on the slowest device; 0 = no time", default=0.0)
    round_deadline: float = at_least(0, "simulated seconds after which replies come too late; 0 = never", default=0.0)
    over_selection: float = at_least(1, "× the users of a round are asked, and the first to answer count", default=1.0)
    run_deadline: int = at_least(0, "seconds that the whole run may take; 0 = as long as it takes", default=604800)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What is asked, how it is answered, and where results go."""

    max_queries: int = at_least(0, "tested a user, the first; 0 = all")
    answer: str = one_of(
        ANSWERS, "decode = a text; choice = the likeliest of the labels (LaMP_2N, LaMP_2M, LaMP_3)", default="decode"
    )
    rouge_tokenizer: str = one_of(
        TOKENIZERS,
        "whose words ROUGE counts: lamp = a–z and 0–9; unicode = any script's, LaMP's beside",
        default="lamp",
    )
    max_new_tokens: int = at_least(0, "of an answer; 0 = losses only")
    temperature: float = at_least(0, "0 = greedy; the paper samples at 0.1")
    top_k: int = at_least(1, "of sampling: the likeliest k tokens alone", default=10)
    top_p: float = share("of sampling: the likeliest tokens alone that together have this probability", default=0.9)
    output_dir: str = text("where results go, relative to this checkout")
    resume: str = text_or_none("the folder of a run to go on with, whose results then go there; empty = a new run")

    def run_folder(self, run_id: int) -> Path:
        """Where this run's results go: an absolute path; that of the run which it goes on with, where it resumes."""
        if self.resume:
            return paths.from_checkout(self.resume)
        return paths.from_checkout(self.output_dir) / str(run_id)


GROUPS = (Data, Base, Edits, Training, Federation, Answers)
