"""The optimizer: analog tiles by pulses, digital parameters by any torch optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ohmgrad.crossbar.tile import Tile


class AnalogOptimizer(torch.optim.Optimizer):
    """Sends what the backward passes left on the tiles through their algorithms, and steps the digital rest.

    A torch optimizer: param_groups, schedulers, closures, state_dict. What waits on a tile is the sum of all
    backward passes since the last `zero_grad`, so gradient accumulation works. Each step is one mini-batch of time: the
    devices of every tile decay and diffuse once, after its updates, also of a tile that nothing waits on.

    Args:
        model: the model; its tiles are found by themselves.
        lr: step of tiles and of digital parameters, >= 0.
        groups: dicts with "params" (parameters of the model) and options such as "lr", for parameters which need
            other options than the rest; a layer's tile goes with the layer's parameters.
        digital: makes the optimizer of the digital parameters, torch's SGD by default.
        **options: further options of the digital optimizer, such as momentum or weight_decay. They do not act on tiles.

    Raises:
        ValueError: lr is negative or not finite; a group holds a parameter that the model does not own.
        TypeError: `step` by a `torch.amp.GradScaler`, which undoes the loss's scale in gradients alone, not in what
            waits on tiles. Nor is it needed: tiles keep their dtype under autocast.
    """

    _step_supports_amp_scaling = True  # then a GradScaler tells us that it is one

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        *,
        groups: Iterable[dict[str, Any]] = (),
        digital: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
        **options: Any,
    ) -> None:
        if not 0 <= lr < float("inf"):
            raise ValueError(f"AnalogOptimizer needs a finite lr >= 0, got {lr}")
        self._tiles = {id(m.handle): m for m in model.modules() if isinstance(m, Tile)}
        analog, rest = self._split(model, [{**g, "params": list(g["params"])} for g in groups], lr)
        if not analog and not rest:
            raise ValueError("AnalogOptimizer needs a model with parameters, got one without")
        super().__init__(analog + rest, {"lr": lr})
        self.digital = digital(self.param_groups[len(analog) :], lr=lr, **options) if rest else None
        if self.digital:
            # The same dicts: what a scheduler sets here, the digital optimizer reads there.
            self.param_groups[len(analog) :] = self.digital.param_groups

    def _split(
        self, model: nn.Module, groups: list[dict[str, Any]], lr: float
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Each group as one of tiles and one of digital parameters, with equal options; empty ones left out."""
        own = {id(p) for p in model.parameters()}
        named = {id(p) for g in groups for p in g["params"]}
        if strangers := named - own:
            raise ValueError(f"AnalogOptimizer got {len(strangers)} parameters in groups that the model does not own")
        groups = [*groups, {"params": [p for p in model.parameters() if id(p) not in named]}]
        halves: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
        for group in groups:
            for half, is_analog in zip(halves, (True, False), strict=True):
                params = [p for p in group["params"] if (id(p) in self._tiles) == is_analog]
                if params:
                    half.append({"lr": lr, **group, "params": params})
        return halves

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update of every tile and every digital parameter; returns the closure's loss."""
        if hasattr(self, "found_inf"):
            raise TypeError(
                "AnalogOptimizer needs a loss that is not scaled, got one from a GradScaler: leave it out, or make it "
                "with enabled=False"
            )
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for handle in group["params"]:
                if id(handle) in self._tiles:
                    self._tiles[id(handle)].step(float(group["lr"]))
        if self.digital:
            self.digital.step()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """One more group for the digital optimizer; all tiles of the model are in groups already.

        Raises:
            ValueError: the model had no digital parameters, so that there is no digital optimizer; or a parameter is in
                a group already.
        """
        if "digital" not in self.__dict__:  # torch's constructor, with groups that are split already
            return super().add_param_group(param_group)
        if self.digital is None:
            raise ValueError(
                "AnalogOptimizer needs a model with digital parameters to add others, got one of tiles alone"
            )
        self.digital.add_param_group({"lr": self.defaults["lr"], **param_group})
        self.param_groups.append(self.digital.param_groups[-1])

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, which together with the model's hold the copied model's tiles."""
        return {**super().__getstate__(), "_tiles": list(self._tiles.values()), "digital": self.digital}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(tiles := state.get("_tiles"), list):
            state = {**state, "_tiles": {id(tile.handle): tile for tile in tiles}}
        super().__setstate__(state)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients and the updates that wait on tiles."""
        super().zero_grad(set_to_none)
        for tile in self._tiles.values():
            tile.handle.grad = None
            tile.waiting = []

    def state_dict(self) -> dict[str, Any]:
        """Options of every group, and the digital optimizer's state."""
        analog = [{k: v for k, v in g.items() if k != "params"} for g in self._analog_groups()]
        return {"analog": analog, "digital": self.digital.state_dict() if self.digital else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave. The tiles' own state is in the model's state_dict."""
        groups = self._analog_groups()
        if len(state_dict["analog"]) != len(groups) or (state_dict["digital"] is None) != (self.digital is None):
            raise ValueError("the state dict has other parameter groups than this optimizer")
        for group, saved in zip(groups, state_dict["analog"], strict=True):
            group.update(saved)
        if self.digital:
            self.digital.load_state_dict(state_dict["digital"])
            self.param_groups[len(groups) :] = self.digital.param_groups

    def _analog_groups(self) -> list[dict[str, Any]]:
        return [g for g in self.param_groups if id(g["params"][0]) in self._tiles]
