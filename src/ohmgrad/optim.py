"""The optimizer: analog tiles by pulses, digital parameters by any torch optimizer."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from ohmgrad.crossbar.gradient import Gradient
from ohmgrad.crossbar.tile import Tile


class AnalogOptimizer(torch.optim.Optimizer):
    """Sends what the backward passes left on the tiles through their algorithms, and steps the digital rest.

    A torch optimizer: param_groups, schedulers, closures, state_dict. What waits on a tile is the sum of all
    backward passes since the last `zero_grad`, so gradient accumulation works, and so do `clip_grad_norm_` and
    `torch.amp.GradScaler`. Each step is one mini-batch of time: the devices of every tile decay and diffuse once, after
    its updates, also of a tile that nothing waits on.

    Args:
        model: the model; its tiles are found by themselves.
        lr: step of tiles and of digital parameters, >= 0.
        groups: dicts with "params" (parameters of the model) and options such as "lr", for parameters which need
            other options than the rest; a layer's tile goes with the layer's parameters.
        digital: makes the optimizer of the digital parameters, torch's SGD by default.
        **options: further options of the digital optimizer. On tiles too act `maximize` and `weight_decay`, which adds
            that share of the matrix to the gradient and takes a pulse cycle for each of its rows. Momentum, betas and
            all that makes a step of numbers kept for each weight act on digital parameters alone: pulses carry the
            gradient of a mini-batch and nothing else. `MixedPrecision(momentum=...)` has it on tiles.

    Raises:
        ValueError: lr is negative or not finite; a group holds a parameter that the model does not own; the digital
            optimizer needs a closure, as LBFGS does.
        TypeError: what is given is no model; the digital optimizer knows no such option.
        RuntimeError: a step of a model in DistributedDataParallel on more than one rank.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        *,
        groups: Iterable[dict[str, Any]] = (),
        digital: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
        **options: Any,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"AnalogOptimizer needs the model itself, whose tiles it looks for, got {type(model).__name__}: "
                "AnalogOptimizer(model, lr=...), not model.parameters()"
            )
        if not 0 <= lr < float("inf"):
            raise ValueError(f"AnalogOptimizer needs a finite lr >= 0, got {lr}")
        self._tiles = {id(m.handle): m for m in model.modules() if isinstance(m, Tile)}
        analog, rest = self._split(model, [{**g, "params": list(g["params"])} for g in groups], lr)
        if not analog and not rest:
            raise ValueError("AnalogOptimizer needs a model with parameters, got one without")
        # Of nothing, where all parameters are tiles: it looks at the options, and says what groups have.
        made = digital(rest or [torch.zeros((), requires_grad=True)], lr=lr, **options)
        _check_step(made)
        for group in analog:  # schedulers of momentum look for it in each group
            group.update({name: value for name, value in made.defaults.items() if name not in group})
        super().__init__(analog + rest, {**made.defaults, "lr": lr})
        self.digital = made if rest else None
        self._join(len(analog))
        self._is_read = not self._tiles  # whether a tile is known to have been read

    def _join(self, n_analog: int) -> None:
        """The same dicts in both: what a scheduler sets here, the digital optimizer reads there."""
        if self.digital:
            self.param_groups[n_analog:] = self.digital.param_groups
            self.state = self.digital.state

    def _split(
        self, model: nn.Module, groups: list[dict[str, Any]], lr: float
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Each group as one of tiles and one of digital parameters, with equal options; empty ones left out."""
        own = {id(p) for p in model.parameters()}
        named = {id(p) for g in groups for p in g["params"]}
        if strangers := named - own:
            raise ValueError(
                f"AnalogOptimizer got {len(strangers)} parameters in groups that the model does not own: "
                "layer.parameters() has those of a layer, of which layer.weight is a copy"
            )
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
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            self._step_tiles()
        if self.digital:
            _step_inside(self.digital)
        return loss

    def _step_tiles(self) -> None:
        """All tiles are looked at before the first one is written."""
        groups = self._analog_groups()
        grads = [p.grad for g in groups for p in g["params"]]
        for tile in self._tiles.values():
            tile.check_gradient()
            if tile.is_wrapped:
                _refuse_ranks()
        if not self._is_read:
            self._look(grads)
        if any(grad is not None and type(grad) is not Gradient for grad in grads) and not any(g["lr"] for g in groups):
            return  # torch.distributed.checkpoint asks for a step that changes nothing, with plain zeros
        for group in groups:
            sign = -1.0 if group.get("maximize") else 1.0
            for handle in group["params"]:
                self._tiles[id(handle)].send(sign * float(group["lr"]), sign * group.get("weight_decay", 0.0))

    def _look(self, grads: list[Any]) -> None:
        """Tell once where nothing ever read a tile."""
        self._is_read = True
        reads = sum(int(bar.counters.reads) for tile in self._tiles.values() for bar in tile.crossbars)
        if not reads and all(grad is None for grad in grads):
            warnings.warn(
                "AnalogOptimizer steps, and no tile of its model was ever read: perhaps the model's forward, or a copy "
                "of it, still calls the digital layers that convert took the place of",
                stacklevel=5,
            )

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
        own = {"_tiles": list(self._tiles.values()), "digital": self.digital, "_is_read": self._is_read}
        return super().__getstate__() | own

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(tiles := state.get("_tiles"), list):
            state = {**state, "_tiles": {id(tile.handle): tile for tile in tiles}}
        super().__setstate__(state)

    def state_dict(self) -> dict[str, Any]:
        """Options of every group and the digital optimizer's state, in torch's layout.

        Where digital parameters have a state, so have tiles, {"step": 0}: torch.distributed.checkpoint wants one of
        each parameter or none.
        """
        state = super().state_dict()
        n_tiles = sum(len(g["params"]) for g in self._analog_groups())
        if state["state"]:
            state["state"] = {k: {"step": torch.zeros(())} for k in range(n_tiles)} | state["state"]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, in torch's layout. The tiles' own state is in the model's state_dict.

        Raises:
            ValueError: it has other groups, or groups of other sizes.
        """
        groups, saved = self.param_groups, state_dict.get("param_groups", ())
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in saved]:
            raise ValueError("the state dict has other parameter groups than this optimizer")
        n_analog = len(self._analog_groups())
        n_tiles = sum(len(g["params"]) for g in groups[:n_analog])
        for group, new in zip(groups[:n_analog], saved[:n_analog], strict=True):
            group.update({k: v for k, v in new.items() if k != "params"})
        if self.digital:
            # Parameters go by their place in all groups, whatever they are called there; tiles do not count here.
            place = {p: k - n_tiles for k, p in enumerate(p for g in saved for p in g["params"])}
            own = [{**g, "params": [place[p] for p in g["params"]]} for g in saved[n_analog:]]
            state = {place[p]: v for p, v in state_dict["state"].items() if place.get(p, -1) >= 0}
            self.digital.load_state_dict({"state": state, "param_groups": own})
            self._join(n_analog)

    def _analog_groups(self) -> list[dict[str, Any]]:
        return [g for g in self.param_groups if g["params"] and id(g["params"][0]) in self._tiles]


def _step_inside(digital: torch.optim.Optimizer) -> None:
    """Step the optimizer inside; hooks of all optimizers ran for the one around it, and do not run again."""
    is_hooked = _global_optimizer_pre_hooks or _global_optimizer_post_hooks
    own = digital._optimizer_step_pre_hooks or digital._optimizer_step_post_hooks
    plain = getattr(type(digital).step, "__wrapped__", None)
    if is_hooked and not own and plain is not None:
        with torch.no_grad():
            plain(digital)
    else:
        digital.step()


def _refuse_ranks() -> None:
    """Refuse to train a model that was read inside DistributedDataParallel on several ranks."""
    if torch.distributed.is_initialized() and (n := torch.distributed.get_world_size()) > 1:
        raise RuntimeError(
            f"AnalogOptimizer cannot step a model in DistributedDataParallel on {n} ranks: gradients of tiles would "
            "not be summed over ranks, so that each would train other weights. Train on one rank, with gradient "
            "accumulation for large batches"
        )


def _check_step(digital: torch.optim.Optimizer) -> None:
    """Refuse an optimizer that needs a closure, which would evaluate tiles at points that nobody wrote."""
    closure = inspect.signature(type(digital).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"AnalogOptimizer needs a digital optimizer that steps from gradients alone, got "
            f"{type(digital).__name__}, whose step needs a closure: SGD, Adam or another of that kind"
        )
