"""Training loops of others drive analog models as they do digital ones: Lightning's and Hugging Face's.

Imported where they are used, since each takes seconds.
"""

import pytest
import torch
from torch import nn

from ohmgrad import AnalogOptimizer, Periphery, PulsedUpdate, TikiTaka, convert
from ohmgrad.devices import SoftBounds

SETTINGS = {
    "device": SoftBounds(w_max=1.0, w_min=-1.0),
    "algorithm": TikiTaka(n_reads=None, gamma=0.2),
    "update": PulsedUpdate(),
    "periphery": Periphery(),
}


def data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Points of two classes, far apart."""
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(64) % 2
    x[:, 0] += 4.0 * y - 2.0
    return list(zip(x, y, strict=True))


def accuracy(model: nn.Module) -> float:
    x, y = (torch.stack(t) for t in zip(*data(), strict=True))
    return float((model(x).argmax(-1) == y).float().mean())


@pytest.mark.filterwarnings("default")
def test_lightning(tmp_path):
    import lightning

    class Task(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = convert(nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2)), **SETTINGS)

        def training_step(self, batch, index):
            x, y = batch
            return nn.functional.cross_entropy(self.net(x), y)

        def configure_optimizers(self):
            optimizer = AnalogOptimizer(self.net, lr=0.2)
            return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 5)}

    task = Task()
    trainer = lightning.Trainer(
        max_epochs=8, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, enable_checkpointing=False, accumulate_grad_batches=2,
    )  # fmt: skip
    trainer.fit(task, torch.utils.data.DataLoader(data(), batch_size=4))
    assert accuracy(task.net) > 0.9
    assert trainer.optimizers[0].param_groups[0]["lr"] < 0.2


@pytest.mark.filterwarnings("default")
def test_hugging_face(tmp_path):
    import transformers

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))

        def forward(self, x, labels=None):
            logits = self.net(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    torch.manual_seed(0)
    model = convert(Classifier(), **SETTINGS)
    options = transformers.TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=8, per_device_train_batch_size=4, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    optimizer = AnalogOptimizer(model, lr=0.2)
    rows = [{"x": x, "labels": y} for x, y in data()]
    transformers.Trainer(
        model=model, args=options, train_dataset=rows,
        optimizers=(optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)),
    ).train()  # fmt: skip
    assert accuracy(model.net) > 0.9
