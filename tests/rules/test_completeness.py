"""Rules about what is missing: each one flags it, and is silent on the designs of public models."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from checkpoints import Tensor, edit_declarations, edit_json, edit_tensors
from judging import judge

from gate.architecture import Architecture
from gate.inventory import Inventory, absent

RULES = {
    "layer-missing",
    "expert-missing",
    "name-prefix",
    "vocab-rows",
    "lm-head-missing",
    "tied-head-stored",
    "kv-scale-partial",
    "mtp-missing",
}
Damage = Callable[[Path], object]


def without(*prefixes: str) -> Damage:
    def change(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(prefixes)]:
            del tensors[name]

    return lambda path: edit_tensors(path, change)


def renamed(old: str, new: str) -> Damage:
    def change(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            if name.startswith(old):
                tensors[new + name.removeprefix(old)] = tensors.pop(name)

    return lambda path: edit_tensors(path, change)


def stating(**fields: object) -> Damage:
    return lambda path: edit_json(path, "config.json", lambda config: config.update(fields))


def added(names: Iterable[str], tensor: Tensor) -> Damage:
    more = dict.fromkeys(names, tensor)
    return lambda path: edit_tensors(path, lambda tensors: tensors.update(more))


def kv(kinds: str, layers: Iterable[int]) -> Damage:
    names = [
        f"model.layers.{layer}.self_attn.{kind}_proj.{kind}_scale"
        for layer in layers
        for kind in kinds
    ]
    return added(names, checkpoints.f32((), 0.01))


def tokenizer(*ids: object) -> Damage:
    """A tokenizer.json as the tokenizers library writes it: added tokens before the vocabulary."""
    tokens = [{"id": number, "content": f"<{number}>"} for number in ids]
    content = {"version": "1.0", "added_tokens": tokens, "model": {"vocab": {"a": 999}}}
    return lambda path: checkpoints.write_json(path / "tokenizer.json", content)


def both(*damages: Damage) -> Damage:
    return lambda path: [damage(path) for damage in damages]


def declared(**fields: object) -> Damage:
    return lambda path: edit_declarations(path, lambda body: body.update(fields))


ONE_SCALE = checkpoints.f32(())
EXPERT = "model.layers.1.mlp.experts"
FLAGGED: dict[str, tuple[str, dict[str, Any], Damage, str]] = {
    "a layer in the middle": (
        "layer-missing",
        {"layers": 4},
        without("model.layers.2."),
        "nothing is stored of layer 2 ",
    ),
    "layers at the end": (
        "layer-missing",
        {"algo": None},
        stating(num_hidden_layers=10),
        "layer 2, 3, 4, 5, 6 and 3 more",
    ),
    "an absurd number of layers": (
        "layer-missing",
        {},
        stating(num_hidden_layers=10**15),
        "999,999,999,999,993 more",
    ),
    "a norm of one layer": (
        "layer-missing",
        {"layers": 5},
        without("model.layers.2.input_layernorm"),
        "layer 2 has no input_layernorm",
    ),
    "a whole linear layer": (
        "layer-missing",
        {"algo": "NVFP4", "layers": 5},
        without("model.layers.3.self_attn.o_proj"),
        "layer 3 has no self_attn.o_proj",
    ),
    "an expert": (
        "expert-missing",
        {"algo": "NVFP4", "experts": 4},
        without(f"{EXPERT}.2."),
        "mlp.experts has 4 experts; not stored: 2",
    ),
    "the last experts": (
        "expert-missing",
        {"experts": 4},
        without("model.layers.0.mlp.experts.3.", f"{EXPERT}.3."),
        "not stored: 3",
    ),
    "a linear layer of an expert": (
        "expert-missing",
        {"algo": "NVFP4", "experts": 4},
        without(f"{EXPERT}.1.down_proj."),
        "not stored: down_proj of 1",
    ),
    "an expert where no count is given": (
        "expert-missing",
        {"experts": 4},
        both(
            without(f"{EXPERT}.1."),
            lambda path: edit_json(path, "config.json", lambda c: c.pop("num_local_experts")),
        ),
        "not stored: 1",
    ),
    "an absurd number of experts": (
        "expert-missing",
        {"experts": 2},
        stating(num_local_experts=10**15),
        "2, 3, 4, 5, 6 and 999,999,999,999,993 more",
    ),
    "model twice": (
        "name-prefix",
        {},
        both(renamed("model.", "model.model."), declared(exclude_modules=["lm_head"])),
        "begin with model.model.",
    ),
    "a compiled model's names": ("name-prefix", {}, renamed("", "_orig_mod."), "_orig_mod."),
    "an adapter's names": ("name-prefix", {}, renamed("", "base_model.model."), "base_model"),
    "the language model in the vision model": (
        "name-prefix",
        {},
        both(renamed("model.", "vision_model.model."), stating(model_type="llava")),
        "begin with vision_model.model.",
    ),
    "too few rows": ("vocab-rows", {}, stating(vocab_size=97), "97 tokens"),
    "an added token without a row": ("vocab-rows", {}, tokenizer(2, 96), "id 96"),
    "no head": (
        "lm-head-missing",
        {"tied": False},
        without("lm_head."),
        "LlamaForCausalLM has a head",
    ),
    "a head beside a tied embedding": (
        "tied-head-stored",
        {},
        added(["lm_head.weight"], checkpoints.bf16((96, 64))),
        "lm_head is stored",
    ),
    "a head below a prefix": (
        "tied-head-stored",
        {"algo": None},
        both(
            renamed("model.", "language_model.model."),
            added(["language_model.lm_head.weight"], checkpoints.bf16((96, 64))),
        ),
        "language_model.lm_head",
    ),
    "KV scales of some layers": (
        "kv-scale-partial",
        {"layers": 4},
        kv("kv", [0, 1, 3]),
        "layers 2 have no k_scale",
    ),
    "KV scales of keys only": ("kv-scale-partial", {}, kv("k", [0, 1]), "0, 1 have no v_scale"),
    "KV scales of a layer's keys only": (
        "kv-scale-partial",
        {"layers": 3},
        both(kv("k", [0, 1, 2]), kv("v", [0, 2])),
        "layers 1 have no v_scale",
    ),
    "KV scales where one layer makes queries, keys and values": (
        "kv-scale-partial",
        {"algo": None, "layers": 3},
        both(
            without(*(f"model.layers.{n}.self_attn.{k}_proj" for n in range(3) for k in "kv")),
            added(
                [f"model.layers.{n}.self_attn.{k}_scale" for n in range(3) for k in "kv"][:-1],
                ONE_SCALE,
            ),
        ),
        "layers 2 have no v_scale",
    ),
    "no layer for more tokens": (
        "mtp-missing",
        {},
        stating(num_nextn_predict_layers=1),
        "1 layers for multi-token prediction",
    ),
}


@pytest.mark.parametrize("case", FLAGGED)
def test_flags_what_is_missing(tmp_path: Path, case: str) -> None:
    rule, built, damage, named = FLAGGED[case]
    path = checkpoints.build(tmp_path, **built)
    assert not {found.rule for found in judge(path).findings} & RULES
    damage(path)
    found = [finding for finding in judge(path).findings if finding.rule in RULES]
    assert {finding.rule for finding in found} == {rule}
    assert any(named in finding.message for finding in found), [f.message for f in found]


def mixer(path: Path, kinds: str, leaves: Mapping[str, tuple[str, ...]], prefix: str) -> Path:
    """A BF16 model whose layers differ as `kinds`, a letter a layer, says."""
    path.mkdir(exist_ok=True)
    tensors = {f"{prefix.rpartition('.')[0]}.embed_tokens.weight": checkpoints.bf16((96, 8))}
    for index, kind in enumerate(kinds):
        for leaf in leaves[kind]:
            tensors[f"{prefix}.{index}.{leaf}.weight"] = checkpoints.bf16((8, 8))
    checkpoints.write_safetensors(path / "model.safetensors", tensors)
    checkpoints.write_json(path / "config.json", {"num_hidden_layers": len(kinds)})
    return path


ATTENTION = tuple(f"self_attn.{leaf}_proj" for leaf in "qkvo")
DENSE = tuple(f"mlp.{leaf}_proj" for leaf in ("gate", "up", "down"))
EXPERTS = tuple(f"mlp.experts.{n}.{leaf}_proj" for n in range(2) for leaf in ("up", "down"))
SPARSE = ("mlp.gate", *EXPERTS)
NORMS = ("input_layernorm", "post_attention_layernorm")
DESIGNS: dict[str, tuple[str, dict[str, tuple[str, ...]], str]] = {
    "Nemotron-H: Mamba, MLP and attention": (
        "M-M-M*-M-",
        {
            "M": ("norm", "mixer.in_proj", "mixer.conv1d", "mixer.out_proj"),
            "-": ("norm", "mixer.up_proj", "mixer.down_proj"),
            "*": ("norm", "mixer.q_proj", "mixer.k_proj", "mixer.v_proj", "mixer.o_proj"),
        },
        "backbone.layers",
    ),
    "Qwen3-Next: linear attention, MTP beside": (
        "LLLFLLLF",
        {
            "L": (*NORMS, "linear_attn.in_proj_qkvz", "linear_attn.out_proj", *SPARSE),
            "F": (*NORMS, *ATTENTION, *SPARSE),
        },
        "model.layers",
    ),
    "DeepSeek: the first layer dense": (
        "DSSSS",
        {"D": (*NORMS, *ATTENTION, *DENSE), "S": (*NORMS, *ATTENTION, *SPARSE)},
        "model.layers",
    ),
    "ModernBERT: no norm in the first layer": (
        "FNNNN",
        {"F": (*ATTENTION, *DENSE), "N": ("attn_norm", *ATTENTION, *DENSE)},
        "model.layers",
    ),
    "Gemma: keys shared by some layers": (
        "FFFFSS",
        {"F": (*ATTENTION, *DENSE), "S": (ATTENTION[0], ATTENTION[3], *DENSE)},
        "model.language_model.layers",
    ),
    "one attention layer among Mamba layers": (
        "MMMAMMM",
        {"M": (*NORMS, "mamba.in_proj", "mamba.x_proj"), "A": (*NORMS, *ATTENTION)},
        "model.layers",
    ),
}


@pytest.mark.parametrize("design", DESIGNS)
def test_layers_of_several_kinds_are_complete(tmp_path: Path, design: str) -> None:
    path = mixer(tmp_path, *DESIGNS[design])
    assert not {finding.rule for finding in judge(path).findings} & RULES


SILENT: dict[str, tuple[dict[str, Any], Damage]] = {
    "an MTP layer past the end": (
        {},
        both(
            added(["model.layers.2.eh_proj.weight"], checkpoints.bf16((64, 128))),
            stating(num_nextn_predict_layers=1),
            declared(exclude_modules=["lm_head", "model.embed_tokens", "model.layers.2*"]),
        ),
    ),
    "MTP beside the model": (
        {},
        both(
            added(["mtp.fc.weight"], checkpoints.bf16((64, 128))),
            stating(mtp_num_hidden_layers=1),
            declared(exclude_modules=["lm_head", "model.embed_tokens", "mtp*"]),
        ),
    ),
    "two counts of layers": ({}, stating(num_hidden_layers=4, num_layers=2)),
    "one layer left unquantized": (
        {"algo": "NVFP4", "layers": 5},
        both(
            without("model.layers.2.mlp.up_proj"),
            added(["model.layers.2.mlp.up_proj.weight"], checkpoints.bf16((128, 64))),
        ),
    ),
    "layers of which each has its own design": (
        {"layers": 5},
        both(without("model.layers.2.self_attn"), stating(block_configs=[{}])),
    ),
    "tied by the class's default": (
        {},
        lambda path: edit_json(path, "config.json", lambda c: c.pop("tie_word_embeddings")),
    ),
    "no head, no word on it": (
        {"tied": False},
        both(
            without("lm_head."),
            lambda path: edit_json(path, "config.json", lambda c: c.pop("tie_word_embeddings")),
        ),
    ),
    "a wavering configuration": ({}, stating(text_config={"tie_word_embeddings": False})),
    "a model without a head": (
        {},
        stating(architectures=["LlamaModel"], tie_word_embeddings=False),
    ),
    "a head of another name": (
        {"tied": False},
        both(
            renamed("lm_head", "output"),
            declared(exclude_modules=["output", "model.embed_tokens"]),
        ),
    ),
    "padded vocabulary": ({}, stating(vocab_size=90)),
    "added tokens below the rows": ({}, tokenizer(2, 95, None, "97", True)),
    "a tokenizer of another make": (
        {},
        lambda path: (path / "tokenizer.json").write_text('{"added_tokens": [[[['),
    ),
    "KV scales of all layers": ({}, kv("kv", [0, 1])),
    "one KV scale for both": (
        {},
        added([f"model.layers.{n}.self_attn.kv_scale" for n in range(2)], checkpoints.f32(())),
    ),
    "KV scales beside attention": (
        {},
        added(
            [f"model.layers.{n}.self_attn.{k}_scale" for n in range(2) for k in "kv"],
            ("BF16", (1,), b"\x00\x3c"),
        ),
    ),
    "KV scales of attention layers in a hybrid": (
        {"layers": 4},
        both(
            without("model.layers.1.self_attn", "model.layers.2.self_attn"),
            added(
                [f"model.layers.{n}.linear_attn.out_proj.weight" for n in (1, 2)],
                checkpoints.bf16((8, 8)),
            ),
            kv("kv", [0, 3]),
            declared(exclude_modules=["lm_head", "model.embed_tokens", "*linear_attn*"]),
        ),
    ),
    "latent attention with one cache": (
        {},
        both(
            without(*(f"model.layers.{n}.self_attn.{k}_proj" for n in range(2) for k in "kv")),
            added(
                [f"model.layers.{n}.self_attn.q_proj.k_scale" for n in range(2)],
                checkpoints.f32(()),
            ),
        ),
    ),
    "prefixes of a multimodal model": (
        {"algo": None},
        both(
            renamed("model.", "model.language_model."),
            added(
                [f"model.visual.blocks.{n}.attn.qkv.weight" for n in range(9)],
                checkpoints.bf16((8, 8)),
            ),
        ),
    ),
}


@pytest.mark.parametrize("case", SILENT)
def test_is_silent_on_designs_of_public_models(tmp_path: Path, case: str) -> None:
    built, change = SILENT[case]
    path = checkpoints.build(tmp_path, **built)
    change(path)
    found = [finding for finding in judge(path).findings if finding.rule in RULES]
    assert found == []


def test_a_declared_kv_cache_without_scales_is_a_note(tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path)
    declared(kv_cache_quant_algo="FP8")(path)
    (found,) = (f for f in judge(path).findings if f.rule == "kv-scale-partial")
    assert found.severity == "note"


def test_tokens_beyond_the_rows_are_a_warning_and_no_error(tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path)
    tokenizer(96)(path)
    assert [f.severity for f in judge(path).findings if f.rule == "vocab-rows"] == ["warning"]


def test_unquantized_mtp_that_is_not_excluded_is_reported_once(tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path)
    added(["mtp.fc.weight"], checkpoints.bf16((64, 128)))(path)
    stating(num_nextn_predict_layers=1)(path)
    errors = judge(path).errors
    assert [(found.rule, found.tensor) for found in errors] == [
        ("unquantized-not-excluded", "mtp.fc.weight")
    ]


def test_a_missing_shard_is_not_reported_as_missing_layers(tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path, layers=4, tied=False, experts=2)
    tensors = checkpoints.read_safetensors(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    late = ("model.layers.2.", "model.layers.3.", "lm_head.")
    weight_map = {name: files[name.startswith(late)] for name in tensors}
    first = {name: tensors[name] for name, file in weight_map.items() if file == files[0]}
    checkpoints.write_safetensors(path / files[0], first)
    checkpoints.write_json(path / "model.safetensors.index.json", {"weight_map": weight_map})
    assert {finding.rule for finding in judge(path).errors} == {"shard-missing"}


def test_the_inventory_tells_layers_experts_and_the_rest() -> None:
    names = [
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.q_proj.weight.quant_state.bitsandbytes__nf4",
        "model.layers.10.mlp.experts.3.up_proj.weight_scale",
        "visual.blocks.7.attn.qkv.bias",
        "lm_head.weight",
    ]
    found = Inventory(names)
    assert found.decoder == "model.layers"
    assert found.layers == {0: {"self_attn.q_proj"}, 10: {"mlp.experts.#.up_proj"}}
    assert found.experts == {"model.layers.10.mlp.experts": {"up_proj": {3}}}
    assert found.outside == {"model.embed_tokens", "lm_head"}
    assert (found.embedding, found.heads) == ("model.embed_tokens", ("lm_head",))
    assert found.roots == ("model.", "")
    assert Inventory(["a.layers.0.x", "b.layers.0.x"]).layers == {}


def test_what_is_absent_is_counted_without_counting_up() -> None:
    assert absent({0, 1, 2}, 3) == ""
    assert absent({0, 2, 7}, 4) == "1, 3"
    assert absent(set(), 10**18) == "0, 1, 2, 3, 4 and 999,999,999,999,999,995 more"


def test_ties_that_contradict_each_other_count_as_unstated() -> None:
    outer = {"tie_word_embeddings": True, "text_config": {"tie_word_embeddings": False}}
    assert Architecture(outer).tied is None
    assert Architecture({"tie_word_embeddings": False, "text_config": {}}).tied is False


def test_absurdly_many_kinds_of_layers_are_not_compared(tmp_path: Path) -> None:
    leaves: dict[str, tuple[str, ...]] = {
        chr(256 + kind): (f"a{kind}", "b") for kind in range(40)
    } | {"-": ("b",)}
    kinds = "".join(leaves) + "".join(leaves)[:-1]
    path = mixer(tmp_path, kinds, leaves, "model.layers")
    assert not {finding.rule for finding in judge(path).findings} & RULES
