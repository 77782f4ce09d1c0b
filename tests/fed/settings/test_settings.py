"""The run config: what is accepted, and that every mistake is told by its key in one line."""

import json
import subprocess
import sys
import tomllib
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

from fed.methods import Method
from fed.settings import paths
from fed.settings.groups import GROUPS, OF_ENTRIES
from fed.settings.methods import METHODS
from fed.settings.rules import SettingsError, key_of, meaning_of
from fed.settings.settings import Settings, keys

CHECKOUT = Path(__file__).resolve().parents[3]
FILE = CHECKOUT / "sims" / "lamp7" / "pyproject.toml"


@pytest.fixture
def config():
    return tomllib.loads(FILE.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]


def test_lamp7s_own_config_is_parsed_into_typed_fields(config):
    settings = Settings.parse(config)
    assert (settings.app, settings.task, settings.method) == ("lamp7", "LaMP_7", "perfit")
    assert len(config) == len(Settings.__dataclass_fields__)
    for key, value in config.items():
        assert getattr(settings, key.replace("-", "_")) == value
    assert isinstance(settings.clip, float) and isinstance(settings.rounds, int)


def test_a_whole_number_is_taken_where_a_fraction_is_asked_for(config):
    settings = Settings.parse(config | {"fraction": 1, "clip": 0, "temperature": 2})
    assert (settings.fraction, settings.clip, settings.temperature) == (1.0, 0.0, 2.0)
    assert isinstance(settings.fraction, float)


def test_settings_come_back_as_the_config_they_were_made_of(config):
    settings = Settings.parse(config)
    assert settings.as_config() == config
    assert Settings.parse(json.loads(settings.as_json())) == settings
    assert settings.as_json() == json.dumps(config, sort_keys=True)


@pytest.mark.parametrize(
    "change",
    [
        {
            "rounds": 1,
            "stage1-rank": 1,
            "batch-size": 1,
            "local-epochs": 1,
            "stage2-epochs": 1,
            "node-timeout": 1,
        },
        {
            "max-length": 16,
            "token-budget": 16,
            "seed": 0,
            "activation-cache": 0,
            "weight-decay": 0.0,
            "fraction": 1.0,
            "max-new-tokens": 0,
        },
        {"average": "krum", "attackers": 0},
        {"average": "bulyan", "attackers": 1},
        {"strategy": "fedadam", "average": "svd"},
        {"layers": "0"},
        {"layers": "all", "positions": "f3+l3", "wire-dtype": "bfloat16", "dtype": "float32"},
    ],
)
def test_values_on_the_border_of_a_rule_are_accepted(config, change):
    settings = Settings.parse(config | change)
    assert {key: settings.as_config()[key] for key in change} == change


WRONG = [
    ("method", "perfi"),
    ("engine", "fast"),
    ("cohorts", "some"),
    ("strategy", "fedsgd"),
    ("average", "mean"),
    ("wire-dtype", "int3"),
    ("wire-coding", "lzma"),
    ("dtype", "float"),
    ("answer", "guess"),
    ("stage1", "central"),
    ("schedule", "cosine"),
    *(("warmup", value) for value in (-0.1, 1.01, float("nan"))),
    ("dtype", "torch.float32"),
    *((key, 0) for key in ("rounds", "local-epochs", "stage2-epochs", "batch-size", "stage1-rank", "stage2-rank")),
    *((key, 0) for key in ("node-timeout", "top-k")),
    ("held-out", -1),
    ("min-nodes", -1),
    ("reply-timeout", -1),
    ("min-replies", 0),
    ("norm-bound", -1),
    *((key, -1) for key in ("stage1-users", "stage2-users", "max-items", "max-queries", "max-new-tokens", "seed")),
    ("weight-decay", -0.1),
    ("activation-cache", -1),
    ("max-length", 15),
    ("token-budget", 15),
    *((key, rate) for key in ("stage1-lr", "stage2-lr") for rate in (0.0, -1e-3, 1.0, float("nan"), float("inf"))),
    *((key, share) for key in ("fraction", "top-p") for share in (0.0, -0.5, 1.01, float("nan"))),
    ("clip", -0.1),
    ("temperature", -0.1),
    *((key, rule) for key in ("positions", "stage2-positions") for rule in ("first", "f3l3", "3")),
    *(("layers", text) for text in ("a", "1,", "2,1", "1,1", "-1,2", "1;2", "1.5")),
    *((key, "") for key in ("app", "task", "base-model", "data", "device", "output-dir", "layers", "positions")),
    *((key, 3) for key in ("app", "strategy", "layers", "output-dir")),
    *((key, value) for key in ("rounds", "seed") for value in ("2", 2.0, True, None)),
    *((key, value) for key in ("clip", "stage1-lr") for value in ("0.1", True, None)),
    ("retrieved", -1),
    *(("profile", value) for value in (1, "true", None)),
    ("style-layer", -2),
    *(("style-strength", value) for value in ("1", True)),
    *(("momentum", value) for value in (-0.1, 1.0)),
    *((key, -1.0) for key in ("server-lr", "proximal-mu", "attackers")),
    ("data", ["a"]),
    ("device", "\n\n"[:0]),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_value_is_told_by_its_key_in_one_line(config, key, value):
    with pytest.raises(SettingsError) as error:
        Settings.parse(config | {key: value})
    message = str(error.value)
    assert key in message and "\n" not in message and len(message) < 300
    if isinstance(value, str | int | float) and value != "":
        assert str(value) in message


@pytest.mark.parametrize("key", ["weight-decay", "clip", "temperature"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(config, key, value):
    """TOML and `-c` both accept nan and inf."""
    with pytest.raises(SettingsError, match=key):
        Settings.parse(config | {key: value})


@pytest.mark.parametrize("value", ["evil\nkey", "a\r\nb"])
def test_a_value_of_several_lines_still_gives_a_message_of_one(config, value):
    for key in ("method", "positions", "layers", "rounds"):
        with pytest.raises(SettingsError) as error:
            Settings.parse(config | {key: value})
        assert "\n" not in str(error.value) and "\r" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("stage1-rnak", r"'stage1-rnak'; did you mean stage1-rank or .*\? all keys: fed/settings/groups.py"),
        ("round", r"'round'; did you mean rounds\b"),
        ("batch_size", r"'batch_size'; did you mean batch-size\b"),
        ("Seed", r"'Seed'; did you mean seed\b"),
        ("zzz", "'zzz'; all keys: fed/settings/groups.py"),
        ("x" * 1000, "'xxx.*…'; all keys"),
    ],
)
def test_an_unknown_key_is_told_in_a_short_line_with_those_that_are_like_it(config, key, near):
    with pytest.raises(SettingsError, match=f"run config has no key {near}") as error:
        Settings.parse(config | {key: 3})
    assert "\n" not in str(error.value) and len(str(error.value)) <= 200


def test_a_task_that_there_is_not_is_refused_with_those_that_there_are(config):
    with pytest.raises(SettingsError, match="task must be one of LaMP_2N, .*LaMP_7, got 'LaMP_9'"):
        Settings.parse(config | {"task": "LaMP_9"})


def test_a_choice_needs_a_task_with_labels(config):
    assert Settings.parse(config | {"task": "LaMP_3", "answer": "choice"}).answer == "choice"
    with pytest.raises(SettingsError, match=r"needs a task with labels \(LaMP_2N, LaMP_2M, LaMP_3\), got LaMP_7; use"):
        Settings.parse(config | {"answer": "choice"})


@pytest.mark.parametrize("key", ["app", "token-budget", "output-dir"])
def test_a_missing_key_is_told(config, key):
    del config[key]
    with pytest.raises(SettingsError, match=f"lacks the key '{key}'"):
        Settings.parse(config)


@pytest.mark.parametrize("average", ["svd", "fedavg"])
@pytest.mark.parametrize(("strategy", "instead"), OF_ENTRIES.items())
def test_a_strategy_that_compares_entries_names_the_average_that_compares_maps(config, strategy, instead, average):
    entries = config | {"strategy": strategy, "average": average}
    with pytest.raises(SettingsError, match=f"strategy '{strategy}' compares entries .* average='{instead}' compares"):
        Settings.parse(entries)
    assert Settings.parse(entries, finished=True).strategy == strategy  # a vault of such a run still opens


@pytest.mark.parametrize(("strategy", "key"), [("fedavgm", "momentum"), ("fedprox", "proximal-mu")])
def test_a_strategy_that_would_be_fedavg_is_refused(config, strategy, key):
    assert Settings.parse(config | {"strategy": strategy}).client_mu == (0.1 if strategy == "fedprox" else 0.0)
    with pytest.raises(SettingsError, match=f"strategy '{strategy}' with {key}=0.0 is fedavg; raise {key}"):
        Settings.parse(config | {"strategy": strategy, key: 0.0})


def test_attackers_are_expected_by_the_averages_that_stand_them_alone(config):
    for average in ("svd", "fedavg", "polar"):
        with pytest.raises(SettingsError, match=f"attackers must be 0 with average='{average}'.* got 1; median, "):
            Settings.parse(config | {"average": average, "attackers": 1})
    for average in ("trimmed", "bulyan"):
        with pytest.raises(SettingsError, match=f"average='{average}' needs attackers of 1 or more"):
            Settings.parse(config | {"average": average})


@pytest.mark.parametrize("method", ["lora-c", "oppu", "non-personalized"])
def test_an_engine_that_the_method_cannot_honour_is_an_error_and_no_silent_choice(config, method):
    with pytest.raises(SettingsError, match=f"method '{method}' cannot honour engine='pyreft'; engine must be batched"):
        Settings.parse(config | {"method": method, "engine": "pyreft"})
    assert Settings.parse(config | {"method": method}).method == method


# Keys of later releases: what they are in a settings file, a vault or a report that was written before them.
LATER = {
    "rouge-tokenizer": "lamp",
    "wire-coding": "plain",
    "stage1": "federated",
    "warmup": 0.1,
    "schedule": "linear",
    "stage2-layers": "same",
    "retrieved": 0,
    "profile": False,
    "style-layer": -1,
    "style-strength": 0.1,
    "held-out": 0,
    "history-rows": "bare",
    "prompt-format": "plain",
    "answer": "decode",
    "top-k": 10,
    "top-p": 0.9,
    "activation-cache": 512,
    "min-nodes": 0,
    "reply-timeout": 0,
    "min-replies": 1,
    "norm-bound": 10.0,
    "attackers": 0,
    "exact-rank": 0,
    "server-lr": 0.0,
    "momentum": 0.9,
    "proximal-mu": 0.1,
    "drop-rate": 0.0,
    "slow-rate": 0.0,
    "round-deadline": 0.0,
    "over-selection": 1.0,
    "run-deadline": 604800,
    "resume": "",
}


def test_a_settings_file_from_before_the_later_keys_still_parses(config):
    settings = Settings.parse({key: value for key, value in config.items() if key not in LATER})
    assert {key: settings.as_config()[key] for key in LATER} == LATER
    assert Settings.parse(config | {"retrieved": 4, "profile": True}).retrieved == 4


def test_every_other_key_is_required(config):
    for key in set(config) - set(LATER):
        with pytest.raises(SettingsError, match=f"lacks the key '{key}'"):
            Settings.parse({other: value for other, value in config.items() if other != key})


def test_six_groups_hold_every_key_once_each_with_its_rule_and_meaning(config):
    assert [group.__name__ for group in GROUPS] == ["Data", "Base", "Edits", "Training", "Federation", "Answers"]
    held = [key_of(one.name) for group in GROUPS for one in fields(group)]
    assert len(held) == len(set(held)) and set(held) == set(config)
    assert list(keys()) == list(Settings.parse(config).as_config()) == held
    for key, one in keys().items():
        assert callable(one.metadata["rule"]), key
        assert meaning_of(one) and meaning_of(one) == meaning_of(one).strip().rstrip("."), key


def test_settings_are_imported_without_the_models_library_flower_or_plots():
    code = "import sys, fed.settings.settings; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    loaded = set(done.stdout.split())
    assert "fed.settings.groups" in loaded
    assert not loaded & {"transformers", "safetensors", "datasets", "matplotlib", "peft", "pyreft", "flwr", "ray"}


@pytest.mark.parametrize(
    ("method", "given", "meant"),
    [
        ("rag", {}, (1, False)),
        ("rag", {"retrieved": 4}, (4, False)),
        ("pag", {}, (0, True)),
        ("pag", {"retrieved": 2}, (2, True)),
        ("perfit", {"retrieved": 2, "profile": True}, (2, True)),
        ("non-personalized", {}, (0, False)),
    ],
)
def test_rag_and_pag_are_the_base_with_the_prompts_they_are_named_for(config, method, given, meant):
    settings = Settings.parse(config | {"method": method} | given)
    assert (settings.retrieved, settings.profile) == meant


def test_the_registry_names_classes_that_are_methods(config):
    for name, entry in METHODS.items():
        settings = Settings.parse(config | {"method": name})
        module, _, kind = entry.where.rpartition(".")
        assert issubclass(getattr(import_module(module), kind), Method)
        assert set(entry.only) | set(entry.implies) <= set(settings.as_config())
        assert Settings.parse(settings.as_config()) == settings  # what a line implies is stated in the report


def test_the_edited_layers_are_those_of_the_base_model(config):
    assert Settings.parse(config | {"layers": "all"}).edited_layers(4) == (0, 1, 2, 3)
    assert Settings.parse(config | {"layers": "0,3"}).edited_layers(4) == (0, 3)
    with pytest.raises(SettingsError, match=r"layers must lie in 0\.\.2 for this base model, got '0,3'"):
        Settings.parse(config | {"layers": "0,3"}).edited_layers(3)


def test_the_run_folder_is_absolute_and_in_the_checkout_whatever_the_working_directory(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Settings.parse(config | {"output-dir": "runs/x"}).run_folder(17) == CHECKOUT / "runs" / "x" / "17"


def test_an_absolute_output_folder_is_taken_as_it_is_and_a_tilde_is_home(config, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings.parse(config | {"output-dir": "/data/x"}).run_folder(1) == Path("/data/x/1")
    assert Settings.parse(config | {"output-dir": "~/x"}).run_folder(1) == tmp_path / "x" / "1"


def test_without_a_checkout_the_run_folder_is_under_the_working_directory(config, tmp_path, monkeypatch):
    """As on a device, where the package is installed and there is no `sims`."""
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "site-packages" / "fed" / "settings" / "paths.py"))
    monkeypatch.chdir(tmp_path)
    assert Settings.parse(config | {"output-dir": "out"}).run_folder(1) == tmp_path / "out" / "1"


def test_sources_are_absolute_where_they_are_folders_and_else_left_alone(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def sources(data, base):
        settings = Settings.parse(config | {"data": data, "base-model": base})
        return settings.data_source, settings.base_source

    assert sources("synthetic", "embedded") == ("synthetic", "embedded")
    assert sources("synthetic:5", "org/model") == ("synthetic:5", "org/model")
    assert sources("my/data", "x.gguf") == (str(CHECKOUT / "my" / "data"), str(CHECKOUT / "x.gguf"))
    assert sources("~/data", "sims/lamp7") == (str(tmp_path / "data"), str(CHECKOUT / "sims" / "lamp7"))
    assert sources("/abs", str(tmp_path)) == ("/abs", str(tmp_path))


def test_the_private_layers_are_those_of_stage_1_or_their_own(config):
    assert Settings.parse(config | {"layers": "0,3", "stage2-layers": "same"}).private_layers(4) == (0, 3)
    assert Settings.parse(config | {"layers": "0,3", "stage2-layers": "1"}).private_layers(4) == (1,)
    assert Settings.parse(config | {"layers": "0,3", "stage2-layers": "all"}).private_layers(4) == (0, 1, 2, 3)
    assert Settings.parse(config | {"layers": "0,2,3", "stage2-layers": "last2"}).private_layers(4) == (2, 3)
    assert Settings.parse(config | {"layers": "1", "stage2-layers": "last2"}).private_layers(4) == (1,)
    assert Settings.parse(config | {"layers": "all", "stage2-layers": "last3"}).private_layers(4) == (1, 2, 3)
    with pytest.raises(SettingsError, match=r"stage2-layers must lie in 0\.\.3 for this base model, got '7'"):
        Settings.parse(config | {"layers": "1", "stage2-layers": "7"}).private_layers(4)
    for wrong in ("3,1", "last0", "last", "first2"):
        with pytest.raises(SettingsError, match="stage2-layers must be 'all' or rising block numbers .* or last2"):
            Settings.parse(config | {"stage2-layers": wrong})


def test_a_vault_or_cell_of_an_earlier_release_still_parses(config):
    assert Settings.parse(config | {"engine": "sequential"}).engine == "batched"
