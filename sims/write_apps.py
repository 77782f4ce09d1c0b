"""Write the settings that the apps of `sims/` share:  python sims/write_apps.py [--check]

Flower wants one pyproject.toml per app, with every setting in it. What the six share stands once: values in
`app.template.toml` and in `[paper]` of `apps.toml`, and what each key means in `fed/settings/groups.py`, from where it
becomes the comment beside the value; where an app differs is in a table of its own in `apps.toml`. This writes
`<app>/pyproject.toml` and `<app>/paper.toml`, which says how far its stage 1 falls short of the paper's. `--check`
writes nothing, and exits 1 where a file is not what would be written, as the tests do.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import console.installed  # noqa: F401  a Python without the project ends here
from console.command import options_of, start, told

from fed import methods
from fed.atomic_write import write_text
from fed.base.skeleton import skeleton
from fed.settings.groups import GROUPS
from fed.settings.rules import key_of, meaning_of
from fed.settings.settings import Settings
from fed.training.plan import summed_rate

SIMS = Path(__file__).resolve().parent
CONFIG = "[tool.flwr.app.config]\n"
COLUMN = 30  # where comments begin
_PAPER_HEAD = """\
# The paper's settings for {task}:  python sims/run.py sims/{app} -c sims/{app}/paper.toml -c 'data="…" base-model="…"'
# Its base is Llama-2-7B; the embedded one learns at ten times the paper's rates. Which layers were edited is not in
# its tables, only the ranks added over them: here they lie evenly, and rank × layers is the table's sum.
# Stage 1 is federated; with sims/pooled.toml over this file it is central, as the paper's. Here AdamW's rates add up to
# {share:.1%} of those of that central training ({rows:,} rows; users of at most a minibatch).
# Written by `python sims/write_apps.py` from sims/apps.toml.
"""


def files() -> Iterator[tuple[Path, str]]:
    """(path, content) of every file that is written.

    Raises:
        ValueError: the template has not every setting, or an app changes one that there is not.
    """
    template = (SIMS / "app.template.toml").read_text(encoding="utf-8")
    apps = tomllib.loads((SIMS / "apps.toml").read_text(encoding="utf-8"))
    shared = apps.pop("paper")
    for app, app_table in apps.items():
        words = {"app": app, "task": app_table["task"], "description": app_table["description"]}
        text = template
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        values = tomllib.loads(text)["tool"]["flwr"]["app"]["config"]
        head = text.partition(CONFIG)[0] + CONFIG
        yield SIMS / app / "pyproject.toml", head + commented({**values, **app_table.get("small", {})}, app)
        paper, rows = shared | app_table["paper"], app_table["stage1-rows"]
        settings = "".join(f"{key} = {json.dumps(paper[key])}\n" for key in paper)
        share = share_of_pooled(values | paper, rows)
        yield SIMS / app / "paper.toml", _PAPER_HEAD.format(**words, share=share, rows=rows) + settings


def share_of_pooled(config: Mapping[str, Any], rows: int) -> float:
    """Stage 1's summed rate as a share of that of the central training of `sims/pooled.toml`.

    Args:
        config: federated settings.
        rows: of all users together; each has a minibatch at most.
    """
    pooled = tomllib.loads((SIMS / "pooled.toml").read_text(encoding="utf-8"))
    return stage1_rate(Settings.parse(config), 1) / stage1_rate(Settings.parse({**config, **pooled}), rows)


def stage1_rate(settings: Settings, rows: int) -> float:
    """The rates of all steps of stage 1, summed: those of an average user with so many rows, or of the pooled ones."""
    plan = methods.make(settings, skeleton("llama-2-7b")).plan(1)
    return settings.stage1_rounds * summed_rate(plan, plan.epochs * math.ceil(rows / plan.batch_size))


def commented(values: Mapping[str, Any], app: str) -> str:
    """The settings, group by group, each with its meaning beside it. Raises ValueError where they are not all."""
    known = {key_of(one.name) for group in GROUPS for one in fields(group)}
    if wrong := sorted(known ^ set(values)):
        raise ValueError(f"{app} must have every setting of fed/settings/groups.py and no other; correct {wrong}")
    paragraphs = []
    for group in GROUPS:
        lines = [f"# {group.__name__}. {group.__doc__}"]
        for one in fields(group):
            setting = f"{key_of(one.name)} = {json.dumps(values[key_of(one.name)], ensure_ascii=False)}"
            lines.append(f"{setting.ljust(COLUMN - 2)}  # {meaning_of(one)}")
        paragraphs.append("\n".join(lines) + "\n")
    return "\n".join(paragraphs)


@told()
def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; exits 1 where a file differs")
    check = parser.parse_args().check
    stale = [(p, t) for p, t in files() if not p.is_file() or p.read_text(encoding="utf-8") != t]
    for path, text in stale:
        print(f"{'differs' if check else 'wrote'}: {path.relative_to(SIMS.parent)}")
        if not check:
            path.parent.mkdir(exist_ok=True)
            write_text(path, text)
    return int(check and bool(stale))


if __name__ == "__main__":
    start(main)
