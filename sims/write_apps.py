"""Write the settings that the apps of `sims/` share:  python sims/write_apps.py [--check]

Flower wants one pyproject.toml per app, with every setting in it. What the six share stands once: values in
`app.template.toml` and in `[paper]` of `apps.toml`, and what each key means in `fed/settings/groups.py`, from where it
becomes the comment beside the value; where an app differs is in a table of its own in `apps.toml`. This writes
`<app>/pyproject.toml` and `<app>/paper.toml`. `--check` writes nothing, and exits 1 where a file is not what would be
written, as the tests do.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from console.command import options_of, start, told

from fed.atomic_write import write_text
from fed.settings.groups import GROUPS
from fed.settings.rules import key_of, meaning_of

SIMS = Path(__file__).resolve().parent
CONFIG = "[tool.flwr.app.config]\n"
COLUMN = 30  # where comments begin
_PAPER_HEAD = """\
# The paper's settings for {task}:  python sims/run.py sims/{app} -c sims/{app}/paper.toml -c 'data="…" base-model="…"'
# Its base is Llama-2-7B; the embedded one learns at ten times these rates. Which layers were edited is not in the
# paper's tables, only the ranks added over them: here they lie evenly, and rank × layers is the table's sum.
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
        paper = shared | app_table["paper"]
        settings = "".join(f"{key} = {json.dumps(paper[key])}\n" for key in paper)
        yield SIMS / app / "paper.toml", _PAPER_HEAD.format(**words) + settings


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
