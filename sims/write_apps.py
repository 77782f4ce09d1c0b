"""Write the settings that the apps of `sims/` share:  python sims/write_apps.py [--check]

Flower wants one pyproject.toml per app, with every setting in it. What the six share stands once: in
`app.template.toml` (keys, comments, defaults) and in `[paper]` of `apps.toml`; where an app differs is in a table
of its own there. This writes `<app>/pyproject.toml` and `<app>/paper.toml`. `--check` writes nothing, and exits 1 where
a file is not what would be written, as the tests do.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from console.command import options_of, start, told

from fed.atomic_write import write_text

SIMS = Path(__file__).resolve().parent
_SETTING = re.compile(r"^(?P<key>[\w-]+) = (?P<value>\"[^\"]*\"|\S+)(?P<gap> *)(?P<comment>#.*)?$")
_PAPER_HEAD = """\
# The paper's settings for {task}:  python sims/run.py sims/{app} -c sims/{app}/paper.toml -c 'data="…" base-model="…"'
# Its base is Llama-2-7B; the embedded one learns at ten times these rates. Which layers were edited is not in the
# paper's tables, only the ranks added over them: here they lie evenly, and rank × layers is the table's sum.
# Written by `python sims/write_apps.py` from sims/apps.toml.
"""


def files() -> Iterator[tuple[Path, str]]:
    """(path, content) of every file that is written.

    Raises:
        ValueError: an app changes a setting that the template has not.
    """
    template = (SIMS / "app.template.toml").read_text(encoding="utf-8")
    apps = tomllib.loads((SIMS / "apps.toml").read_text(encoding="utf-8"))
    shared = apps.pop("paper")
    for app, app_table in apps.items():
        words = {"app": app, "task": app_table["task"], "description": app_table["description"]}
        text = template
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        yield SIMS / app / "pyproject.toml", _with(text, app_table.get("small", {}), app)
        paper = shared | app_table["paper"]
        head = _PAPER_HEAD.format(**words)
        yield SIMS / app / "paper.toml", head + "".join(f"{key} = {json.dumps(paper[key])}\n" for key in paper)


def _with(text: str, changes: Mapping[str, Any], app: str) -> str:
    """The text with other values for the settings that `changes` names; comments stay in their column."""
    head, section, settings = text.partition("[tool.flwr.app.config]\n")
    left = dict(changes)
    lines = []
    for line in settings.splitlines():
        setting = _SETTING.match(line)
        if setting and setting["key"] in left:
            body = f"{setting['key']} = {json.dumps(left.pop(setting['key']))}"
            column = len(line) - len(setting["comment"] or "")
            line = f"{body.ljust(column - 2)}  {setting['comment']}" if setting["comment"] else body
        lines.append(line)
    if left:
        raise ValueError(f"{app} in sims/apps.toml may change settings of sims/app.template.toml, got {sorted(left)}")
    return head + section + "\n".join(lines) + "\n"


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
