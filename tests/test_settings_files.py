"""Every app's pyproject.toml is one that Flower and this project accept."""

import ast
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from fed.communication.published import PAPER_SUM_RANKS
from fed.lamp.tasks import TASKS, get_task
from fed.settings.groups import GROUPS
from fed.settings.rules import meaning_of
from fed.settings.settings import Settings, keys

CHECKOUT = Path(__file__).resolve().parents[1]
FILES = sorted((CHECKOUT / "sims").glob("*/pyproject.toml"))


def apps_of(source: str) -> list[str]:
    """How `app` is bound at the top of a module: "plain" is what Flower's check of the source finds."""
    kinds = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["app"]:
            kinds.append("plain")
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "app":
            kinds.append("annotated")
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == "app" for a in node.names):
            kinds.append("imported")
    return kinds


@pytest.fixture(params=FILES, ids=[file.parent.name for file in FILES])
def file(request):
    return request.param


@pytest.fixture
def parsed(file):
    return tomllib.loads(file.read_text(encoding="utf-8"))


def test_there_are_apps_to_check():
    names = [f"lamp{task.removeprefix('LaMP_').lower()}" for task in TASKS]
    assert sorted(names) == [file.parent.name for file in FILES]
    for file in FILES:
        assert (file.parent / "paper.toml").is_file()


def test_the_files_are_those_that_the_shared_template_makes(monkeypatch, capsys):
    """A change of an app's settings belongs in sims/app.template.toml or sims/apps.toml; of words, in fed/settings."""
    monkeypatch.setattr(sys, "argv", ["write_apps", "--check"])
    code = import_module("write_apps").main()
    assert code == 0, f"{capsys.readouterr()}: run python sims/write_apps.py"


def test_what_a_key_means_stands_beside_it_in_the_same_words_and_fits_the_line(file):
    _, _, config = file.read_text(encoding="utf-8").partition("[tool.flwr.app.config]\n")
    lines = [line for line in config.splitlines() if line and not line.startswith("#")]
    beside = {line.partition(" = ")[0]: line.partition("  # ")[2] for line in lines}
    assert beside == {key: meaning_of(one) for key, one in keys().items()}
    assert [len(line) for line in config.splitlines() if len(line) > 120] == []
    heads = [line for line in config.splitlines() if line.startswith("#")]
    assert heads == [f"# {group.__name__}. {group.__doc__}" for group in GROUPS]


def test_an_app_that_lacks_a_setting_or_has_one_too_many_is_told_and_not_written(parsed):
    write_apps = import_module("write_apps")
    config = parsed["tool"]["flwr"]["app"]["config"]
    assert tomllib.loads(write_apps.commented(config, "x")) == config
    with pytest.raises(ValueError, match=r"x must have every setting .* correct \['round'\]"):
        write_apps.commented(config | {"round": 1}, "x")
    with pytest.raises(ValueError, match=r"correct \['rounds'\]"):
        write_apps.commented({key: value for key, value in config.items() if key != "rounds"}, "x")


def test_a_paper_preset_has_the_ranks_of_the_papers_tables(file, parsed):
    preset = tomllib.loads((file.parent / "paper.toml").read_text(encoding="utf-8"))
    settings = Settings.parse({**parsed["tool"]["flwr"]["app"]["config"], **preset})
    edited = len(settings.edited_layers(32))
    sums = (edited * settings.stage1_rank, edited * settings.stage2_rank)
    assert sums == PAPER_SUM_RANKS[settings.task.removeprefix("LaMP_")]
    assert settings.batch_size == {"LaMP_3": 2, "LaMP_5": 4}.get(settings.task, 16)
    assert settings.max_new_tokens == get_task(settings.task).max_new_tokens
    assert (settings.temperature, settings.top_k, settings.top_p) == (0.1, 10, 0.9)
    assert settings.rounds * settings.local_epochs * settings.fraction == 3 and settings.stage2_epochs == 2


def test_labels_are_chosen_by_default_where_a_task_has_some(parsed):
    config = parsed["tool"]["flwr"]["app"]["config"]
    assert config["answer"] == ("choice" if get_task(config["task"]).labels else "decode")


def test_an_app_that_flower_could_not_find_is_told_apart():
    assert apps_of("x = 1\napp = ClientApp()\n@app.train()\ndef f(): ...") == ["plain"]
    assert apps_of("app: ClientApp = ClientApp()") == ["annotated"]
    assert apps_of("from a import app") == ["imported"] and apps_of("def f():\n    app = 1") == []


def test_the_run_config_is_accepted_and_names_its_own_app(file, parsed):
    settings = Settings.parse(parsed["tool"]["flwr"]["app"]["config"])
    assert settings.app == file.parent.name == parsed["project"]["name"]
    assert settings.output_dir == f"runs/{settings.app}"
    assert get_task(settings.task).name == settings.task


def test_a_settings_file_beside_an_app_holds_settings_of_it(file, parsed):
    config = parsed["tool"]["flwr"]["app"]["config"]
    for other in file.parent.glob("*.toml"):
        if other != file:
            changes = tomllib.loads(other.read_text(encoding="utf-8"))
            assert changes and Settings.parse({**config, **changes}) != Settings.parse(config)


def test_the_run_config_is_flat_scalars(parsed):
    """Flower's override check and its wire format know texts, numbers and booleans only."""
    assert all(isinstance(value, str | int | float) for value in parsed["tool"]["flwr"]["app"]["config"].values())


def test_the_components_are_the_two_apps_of_this_checkout(parsed):
    components = parsed["tool"]["flwr"]["app"]["components"]
    assert components == {"serverapp": "server_strategy.app:app", "clientapp": "clients.app:app"}
    for component in components.values():
        module, _, attribute = component.partition(":")
        source = (CHECKOUT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert attribute == "app" and apps_of(source) == ["plain"]


def test_no_dependency_is_listed_for_flower_would_resolve_a_second_environment(parsed):
    assert parsed["project"]["dependencies"] == []


def test_no_federation_is_listed_for_flower_would_rewrite_the_file(parsed):
    assert "federations" not in parsed["tool"]["flwr"]


def test_the_name_is_one_that_flower_accepts(parsed):
    name = parsed["project"]["name"]
    assert name.isascii() and name.replace("-", "").isalnum()
