"""Multi-head attention whose four projections are linear layers on tiles; what lies between them is digital."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, pad, scaled_dot_product_attention

from ohmgrad.nn.hardware import Hardware
from ohmgrad.nn.layer import blank, child_seeds, filled, named_options
from ohmgrad.nn.linear import AnalogLinear
from ohmgrad.nn.refusals import check_input
from ohmgrad.nn.weights import fitting, joined, need_bias, read_only

OWN = ("in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight")


class AnalogMultiheadAttention(nn.Module):
    """softmax(q k' / sqrt(size of a head)) v with q, k, v and the output on tiles; else `torch.nn.MultiheadAttention`.

    Queries, keys and values have a tile each (`q_proj`, `k_proj`, `v_proj`), also where torch stacks their weights in
    one parameter: what each reads may differ.

    Args:
        embed_dim, num_heads, dropout, bias, add_zero_attn, kdim, vdim, batch_first: as in torch's layer, whose
            initialisation is used.
        add_bias_kv: not on tiles; only False.
        seed: of the tiles; one integer or one for each replica. None draws one from torch's default generator.
        replicas: leading dimensions of weights, inputs and outputs; masks may have them.
        **hardware: the fields of `ohmgrad.nn.Hardware`: device, algorithm, update, count_pulses.

    Raises:
        ValueError: `add_bias_kv`; a mask or an input has another shape; nested tensors.

    >>> from ohmgrad.devices import Ideal
    >>> x = torch.zeros(5, 7, 6)
    >>> AnalogMultiheadAttention(6, 2, batch_first=True, device=Ideal())(x, x, x)[1].shape
    torch.Size([5, 7, 7])
    """

    # torch's encoder layers ask this before they hand the weights to a fused kernel, which would not read the tiles.
    _qkv_same_embed_dim = False
    __setattr__, __delattr__, _load_from_state_dict = read_only(lambda layer, name: name in OWN)
    q_proj: AnalogLinear
    k_proj: AnalogLinear
    v_proj: AnalogLinear
    out_proj: AnalogLinear

    @named_options
    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
        dtype: torch.dtype | None = None,
        **hardware: Any,  # as in AnalogLinear
    ) -> None:
        super().__init__()
        options = (embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first)
        layers = [nn.MultiheadAttention(*options, dtype=dtype) for _ in range(math.prod(replicas))]
        self._place(layers, Hardware(**hardware), seed, replicas)

    @classmethod
    def from_digital(
        cls,
        layers: Sequence[nn.MultiheadAttention],
        *,
        hardware: Hardware,
        seed: int | Sequence[int] | None = None,
        replicas: Sequence[int] = (),
    ) -> AnalogMultiheadAttention:
        """One layer of replicas from as many digital layers, or from one; what is frozen stays frozen."""
        layer = blank(cls)
        layer._place(layers, hardware, seed, replicas)
        return layer

    def _place(
        self,
        layers: Sequence[nn.MultiheadAttention],
        hardware: Hardware,
        seed: int | Sequence[int] | None,
        replicas: Sequence[int],
    ) -> None:
        layer, self.replicas = layers[0], tuple(replicas)
        if layer.bias_k is not None:
            raise ValueError("AnalogMultiheadAttention needs add_bias_kv=False, got True")
        self.embed_dim, self.num_heads, self.head_dim = layer.embed_dim, layer.num_heads, layer.head_dim
        self.kdim, self.vdim, self.dropout = layer.kdim, layer.vdim, layer.dropout
        self.add_zero_attn, self.batch_first = layer.add_zero_attn, layer.batch_first
        projections = [*zip(*map(_in_projections, layers), strict=True), [m.out_proj for m in layers]]
        seeds = child_seeds(seed, replicas, 4)
        for name, own_layers, own in zip(("q_proj", "k_proj", "v_proj", "out_proj"), projections, seeds, strict=True):
            linear = AnalogLinear.from_digital(own_layers, hardware=hardware, seed=own, replicas=replicas)
            self.add_module(name, linear)
        self.train(layer.training)

    @property
    def in_proj_weight(self) -> Tensor | None:
        """The represented weights of q, k and v, (*replica, 3 embed_dim, embed_dim); None if their sizes differ.

        A copy to be read, as is `in_proj_bias`: `set_weight` writes.
        """
        return joined([m.weight for m in self._projections()], -2) if self._is_stacked else None

    @property
    def in_proj_bias(self) -> Tensor | None:
        """The biases of q, k and v in one, (*replica, 3 embed_dim)."""
        biases: list[Tensor] = [m.bias for m in self._projections() if m.bias is not None]
        return joined(biases, -1) if biases else None

    @property
    def q_proj_weight(self) -> Tensor | None:
        """As torch's: the represented weight of q where sizes differ, (*replica, embed_dim, embed_dim), else None."""
        return None if self._is_stacked else self.q_proj.weight

    @property
    def k_proj_weight(self) -> Tensor | None:
        """As `q_proj_weight`, of k."""
        return None if self._is_stacked else self.k_proj.weight

    @property
    def v_proj_weight(self) -> Tensor | None:
        """As `q_proj_weight`, of v."""
        return None if self._is_stacked else self.v_proj.weight

    def set_weight(self, **parameters: Tensor) -> None:
        """As `AnalogLinear.set_weight`, by torch's names `in_proj_weight`, or `q_proj_weight`, `k_proj_weight` and
        `v_proj_weight` where sizes differ, and `in_proj_bias`; `out_proj` is a layer of its own."""
        names = OWN[:2] if self._is_stacked else OWN[1:]
        if strangers := [name for name in parameters if name not in names]:
            raise ValueError(f"{type(self).__name__} has no {strangers[0]!r}; it has {', '.join(names)}, and out_proj")
        parts: list[dict[str, Tensor]] = [{}, {}, {}]
        for name, value in parameters.items():
            if name == "in_proj_bias":
                need_bias(self, name, self.q_proj.bias is not None)
            own = [OWN[2:].index(name)] if name in OWN[2:] else [0, 1, 2]
            rows = [self.embed_dim * len(own)]
            columns = [] if name == "in_proj_bias" else [self._projections()[own[0]].in_features]
            fit = fitting(self, name, value, [*rows, *columns], self.q_proj.tile.handle)
            assert fit is not None  # nothing was given as None
            for k, part in zip(own, fit.split(self.embed_dim, -1 if not columns else -2), strict=True):
                parts[k]["weight" if columns else "bias"] = part
        for linear, own in zip(self._projections(), parts, strict=True):
            linear.set_weight(**own)

    @property
    def _is_stacked(self) -> bool:
        return self.kdim == self.vdim == self.embed_dim

    def _projections(self) -> list[AnalogLinear]:
        return [self.q_proj, self.k_proj, self.v_proj]

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As torch's layer; `is_causal` is the hint that attn_mask is causal, and needs that mask.

        Args:
            query: (batch, L, embed_dim) if `batch_first`, else (L, batch, embed_dim), or (L, embed_dim); replicas in
                front. key, value: so with S for L, and kdim, vdim.
            key_padding_mask: (batch, S) or (S,), and may have replicas in front. attn_mask: (L, S) or (batch * heads,
                L, S), of all replicas. Both bool, True where not to look, or floats that are added.

        Returns:
            The output, in the form of query; and the weights, (batch, L, S) averaged over heads or (batch, heads, L,
            S), or None.
        """
        inputs = (query, key, value)
        for name, x in zip(("query", "key", "value"), inputs, strict=True):
            check_input(x, name)
        lead = len(self.replicas)
        if query.dim() - lead not in (2, 3) or any(x.dim() != query.dim() for x in inputs):
            needed = f"{lead + 2} or {lead + 3}"
            raise ValueError(f"query, key and value need {needed} dimensions, got {[tuple(x.shape) for x in inputs]}")
        if is_causal and attn_mask is None:
            raise ValueError("is_causal=True is a hint about attn_mask, got no attn_mask")
        is_batched = query.dim() - lead == 3
        if not is_batched:
            query, key, value = (x.unsqueeze(-3) for x in inputs)
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(-2)
        elif not self.batch_first:
            query, key, value = (x.transpose(-3, -2) for x in inputs)
        y, weights = self._attend(query, key, value, key_padding_mask, attn_mask, need_weights)
        if weights is not None and average_attn_weights:
            weights = weights.mean(-3)
        if not is_batched:
            return y.squeeze(-3), None if weights is None else weights.squeeze(lead)
        return y if self.batch_first else y.transpose(-3, -2), weights

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        attn_mask: Tensor | None,
        need_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Batch first: the output (*replica, batch, L, embed_dim) and the weights (*replica, batch, heads, L, S)."""
        mask = self._mask(query, key, key_padding_mask, attn_mask)
        q, k, v = (self._heads(m(x)) for m, x in zip(self._projections(), (query, key, value), strict=True))
        if self.add_zero_attn:
            k, v = pad(k, (0, 0, 0, 1)), pad(v, (0, 0, 0, 1))
            mask = None if mask is None else pad(mask, (0, 1))
        p = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q / math.sqrt(self.head_dim) @ k.mT
            weights = torch.softmax(scores if mask is None else scores + mask, -1)
            weights = dropout(weights, p) if p else weights
            y = weights @ v
        else:
            y = scaled_dot_product_attention(q, k, v, mask, p)
        return self.out_proj(y.transpose(-3, -2).flatten(-2)), weights

    def _heads(self, x: Tensor) -> Tensor:
        """(..., time, embed_dim) to (..., heads, time, head_dim)."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(-3, -2)

    def _mask(
        self, query: Tensor, key: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None
    ) -> Tensor | None:
        """Both masks as one that is added to the scores, broadcast against (*replica, batch, heads, L, S)."""
        (batch, L), S = query.shape[-3:-1], key.shape[-2]
        mask = None
        if attn_mask is not None:
            if attn_mask.shape not in ((L, S), (batch * self.num_heads, L, S)):
                needed = f"{(L, S)} or {(batch * self.num_heads, L, S)}"
                raise ValueError(f"attn_mask needs the shape {needed}, got {tuple(attn_mask.shape)}")
            mask = _as_floats(attn_mask, query.dtype).reshape(-1, self.num_heads if attn_mask.dim() == 3 else 1, L, S)
        if key_padding_mask is not None:
            if key_padding_mask.shape not in ((batch, S), (*self.replicas, batch, S)):
                raise ValueError(f"key_padding_mask needs the shape {(batch, S)}, got {tuple(key_padding_mask.shape)}")
            padding = _as_floats(key_padding_mask, query.dtype)[..., None, None, :]
            mask = padding if mask is None else mask + padding
        return mask

    def to_digital(self, *replica: int) -> nn.MultiheadAttention:
        """torch's layer with the weights represented now, of one replica where there are replicas."""
        with torch.device("meta"):
            layer = nn.MultiheadAttention(
                self.embed_dim, self.num_heads, self.dropout, self.out_proj.bias is not None,
                add_zero_attn=self.add_zero_attn, kdim=self.kdim, vdim=self.vdim, batch_first=self.batch_first,
            )  # fmt: skip
        q, k, v = (m.to_digital(*replica) for m in self._projections())
        parameters: dict[str, Tensor | None] = {"in_proj_bias": _joined([m.bias for m in (q, k, v)])}
        if layer._qkv_same_embed_dim:
            parameters["in_proj_weight"] = _joined([m.weight for m in (q, k, v)])
        else:
            parameters |= {"q_proj_weight": q.weight, "k_proj_weight": k.weight, "v_proj_weight": v.weight}
        out = self.out_proj.to_digital(*replica)
        filled(layer.out_proj, training=self.training, weight=out.weight, bias=out.bias)
        return filled(layer, training=self.training, **parameters)

    def extra_repr(self) -> str:
        """Sizes, for print(model)."""
        return (
            f"{self.embed_dim}, {self.num_heads}, dropout={self.dropout}, kdim={self.kdim}, vdim={self.vdim}, "
            f"add_zero_attn={self.add_zero_attn}, batch_first={self.batch_first}"
        )


def _in_projections(layer: nn.MultiheadAttention) -> list[nn.Linear]:
    """torch's projections of q, k and v as linear layers of their own."""
    if layer._qkv_same_embed_dim:
        is_trained = layer.in_proj_weight.requires_grad
        weights = [nn.Parameter(w, is_trained) for w in layer.in_proj_weight.detach().chunk(3)]
    else:
        weights = [layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight]
    biases: list[nn.Parameter | None] = [None] * 3
    if layer.in_proj_bias is not None:
        is_trained = layer.in_proj_bias.requires_grad
        biases = [nn.Parameter(b, is_trained) for b in layer.in_proj_bias.detach().chunk(3)]
    linears = []
    for weight, bias in zip(weights, biases, strict=True):
        with torch.device("meta"):
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
        linears.append(filled(linear, training=layer.training, weight=weight, bias=bias))
    return linears


def _joined(parts: Sequence[Tensor | None]) -> nn.Parameter | None:
    """Parameters of equal layers as one, which is trained if any of them is."""
    values = [p for p in parts if p is not None]
    if not values:
        return None
    return nn.Parameter(torch.cat([p.detach() for p in values]), any(p.requires_grad for p in values))


def _as_floats(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask that is added: -infinity where a bool one is True."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask, -math.inf)
