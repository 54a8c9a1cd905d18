"""Loops that others wrote, unchanged but for `convert` and the optimizer: digital twins on ideal devices.

Each trains torch's model and its conversion by the same loop, at least 20 steps, in float32. Sums come in another
order, so that weights of size 1 may drift apart by some 1e-7 a step; a loop that loses, adds or scales an update is off
by 1e-3.
The libraries are imported where they are used, since each takes seconds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from ohmgrad import AnalogOptimizer, convert, to_digital
from ohmgrad.devices import Ideal

LR, STEPS, CLOSE = 0.05, 24, 2e-5

pytestmark = pytest.mark.filterwarnings("default")  # the libraries warn about their own insides


def data(n: int = 96) -> list[tuple[Tensor, Tensor]]:
    """Points of two classes."""
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(0))
    return list(zip(3.0 * x, (x[:, 0] > 0).long(), strict=True))


def network() -> nn.Sequential:
    """The same weights at every call."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))


def twins(make: Callable[[], nn.Module] = network) -> Iterator[tuple[nn.Module, Callable[..., torch.optim.Optimizer]]]:
    """Torch's model with torch's SGD, and its conversion with ours."""
    yield make(), lambda model, **o: torch.optim.SGD(model.parameters(), lr=LR, **o)
    yield convert(make(), device=Ideal()), lambda model, **o: AnalogOptimizer(model, lr=LR, **o)


def assert_same(models: list[nn.Module], before: nn.Module) -> None:
    """Equal weights within rounding, which moved."""
    digital, analog = dict(models[0].named_parameters()), dict(to_digital(models[1]).named_parameters())
    for name, value in digital.items():
        torch.testing.assert_close(analog[name].detach(), value.detach(), rtol=CLOSE, atol=CLOSE)
    start = dict(before.named_parameters())
    assert any((value - start[name]).abs().max() > 0.01 for name, value in digital.items() if name in start)


class Classifier(nn.Module):
    """As Hugging Face's trainer wants one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Loss and logits."""
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits} if labels is not None else {}


def test_hugging_faces_trainer_at_its_defaults(tmp_path):
    # Micro-batches of one, four of which make a step, whose norm is clipped to 1.
    import transformers

    models = []
    for model, optimizer_of in twins(Classifier):
        args = transformers.TrainingArguments(
            output_dir=str(tmp_path), max_steps=STEPS, per_device_train_batch_size=1, gradient_accumulation_steps=4,
            report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, logging_steps=1, seed=3,
        )  # fmt: skip
        assert args.max_grad_norm == 1.0
        optimizer = optimizer_of(model)
        trainer = transformers.Trainer(
            model=model, args=args, train_dataset=[{"x": x, "labels": y} for x, y in data()],
            optimizers=(optimizer, torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=STEPS)),
        )  # fmt: skip
        trainer.train()
        models.append(model)
        norms = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
        assert len(norms) == STEPS and max(norms) > 1.0  # it clips
    assert_same(models, Classifier())


def test_lightning_with_clipping_and_accumulation(tmp_path):
    import lightning

    class Task(lightning.LightningModule):
        def __init__(self, net: nn.Module, optimizer_of: Callable[..., Any]) -> None:
            super().__init__()
            self.net, self.optimizer_of = net, optimizer_of

        def training_step(self, batch: Any, index: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = self.optimizer_of(self.net)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=STEPS, cycle_momentum=False)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    models = []
    for model, optimizer_of in twins():
        trainer = lightning.Trainer(
            max_steps=STEPS, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path, enable_checkpointing=False, accumulate_grad_batches=4, gradient_clip_val=0.5,
        )  # fmt: skip
        trainer.fit(Task(model, optimizer_of), torch.utils.data.DataLoader(data(), batch_size=1))
        assert trainer.global_step == STEPS
        models.append(model)
    assert_same(models, network())


def test_accelerate():
    import accelerate

    models = []
    for model, optimizer_of in twins():
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        optimizer = optimizer_of(model)
        loader = torch.utils.data.DataLoader(data(2 * STEPS), batch_size=1)
        wrapped, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        for x, y in loader:
            with accelerator.accumulate(wrapped):
                accelerator.backward(nn.functional.cross_entropy(wrapped(x), y))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(wrapped.parameters(), 0.3)
                optimizer.step()
                optimizer.zero_grad()
        models.append(accelerator.unwrap_model(wrapped))
    assert_same(models, network())


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    """A mini-batch of four for each step."""
    rows = data(4 * STEPS)
    for k in range(STEPS):
        x, y = zip(*rows[4 * k : 4 * k + 4], strict=True)
        yield torch.stack(x), torch.stack(y)


@pytest.mark.parametrize("average", ["mean", "exponential"])
def test_averages_of_weights(average):
    # Of a digital copy, since no device holds an average; its weights are the averages of layer.weight.
    options = {} if average == "mean" else {"multi_avg_fn": get_ema_multi_avg_fn(0.8)}
    averaged, sums = [], 0.0
    for model, optimizer_of in twins():
        optimizer = optimizer_of(model)
        swa, schedule = AveragedModel(to_digital(model), **options), SWALR(optimizer, swa_lr=0.02, anneal_epochs=5)
        for k, (x, y) in enumerate(batches()):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
            swa.update_parameters(to_digital(model))
            weight = model[0].weight.detach().clone()
            sums = (weight if k == 0 else 0.8 * sums + 0.2 * weight) if options else (0.0 if k == 0 else sums) + weight
        averaged.append(swa.module)
        torch.testing.assert_close(swa.module[0].weight.detach(), sums if options else sums / STEPS)
    for a, b in zip(averaged[0].parameters(), averaged[1].parameters(), strict=True):
        torch.testing.assert_close(b.detach(), a.detach(), rtol=CLOSE, atol=CLOSE)


CHECKPOINTS: dict[str, Callable[[nn.Sequential, Tensor], Tensor]] = {
    "not reentrant": lambda m, x: checkpoint(m, x, use_reentrant=False),
    "reentrant": lambda m, x: checkpoint(m, x.clone().requires_grad_(), use_reentrant=True),
    "sequential": lambda m, x: checkpoint_sequential(m, 2, x.clone().requires_grad_(), use_reentrant=False),
}


@pytest.mark.parametrize("way", CHECKPOINTS)
def test_activation_checkpointing(way):
    models = []
    for model, optimizer_of in twins():
        optimizer = optimizer_of(model)
        for x, y in batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(CHECKPOINTS[way](model, x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        models.append(model)
    assert_same(models, network())


def test_lora_with_merge():
    # Trained on tiles, merged in a digital copy: writing to a tile's weight, as merging does, is refused.
    import peft

    def with_adapters() -> nn.Module:
        torch.manual_seed(1)
        config = peft.LoraConfig(target_modules=["0", "2"], r=2, lora_alpha=8, init_lora_weights=False)
        return peft.get_peft_model(network(), config)

    models = []
    for model, optimizer_of in twins(with_adapters):
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = optimizer_of(model)
        for x, y in batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            nn.utils.clip_grad_norm_(trained, 0.5)
            optimizer.step()
        models.append(model)
    assert_same(models, with_adapters())
    with pytest.raises(RuntimeError, match="set_weight"):
        copy.deepcopy(models[1]).merge_and_unload()
    digital, analog = models[0].merge_and_unload(), to_digital(models[1]).merge_and_unload()
    for a, b in zip(digital.parameters(), analog.parameters(), strict=True):
        torch.testing.assert_close(b.detach(), a.detach(), rtol=CLOSE, atol=CLOSE)
    assert [type(m) for m in digital] == [nn.Linear, nn.Tanh, nn.Linear]
