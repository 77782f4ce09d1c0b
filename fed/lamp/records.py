"""LaMP's users: a source's name in, one `Corpus` with random access out.

A source is the embedded synthetic users or a folder in one of the two layouts of `fed.lamp.layouts`. The
files may be gigabytes, so they are read record by record, checked, and written once as Arrow files by Hugging
Face `datasets`; later opens, in any number of processes, map those into memory and parse nothing. `datasets`
is imported when a folder is opened, never when this module is: a device reads its own history
(`fed.lamp.own_history`) and needs none of it.
Absent on purpose: downloading (LaMP's terms are the user's to accept) and clearing out-of-date cache entries.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fed.cache import cache_home
from fed.lamp.layouts import Cohort, find_files, read_users
from fed.lamp.parsing import RecordError
from fed.lamp.tasks import Task
from fed.lamp.user import Query, User

__all__ = ["Corpus", "Query", "RecordError", "User", "open_corpus"]

READER_VERSION = 3  # raise it when the rules or the cached columns change
COHORTS = ("others", "test")
_USERS_A_BATCH = 64  # of the Arrow file: what building holds in memory


class Corpus:
    """The users of one task, one by one: only their ids and sizes are in memory.

    `cohorts` maps "others" and "test" to their users' ids, sorted. `lamp_layout`: each user is one question of LaMP's
    own files, where no one has chosen the tested ones by the length of their histories (`fed.lamp.cohorts.roster`).
    """

    def __init__(
        self,
        task: Task,
        source: str,
        cohorts: Mapping[str, tuple[str, ...]],
        sizes: Callable[[str], tuple[int, int]],
        load: Callable[[str], User],
        *,
        lamp_layout: bool = False,
    ) -> None:
        self.lamp_layout = lamp_layout
        self.task = task
        self.source = source
        self.cohorts = {cohort: tuple(sorted(cohorts[cohort])) for cohort in COHORTS}
        self._known = frozenset(user_id for ids in self.cohorts.values() for user_id in ids)
        self._sizes, self._load = sizes, load

    def user(self, user_id: str) -> User:
        """The user's profile and queries. Raises ValueError for an unknown id."""
        return self._load(self._check(user_id))

    def sizes(self, user_id: str) -> tuple[int, int]:
        """(profile items, queries) without reading their texts. Raises ValueError for an unknown id."""
        return self._sizes(self._check(user_id))

    def _check(self, user_id: str) -> str:
        if user_id not in self._known:
            raise ValueError(f"a user of {self.source} must be in its cohorts; got {user_id!r}; correct the id")
        return user_id


def open_corpus(source: str, task: Task, *, seed: int = 0, cache_dir: Path | None = None) -> Corpus:
    """The users of `task` in `source`: "synthetic", "synthetic:USERS", or a folder in one of the two layouts.

    The folder is the task's own or its parent. `seed` is for synthetic users. `cache_dir` keeps the Arrow
    files (default: `lamp` in `fed.cache.cache_home()`).
    Raises ValueError for any other source, RecordError (a ValueError) for the first bad record in it.
    """
    if source == "synthetic" or source.startswith("synthetic:"):
        return _open_synthetic(source, task, seed)
    files = find_files(Path(source).expanduser(), task)
    if cache_dir is None:
        cache_dir = cache_home() / "lamp"
    entry = Path(cache_dir).expanduser() / _key(files, task)
    if not entry.is_dir():
        _build(entry, files, task)
    return _open_entry(entry, task, source, lamp_layout=files[0].lamp_layout)


def _open_synthetic(source: str, task: Task, seed: int) -> Corpus:
    from fed.lamp.synthetic import users as synthetic
    from fed.lamp.synthetic.tasks import make_user

    count = source.partition(":")[2] if ":" in source else str(synthetic.USERS)
    if not (count.isascii() and count.isdigit() and int(count) > 0):
        rule = "a synthetic source must be 'synthetic' or 'synthetic:USERS', where USERS is at least 1"
        raise ValueError(f"{rule}; got {source!r}; correct it")
    ids = synthetic.user_ids(int(count))
    sizes = (synthetic.PROFILE_ITEMS, synthetic.QUERIES)
    return Corpus(task, source, ids, lambda _: sizes, lambda user_id: make_user(task, user_id, seed=seed))


def _rows(files: tuple[Cohort, Cohort], task: Task) -> Iterator[dict[str, Any]]:
    """The cached columns, a user a row. Raises RecordError for a user id that occurs twice, in any file."""
    seen: dict[str, str] = {}
    for cohort in files:
        for place, user in read_users(cohort, task):
            if user.user_id in seen:
                rule = f"every user id must occur once, and {seen[user.user_id]} has it too"
                raise replace(place, user_id=user.user_id).error(rule, user.user_id, "rename or remove one")
            seen[user.user_id] = f"{place.file.name} record {place.record}"
            yield {
                "user_id": user.user_id,
                "cohort": cohort.name,
                "items": len(user.profile),
                "asked": len(user.queries),
                "profile": json.dumps(user.profile, ensure_ascii=False),
                "queries": json.dumps([[q.id, q.input, q.gold] for q in user.queries], ensure_ascii=False),
            }


def _key(files: tuple[Cohort, Cohort], task: Task) -> str:
    """The name of the cache entry: changes with the reader, the task, and any file's path, size or time."""
    paths = [path for cohort in files for path in (cohort.users, cohort.golds) if path is not None]
    stats = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    text = json.dumps([READER_VERSION, task.name, stats])
    return f"{task.name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def _build(entry: Path, files: tuple[Cohort, Cohort], task: Task) -> None:
    """Write the entry's Arrow files beside it, then rename: whoever builds the same entry first wins."""
    datasets = _import_datasets()
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=entry.parent, prefix=".building-")
    except OSError as error:
        rule = "the cache folder must be writable"
        raise ValueError(f"{rule}; got {error}; set PERFIT_CACHE") from None
    texts = dict.fromkeys(("user_id", "cohort", "profile", "queries"), datasets.Value("large_string"))
    features = datasets.Features(texts | dict.fromkeys(("items", "asked"), datasets.Value("int32")))
    bars = datasets.are_progress_bars_disabled()
    with scratch as name:
        datasets.disable_progress_bars()
        try:
            built = datasets.Dataset.from_generator(
                _rows,
                features=features,
                cache_dir=name,
                gen_kwargs={"files": files, "task": task},
                writer_batch_size=_USERS_A_BATCH,
            )
        except datasets.exceptions.DatasetGenerationError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, RecordError):
                cause = cause.__cause__ or cause.__context__
            if cause is not None:
                raise cause from None
            raise
        finally:
            if not bars:
                datasets.enable_progress_bars()
        finished = Path(name) / "finished"
        finished.mkdir()
        for number, file in enumerate(built.cache_files):
            os.replace(file["filename"], finished / f"{number:05d}.arrow")
        try:
            finished.rename(entry)
        except OSError:
            if not entry.is_dir():  # another process finished first: its entry is as good as ours
                raise


def _open_entry(entry: Path, task: Task, source: str, *, lamp_layout: bool) -> Corpus:
    datasets = _import_datasets()
    parts = [datasets.Dataset.from_file(str(path)) for path in sorted(entry.glob("*.arrow"))]
    table = datasets.concatenate_datasets(parts)
    columns = [table.data.column(name).to_pylist() for name in ("user_id", "cohort", "items", "asked")]
    index = {user_id: (row, items, asked) for row, (user_id, _, items, asked) in enumerate(zip(*columns, strict=True))}
    ids = dict(zip(columns[0], columns[1], strict=True))
    cohorts = {cohort: tuple(one for one, its in ids.items() if its == cohort) for cohort in COHORTS}

    def load(user_id: str) -> User:
        row = table[index[user_id][0]]
        return User(
            user_id,
            tuple(json.loads(row["profile"])),
            tuple(Query(*query) for query in json.loads(row["queries"])),
        )

    return Corpus(task, source, cohorts, lambda user_id: index[user_id][1:], load, lamp_layout=lamp_layout)


def _import_datasets() -> Any:
    try:
        importlib.import_module("datasets.exceptions")
    except ImportError as error:
        rule = "reading a folder of LaMP needs the package 'datasets'"
        raise ImportError(f"{rule}; got {error}; pip install 'perfit-fed[sim]'") from None
    return importlib.import_module("datasets")
