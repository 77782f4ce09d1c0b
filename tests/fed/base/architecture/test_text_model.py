"""The text model inside a base: its blocks, its shapes, its targets; what is no decoder is refused."""

import pytest
import torch
import transformers
from torch import nn

from fed.base.architecture import text_model
from fed.base.model import load
from fed.base.skeleton import Skeleton
from fed.base.sources import BaseModelError, check
from fed.edits.hooks import decoder_blocks
from fed.edits.lora import adapted
from tests.families.bases import base_of, config_of, model_of


@pytest.fixture(autouse=True)
def quietly(tmp_path, monkeypatch):
    monkeypatch.setenv("PERFIT_CACHE", str(tmp_path / "cache"))
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


def test_of_a_base_that_sees_the_text_blocks_are_edited_and_the_text_is_counted():
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config_of("gemma3"))
        alone = transformers.AutoModelForCausalLM.from_config(config_of("gemma3_text"))
    (seeing,) = (m for m in model.model.vision_tower.modules() if isinstance(m, nn.ModuleList))
    assert len(seeing) == len(decoder_blocks(model)) == 4
    assert decoder_blocks(model) is model.model.language_model.layers
    shapes, expected = Skeleton.of("gemma3", model), Skeleton.of("text", alone)
    assert shapes.parameters == expected.parameters and shapes.layers == 4
    assert [one[1:] for one in shapes.linears] == [one[1:] for one in expected.linears]


def test_adapters_of_a_base_that_sees_hang_on_its_text_alone():
    base = base_of("gemma3")
    with adapted(base, {"one": ("q_proj",)}, 2, 2.0) as adapters:
        names = list(adapters.parameters("one"))
    assert len(names) == 8 and all("language_model" in name for name in names)


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "deepseek_v3"])
def test_a_folder_is_checked_and_loaded_by_its_own_class(family, tmp_path, tiny_tokenizer):
    model = model_of(family)
    model.save_pretrained(tmp_path / family)
    tiny_tokenizer().save_pretrained(tmp_path / family)
    check(str(tmp_path / family))
    base = load(str(tmp_path / family), device="cpu", dtype="float32")
    assert type(base.model) is type(model)
    ids = torch.tensor([[5, 9, 40, 7]])
    with torch.no_grad():
        torch.testing.assert_close(base.model(input_ids=ids).logits, model(input_ids=ids).logits)


SMALL = {"vocab_size": 99, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
NO_DECODERS = {
    "an encoder-decoder": (
        lambda: transformers.T5ForConditionalGeneration(
            transformers.T5Config(vocab_size=99, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
        ),
        "'t5', an encoder-decoder",
    ),
    "an encoder": (
        lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SMALL)),
        "'bert', an encoder that fills gaps",
    ),
    "a model that only sees": (
        lambda: transformers.ViTForImageClassification(
            transformers.ViTConfig(
                hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32
            )
        ),
        "'vit', of which transformers makes none",
    ),
}


@pytest.mark.parametrize("kind", NO_DECODERS)
def test_what_is_no_decoder_is_refused_in_one_line_before_the_run(kind, tmp_path, tiny_tokenizer):
    make, says = NO_DECODERS[kind]
    make().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    for act in (check, load):
        with pytest.raises(BaseModelError, match=says) as error:
            act(str(tmp_path / "model"))
        assert "\n" not in str(error.value) and str(tmp_path / "model") in str(error.value)


def test_a_model_without_a_list_of_blocks_cannot_be_edited(tiny32, make_base):
    base = make_base()
    base.model.model.layers = nn.Sequential(*base.model.model.layers)
    with pytest.raises(BaseModelError, match="cannot be edited: LlamaForCausalLM has no list of 4 decoder blocks"):
        text_model.require_editable(base.model, "x")
    text_model.require_editable(tiny32.model, "x")


def test_a_model_that_takes_no_positions_is_refused(make_base):
    base = make_base()
    base.model.forward = lambda input_ids, attention_mask: None
    with pytest.raises(BaseModelError, match="LlamaForCausalLM takes no position_ids"):
        text_model.require_editable(base.model, "x")
