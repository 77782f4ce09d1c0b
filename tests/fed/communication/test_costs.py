"""Analytic costs against the paper's tables, published budgets, shapes worked out by hand, our edits and PEFT."""

import math
from pathlib import Path

import pytest

from fed.base.skeleton import PRESETS, SkeletonError, skeleton
from fed.communication import costs
from fed.communication.published import flowertune_budget, mean_reduction_percent, paper_table
from fed.communication.traffic import federated_traffic, serving, storage

APP = Path(__file__).resolve().parents[3] / "sims" / "lamp7" / "pyproject.toml"
# (task, stage, PerFit, of the base, OPPU, less), as printed: the first six rows in table 2, the others in table 3
PRINTED = [
    ("2N", 1, "393,216", "0.0058 %", "6,291,456", "93.75 %"),
    ("2N", 2, "786,432", "0.0117 %", "4,194,304", "81.25 %"),
    ("2M", 1, "524,288", "0.0078 %", "6,291,456", "91.67 %"),
    ("2M", 2, "65,536", "0.0010 %", "4,194,304", "98.44 %"),
    ("3", 1, "786,432", "0.0117 %", "6,291,456", "87.50 %"),
    ("3", 2, "98,304", "0.0015 %", "4,194,304", "97.66 %"),
    ("4", 1, "786,432", "0.0117 %", "6,291,456", "87.50 %"),
    ("4", 2, "98,304", "0.0015 %", "4,194,304", "97.66 %"),
    ("5", 1, "262,144", "0.0039 %", "6,291,456", "95.83 %"),
    ("5", 2, "65,536", "0.0010 %", "4,194,304", "98.44 %"),
    ("7", 1, "524,288", "0.0078 %", "6,291,456", "91.67 %"),
    ("7", 2, "262,144", "0.0039 %", "4,194,304", "93.75 %"),
]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-2-7b", 6_738_415_616),
        ("mistral-7b", 7_241_732_096),
        ("smollm2-135m", 134_515_008),
        ("llama-3.2-1b", 1_235_814_400),
        ("qwen2.5-0.5b", 494_032_768),
    ],
)
def test_a_preset_has_the_published_number_of_parameters(name, parameters):
    assert skeleton(name).parameters == parameters
    assert set(PRESETS) == {"llama-2-7b", "mistral-7b", "smollm2-135m", "llama-3.2-1b", "qwen2.5-0.5b"}


def test_the_embedded_default_is_smollm2():
    assert skeleton("embedded") == skeleton("smollm2-135m")


def test_the_papers_twelve_rows_come_out_as_printed():
    rows = [
        (
            row["task"],
            row["stage"],
            f"{row['perfit_parameters']:,}",
            f"{row['percent_of_base']:.4f} %",
            f"{row['oppu_parameters']:,}",
            f"{row['reduction_percent']:.2f} %",
        )
        for row in paper_table()
    ]
    assert rows == PRINTED
    assert [row["table"] for row in paper_table()] == 6 * [2] + 6 * [3]  # labels, then texts


def test_the_papers_rows_carry_no_more_digits_than_are_printed():
    for row in paper_table():
        assert row["percent_of_base"] == round(row["percent_of_base"], 4)
        assert row["reduction_percent"] == round(row["reduction_percent"], 2)


def test_the_mean_reduction_is_that_of_the_tables_and_not_of_the_abstract():
    assert mean_reduction_percent() == 92.93


def test_flowertunes_budget_is_recomputed():
    budget = flowertune_budget()
    assert budget["parameters"] == 13_631_488 and budget["messages"] == 800 and budget["bytes_per_number"] == 4
    assert budget["total_bytes"] == 13_631_488 * 4 * 800
    assert budget["total_gib"] == 40.63


def test_lora_shapes_follow_grouped_query_attention_by_hand():
    # llama-3.2-1b: 16 blocks, d = 2048, 32 heads and 8 key/value heads of 64: q 2048 → 2048, k and v 2048 → 512
    base = skeleton("llama-3.2-1b")
    shapes = costs.lora_shapes(base, costs.ATTENTION)
    block = "base_model.model.model.layers.15.self_attn"
    assert shapes[f"{block}.q_proj.lora_A.weight"] == (8, 2048)
    assert shapes[f"{block}.q_proj.lora_B.weight"] == (2048, 8)
    assert shapes[f"{block}.k_proj.lora_A.weight"] == (8, 2048)
    assert shapes[f"{block}.k_proj.lora_B.weight"] == (512, 8)
    assert shapes[f"{block}.v_proj.lora_B.weight"] == (512, 8)
    assert len(shapes) == 16 * 3 * 2
    a_block = 8 * (2048 + 2048) + 2 * 8 * (2048 + 512)
    assert costs.count(shapes) == 16 * a_block == 1_179_648


# (federated, private, frozen) of each method, from q: 8 · (2048 + 2048), k and v: 8 · (2048 + 512), in 16 blocks
BY_HAND = {
    "oppu": (1_179_648, 851_968, 0),
    "lora-p": (0, 851_968, 0),
    "lora-c": (1_179_648, 0, 0),
    "ffa-lora": (16 * 8 * (2048 + 512), 0, 16 * 8 * (2048 + 2048)),
    "fedsa-lora": (16 * 8 * (2048 + 2048), 16 * 8 * (2048 + 512), 0),
    "perfit": (64 * (2 * 2048 + 1), 32 * (2 * 2048 + 1), 0),
}


@pytest.mark.parametrize("method", costs.ANALYSED)
def test_each_method_splits_its_tensors_as_worked_out_by_hand(method):
    cost = costs.cost(method, skeleton("llama-3.2-1b"))
    parts = tuple(costs.count(part) for part in (cost.federated, cost.private, cost.frozen))
    assert cost.method == method and parts == BY_HAND[method]


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2), ("bfloat16", 2), ("float64", 8)])
def test_bytes_are_numbers_times_the_wire_dtypes_size(dtype, size):
    cost = costs.cost("fedsa-lora", skeleton("smollm2-135m"))
    assert cost.federated_bytes(dtype) == cost.federated_parameters * size
    assert cost.private_bytes(dtype) == cost.private_parameters * size


def test_leaving_out_rank_biases_leaves_out_one_number_a_rank():
    base = skeleton("llama-2-7b")
    without, sent = costs.perfit(base, (64, 32), biases=False), costs.perfit(base, (64, 32))
    assert sent.federated_parameters - without.federated_parameters == 64
    assert sent.private_parameters - without.private_parameters == 32


def test_federated_traffic_adds_up_message_by_message():
    cost = costs.Cost("x", federated={"x": (10, 25)})  # 1,000 bytes a message
    traffic = federated_traffic(cost, users=50, rounds=3, fraction=0.25)
    assert traffic.sampled == 12 and traffic.message_down == traffic.message_up == 1000
    assert traffic.round_down == traffic.round_up == 12_000
    assert traffic.rounds_down == traffic.rounds_up == 36_000
    assert traffic.hand_out == 50_000 and traffic.messages == 2 * 36 + 50
    assert traffic.total == 122_000 and traffic.per_user == 2440
    bare = federated_traffic(cost, users=50, rounds=3, fraction=0.25, hand_out=False)
    assert bare.total == 72_000 and bare.messages == 72 and bare.hand_out == 0


def test_at_least_one_user_is_sampled():
    cost = costs.Cost("x", federated={"x": (1,)})
    assert federated_traffic(cost, users=3, rounds=1, fraction=0.1).sampled == 1


def test_a_method_that_federates_nothing_sends_no_message():
    traffic = federated_traffic(costs.cost("lora-p", skeleton("smollm2-135m")), users=100, rounds=9)
    assert traffic.messages == traffic.sampled == traffic.total == 0


def test_storage_counts_shared_tensors_once_and_private_ones_for_every_user():
    cost = costs.Cost("x", federated={"f": (3,)}, private={"p": (5,)}, frozen={"z": (7,)})
    kept = storage(cost, users=1000)
    assert (kept.provision, kept.private, kept.device) == (12, 20, 60)
    assert kept.server == 4 * (3 + 7 + 5 * 1000)
    assert storage(cost, users=0).server == 40


def test_serving_uploads_the_private_tensors_at_every_use():
    cost = costs.Cost("x", private={"p": (250_000,)})  # 1 MB, 8 Mbit
    use = serving(cost, uses_per_day=12, uplink=10)
    assert use.use == 1_000_000 and use.day == 12_000_000
    assert math.isclose(use.seconds_per_use, 0.8) and math.isclose(use.seconds_per_day, 9.6)
    assert serving(cost, uses_per_day=12, uplink=10, dtype="bfloat16").use == 500_000


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda c: federated_traffic(c, users=0, rounds=1), "users must be at least 1, got 0"),
        (lambda c: federated_traffic(c, users=1, rounds=-1), "rounds must not be negative, got -1"),
        (lambda c: federated_traffic(c, users=1, rounds=1, fraction=0.0), r"fraction must lie in \(0, 1\], got 0.0"),
        (lambda c: federated_traffic(c, users=1, rounds=1, fraction=math.nan), "got nan"),
        (lambda c: federated_traffic(c, users=1, rounds=1, dtype="int3"), "wire-dtype must be one of"),
        (lambda c: storage(c, users=-1), "users must not be negative"),
        (lambda c: serving(c, uses_per_day=-1, uplink=1), "uses-per-day must not be negative"),
        (lambda c: serving(c, uses_per_day=1, uplink=0), "uplink must be a positive number"),
        (lambda c: costs.cost("dora", skeleton("smollm2-135m")), "method must be one of perfit, oppu"),
        (lambda c: costs.perfit(skeleton("smollm2-135m"), (0, 4)), "must be at least 1, got 0"),
        (lambda c: costs.lora_shapes(skeleton("smollm2-135m"), ("q_proj",), 0), "rank must be at least 1"),
        (lambda c: costs.lora_shapes(skeleton("smollm2-135m"), ("out_proj",)), "no Linear named 'out_proj'"),
    ],
)
def test_a_value_that_breaks_its_rule_is_told(call, said):
    with pytest.raises(ValueError, match=said):
        call(costs.Cost("x", federated={"x": (1,)}, private={"x": (1,)}))


def test_a_folder_is_read_from_its_config_alone(tiny_llama, tmp_path):
    model = tiny_llama()
    model.config.save_pretrained(tmp_path)
    base = skeleton(str(tmp_path))
    assert base.parameters == sum(p.numel() for p in model.parameters())
    assert (base.name, base.hidden_size, base.layers) == (tmp_path.name, 32, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("source", ["", "/nowhere/at/all", "./nowhere", "a/b/c"])
def test_a_source_that_can_be_no_model_is_refused_with_the_presets_named(source):
    with pytest.raises(SkeletonError, match="model must be one of llama-2-7b, .* or a hub id, got"):
        skeleton(source)


@pytest.mark.parametrize("text", ["{", '{"model_type": "no-such-type"}'])
def test_a_configuration_that_makes_no_causal_lm_is_one_clear_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SkeletonError, match="is no causal LM that transformers can build") as caught:
        skeleton(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [name for name in costs.ANALYSED if name != "perfit"])
def test_peft_trains_exactly_the_parameters_that_the_analysis_says(tiny_llama, tmp_path, method):
    peft = pytest.importorskip("peft")
    model = tiny_llama()
    model.config.save_pretrained(tmp_path)
    cost = costs.cost(method, skeleton(str(tmp_path)))
    stages = [cost.federated, cost.private] if method == "oppu" else [{**cost.federated, **cost.private, **cost.frozen}]
    for shapes in stages:
        targets = sorted({name.split(".lora_")[0].rpartition(".")[2] for name in shapes})
        adapted = peft.get_peft_model(tiny_llama(), peft.LoraConfig(r=8, lora_alpha=8, target_modules=targets))
        saved = {
            name: tuple(t.shape)
            for name, t in peft.get_peft_model_state_dict(adapted, save_embedding_layers=False).items()
        }
        assert saved == dict(shapes)
        frozen = ".lora_A." if method == "ffa-lora" else "nothing"
        trained = [p for name, p in adapted.named_parameters() if p.requires_grad and frozen not in name]
        assert sum(p.numel() for p in trained) == costs.count(shapes) - costs.count(cost.frozen)
