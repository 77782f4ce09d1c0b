"""Every app's pyproject.toml is one that Flower and this project accept."""

import ast
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from fed import methods
from fed.base.skeleton import skeleton
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
    assert settings.stage2_epochs == 2 and settings.stage2_lr == 1e-4


def test_over_a_paper_preset_the_pooled_file_is_the_papers_stage_1(file, parsed):
    layers = [file.parent / "paper.toml", CHECKOUT / "sims" / "pooled.toml"]
    config = parsed["tool"]["flwr"]["app"]["config"]
    for layer in layers:
        config |= tomllib.loads(layer.read_text(encoding="utf-8"))
    settings = Settings.parse(config)
    plan = methods.make(settings, skeleton("llama-2-7b")).plan(1)
    assert (settings.stage1, settings.stage1_rounds) == ("pooled", 1)
    assert (plan.epochs, plan.rate, plan.warmup, plan.constant) == (3, 1e-4, 0.1, False)


# Stage 1's summed rate as a share of the paper's central training: of paper.toml, and of three rounds of one local
# epoch at the paper's own rate and schedule, one over so many.
SHARES = {
    "lamp2m": (1.003, 199),
    "lamp2n": (0.959, 229),
    "lamp3": (0.054, 11194),
    "lamp4": (1.010, 455),
    "lamp5": (0.149, 4019),
    "lamp7": (0.647, 927),
}


def test_by_how_much_each_federated_preset_falls_short_of_the_papers_stage_1(file, parsed):
    write_apps = import_module("write_apps")
    share, plain = SHARES[file.parent.name]
    rows = tomllib.loads((CHECKOUT / "sims" / "apps.toml").read_text(encoding="utf-8"))[file.parent.name]["stage1-rows"]
    text = (file.parent / "paper.toml").read_text(encoding="utf-8")
    preset = parsed["tool"]["flwr"]["app"]["config"] | tomllib.loads(text)
    assert write_apps.share_of_pooled(preset, rows) == pytest.approx(share, abs=5e-4)
    assert f"# {write_apps.share_of_pooled(preset, rows):.1%} of those of that central training ({rows:,} rows;" in text
    before = preset | {"rounds": 3, "local-epochs": 1, "stage1-lr": 1e-4, "schedule": "linear"}
    assert 1 / write_apps.share_of_pooled(before, rows) == pytest.approx(plain, rel=0.01)
    # No number of rounds is nearer, up to 30; and no rate is above 1e-3.
    shares = {r: write_apps.share_of_pooled(preset | {"rounds": r}, rows) for r in range(1, 31)}
    assert preset["rounds"] == min(shares, key=lambda r: abs(shares[r] - 1)) and preset["stage1-lr"] <= 1e-3


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
