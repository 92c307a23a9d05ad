"""BERT (Devlin et al., 2019): the text encoder of ER-ZASR.

Modules are named as Hugging Face names them, and every size but the number of heads is read from
the weights. The pooler is left out: it is not used.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from froster.encoders.checkpoints import strict_load
from froster.encoders.huggingface import read_hf_weights
from froster.encoders.layouts import read_object, refuse_settings, unknown_settings
from froster.encoders.reading import State
from froster.errors import CheckpointError
from froster.methods.weight_names import count_layers, rename

EPS = 1e-12
DROPOUT = 0.1
_REQUIRED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "layer_norm_eps": EPS,
    "hidden_dropout_prob": DROPOUT,
    "attention_probs_dropout_prob": DROPOUT,
    "is_decoder": False,
    "add_cross_attention": False,
}
_KNOWN = frozenset(
    {
        *("architectures", "bos_token_id", "chunk_size_feed_forward", "classifier_dropout"),
        *(
            "do_sample",
            "dtype",
            "eos_token_id",
            "gradient_checkpointing",
            "hidden_size",
            "id2label",
        ),
        *("initializer_range", "intermediate_size", "is_encoder_decoder", "label2id"),
        *("max_position_embeddings", "num_attention_heads", "num_hidden_layers", "problem_type"),
        *("output_attentions", "output_hidden_states", "pad_token_id", "return_dict", "vocab_size"),
        *("tie_word_embeddings", "torch_dtype", "transformers_version", "type_vocab_size"),
        *("use_cache", "_name_or_path"),
    }
)


class Embeddings(nn.Module):
    def __init__(self, vocab: int, positions: int, kinds: int, width: int):
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(kinds, width)
        self.LayerNorm = nn.LayerNorm(width, EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.word_embeddings(tokens) + self.token_type_embeddings.weight[0]
        x = x + self.position_embeddings.weight[: tokens.shape[1]]
        return F.dropout(self.LayerNorm(x), DROPOUT, self.training)


class Residual(nn.Module):
    """A linear map, added to what came before it, and normed."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.LayerNorm(width, EPS)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(F.dropout(self.dense(x), DROPOUT, self.training) + before)


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, mlp_width: int):
        super().__init__()
        self.heads = heads
        maps = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict(
            {"self": nn.ModuleDict(maps), "output": Residual(width, width)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, mlp_width)})
        self.output = Residual(mlp_width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`mask` (texts, 1, 1, length): which tokens are seen."""
        q, k, v = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in self.attention["self"].values()  # type: ignore[operator]
        )
        dropout = DROPOUT if self.training else 0.0
        heads = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        x = self.attention["output"](heads.transpose(1, 2).flatten(2), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class Bert(nn.Module):
    """Token ids -> the hidden states of the last layer."""

    def __init__(self, state: State, heads: int | None = None):
        """`state`: weights under Hugging Face's names, which tell the sizes. `heads`: default: one
        for each 64 of the width, as in every released BERT but the smallest."""
        super().__init__()
        vocab, width = state["embeddings.word_embeddings.weight"].shape
        heads = width // 64 if heads is None else heads
        if heads < 1 or width % heads:
            raise CheckpointError(
                f"{heads} attention heads do not divide a BERT's width of {width}"
            )
        self.embeddings = Embeddings(
            vocab,
            len(state["embeddings.position_embeddings.weight"]),
            len(state["embeddings.token_type_embeddings.weight"]),
            width,
        )
        mlp_width = len(state["encoder.layer.0.intermediate.dense.weight"])
        layers = [
            Layer(width, heads, mlp_width) for _ in range(count_layers(state, "encoder.layer"))
        ]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    @classmethod
    def of(cls, state: State, heads: int | None = None) -> Bert:
        """From a release's weights: a bare BERT's, or those of one with heads for its pre-training.
        Raises CheckpointError."""
        state = bare(state)
        try:
            network = cls(state, heads)
        except LookupError as error:
            raise CheckpointError(f"no BERT: {error} is missing") from None
        strict_load(network, state)
        return network

    @property
    def width(self) -> int:
        return self.embeddings.word_embeddings.embedding_dim

    @property
    def context(self) -> int:
        """Tokens that a text may have."""
        return self.embeddings.position_embeddings.num_embeddings

    def freeze_all_but(self, trained: int) -> None:
        """Only the last `trained` layers learn."""
        self.embeddings.requires_grad_(False)
        layers = list(self.encoder["layer"].children())
        for layer in layers[: len(layers) - trained]:
            layer.requires_grad_(False)

    def forward(
        self, tokens: Int[Tensor, "texts length"], mask: Int[Tensor, "texts length"]
    ) -> Float[Tensor, "texts length width"]:
        """`mask`: 1 for a token, 0 for padding, which nothing attends to."""
        x = self.embeddings(tokens)
        for layer in self.encoder["layer"].children():
            x = layer(x, mask.bool()[:, None, None])
        return x


def bare(state: State) -> State:
    """A BERT's weights without prefix, without what it does not need, under today's names."""
    if any(name.startswith("bert.") for name in state):
        state = {n.removeprefix("bert."): t for n, t in state.items() if n.startswith("bert.")}
    unused = ("pooler.", "embeddings.position_ids", "embeddings.token_type_ids", "cls.")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(unused)}
    older = [(r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")]
    return rename(kept, older)


def read_bert(folder: Path) -> tuple[State, int]:
    """The weights in a folder of Hugging Face's and the number of heads. Raises CheckpointError,
    also on a setting that is none of BERT's."""
    path = folder / "config.json"
    values = read_object(path, "BERT config")
    refuse_settings(
        unknown_settings(values, "", _REQUIRED, _KNOWN), f"{path} is of no BERT that froster knows"
    )
    heads = values.get("num_attention_heads")
    if values.get("model_type") != "bert" or type(heads) is not int:
        raise CheckpointError(f"{path}: model_type and num_attention_heads must be a BERT's")
    state = {name: tensor.float() for name, tensor in read_hf_weights(folder).items()}
    return state, heads


def mean_token(
    hidden: Float[Tensor, "texts length width"], mask: Int[Tensor, "texts length"]
) -> Float[Tensor, "texts width"]:
    """The mean over all tokens of a text, its start and its end included."""
    weight = mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)
