"""The way from torch's layers to ours and back: what every analog layer does alike."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ohmgrad import random
from ohmgrad.crossbar.grid import Grid
from ohmgrad.crossbar.represented import plain
from ohmgrad.crossbar.tile import Tile
from ohmgrad.nn.hardware import Hardware
from ohmgrad.nn.spelling import check_options, keywords

M = TypeVar("M", bound=nn.Module)
P = ParamSpec("P")


def named_options(init: Callable[P, None]) -> Callable[P, None]:
    """An analog layer's __init__ that tells a misspelt option, with the nearest right one, and a missing device."""

    @functools.wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        kind = type(args[0])
        check_options(kind.__name__, kwargs, _options(kind), ["device"])
        init(*args, **kwargs)

    return checked


@functools.cache
def _options(kind: type[nn.Module]) -> tuple[str, ...]:
    """Names of the options of an analog layer: its own, those of `Hardware`, and torch's where it passes them on."""
    digital = getattr(kind, "digital", None)
    torchs = [] if digital is None else list(keywords(digital.__init__))
    if digital is not None and issubclass(digital, nn.RNNBase):  # whose subclasses do not name them
        torchs = [name for name in keywords(nn.RNNBase.__init__) if name != "mode"]
        torchs += ["nonlinearity"] * issubclass(digital, nn.RNN)
    return tuple(dict.fromkeys([*torchs, *keywords(kind.__init__), *keywords(Hardware)]))


class AnalogLayer(Protocol):
    """What `convert` and `to_digital` ask of a layer."""

    @classmethod
    def from_digital(
        cls, layers: Sequence[Any], *, hardware: Hardware, seed: int | Sequence[int] | None, replicas: Sequence[int]
    ) -> nn.Module:
        """One layer of replicas from as many digital layers, or from one if `replicas` is ()."""
        ...

    def to_digital(self, *replica: int) -> nn.Module:
        """torch's layer with the weights that the tiles represent now, of one replica where there are replicas."""
        ...

    @property
    def set_weight(self) -> Callable[..., None]:
        """Programs weights and biases, given by torch's names of them."""
        ...


def blank(kind: type[M]) -> M:
    """A module without its __init__, which would draw weights only to drop them."""
    layer = kind.__new__(kind)
    nn.Module.__init__(layer)
    return layer


def stacked(layers: Sequence[nn.Module], name: str, replicas: Sequence[int]) -> Tensor:
    """A parameter of several layers as one tensor, (*replica, ...)."""
    values = [getattr(layer, name).detach() for layer in layers]
    return torch.stack(values).reshape(*replicas, *values[0].shape)


def digital_copy(layers: Sequence[nn.Module], name: str, replicas: Sequence[int]) -> nn.Parameter | None:
    """A parameter that stays digital, (*replica, ...); frozen if it was, None if the layers have none."""
    first = getattr(layers[0], name)
    return None if first is None else nn.Parameter(stacked(layers, name, replicas), first.requires_grad)


def represented(tile: Tile | Grid, value: Tensor | None) -> nn.Parameter | None:
    """What a tile represents as a digital parameter, which is trained if the tile is; a parameter stays what it is."""
    if value is None or isinstance(value, nn.Parameter):
        return value
    return nn.Parameter(plain(value).detach(), tile.handle.requires_grad)


def filled(layer: M, *, training: bool, **parameters: Tensor | None) -> M:
    """That layer of torch, made on the meta device so that no weights were drawn, with parameters that are copies."""
    for name, value in parameters.items():
        if value is not None:
            setattr(layer, name, nn.Parameter(value.detach().clone(), value.requires_grad))
    return layer.train(training)


def of_replica(
    replicas: Sequence[int], replica: tuple[int, ...], **parameters: Tensor | None
) -> dict[str, Tensor | None]:
    """The parameters of one replica.

    Raises:
        ValueError: the replica is not an index into the replica dimensions.
    """
    if len(replica) != len(replicas):
        raise ValueError(f"to_digital needs one index for each of the replica dimensions {replicas}, got {replica}")
    return {
        name: None if value is None else nn.Parameter(value.detach()[replica], value.requires_grad)
        for name, value in parameters.items()
    }


def child_seeds(seed: int | Sequence[int] | None, replicas: Sequence[int], n: int) -> list[list[int]]:
    """Seeds of a layer's n tiles, each one for every replica (or a single one), from the layer's own."""
    seeds = random.seed_tensor(seed, replicas)
    return [random.derive(seeds, k).flatten().tolist() for k in range(n)]


def with_bias(y: Tensor, bias: Tensor) -> Tensor:
    """y + bias, of shapes that broadcast to y's, with a gradient of the bias in memory of its own.

    Where y is no larger than the bias, as of one sample, torch would make that gradient a view of y's: of memory that
    another bias, the next pass or the caller of `backward` has too.
    """
    return y + (bias * 1.0 if y.numel() == bias.numel() else bias)
