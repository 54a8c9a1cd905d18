"""Checkpoints: a run in one safetensors file, from which it goes on bit by bit. Never a pickle, which can run code.

The tensors of all state dicts are the file's tensors; everything else is JSON in its metadata:

    format    "ohmgrad checkpoint"
    version   of this layout, a whole number
    content   the sections model, versions (of its modules), hardware (devices and settings, as `described` has them),
              random, extra, optimizer, scheduler, as `packing` has them
    digest    SHA-256 of content and tensors, so that a file that was damaged is not taken for a run
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ohmgrad.crossbar.described import differences, hardware, shown
from ohmgrad.files import write
from ohmgrad.optim import AnalogOptimizer
from ohmgrad.packing import pack, unpack

FORMAT, VERSION = "ohmgrad checkpoint", 2
SECTIONS = ("model", "versions", "hardware", "random", "extra")
# How torch.save's files start, new and old: the old ones with the version of the protocol.
PICKLES = (b"PK\x03\x04", *(bytes([0x80, n]) for n in range(2, 6)))


def save(
    path: str | Path,
    model: nn.Module,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    **extra: Any,
) -> None:
    """Write a run to one file: the state dicts, what the hardware is, torch's random generators, and `extra`.

    The file appears whole or not at all. Call it between `optimizer.step()` and the next backward pass: gradients, and
    updates that wait on tiles, are not kept. Tensors that share memory are written once for each name.

    Args:
        path: by custom ends in .safetensors; its directory exists.
        extra: numbers, strings, bools, None, tensors, and lists, tuples and dicts of them, such as epoch=3.

    Raises:
        TypeError: a state dict or `extra` holds something else; the message names it.
        OSError: the file cannot be written.
    """
    path, tensors = Path(path), {}
    state = model.state_dict()
    sections: dict[str, Any] = {"model": state, "versions": dict(getattr(state, "_metadata", {}))}
    sections |= {"hardware": hardware(model), "random": _random_state(), "extra": extra}
    if optimizer is not None:
        names = _parameter_names(model, optimizer)
        sections["optimizer"] = {"kind": _kind(optimizer), "parameters": names, "state": optimizer.state_dict()}
    if scheduler is not None:
        sections["scheduler"] = {"kind": _kind(scheduler), "state": scheduler.state_dict()}
    content = json.dumps({name: pack(section, name, tensors) for name, section in sections.items()})
    tensors = _apart(tensors)
    metadata = {"format": FORMAT, "version": str(VERSION), "content": content, "digest": _digest(content, tensors)}

    def save_to(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from None

    write(path, save_to)


def load(
    path: str | Path,
    model: nn.Module,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    *,
    other_hardware: bool = False,
) -> dict[str, Any]:
    """Go on from a file of `save`: fill model, optimizer and scheduler, and set torch's random generators.

    Everything is checked before anything changes, and if something fails nevertheless, all is put back. What the file
    holds beyond what is asked for (an optimizer's state, say) is left alone. Memory: twice the model's on the way, for
    what the file says and for what is put back.

    Args:
        model, optimizer, scheduler: built as those that were saved.
        other_hardware: take the states alone, also where devices, updates, periphery, mapping or settings of the
            algorithm are others in the model than in the file.

    Returns:
        What `save` was given as `extra`.

    Raises:
        ValueError: the file is no checkpoint, damaged, of another version, or of another model, other hardware, another
            optimizer or scheduler; the message names the first thing that differs.
        OSError: it cannot be read.
    """
    path = Path(path)
    saved = _read(path)
    if not other_hardware:
        _check_hardware(path, saved["hardware"], hardware(model))
    _check_model(path, saved["model"], model.state_dict())
    if optimizer is not None:
        _check_kind(path, saved, "optimizer", optimizer)
        if saved["optimizer"].get("parameters") != _parameter_names(model, optimizer):
            raise ValueError(f"{path} holds an optimizer with other parameter groups than this one")
    if scheduler is not None:
        _check_kind(path, saved, "scheduler", scheduler)
    try:
        with _undone_on_failure(model, optimizer, scheduler):
            vars(saved["model"])["_metadata"] = saved["versions"]  # as in what model.state_dict() gives
            model.load_state_dict(saved["model"])
            for name, part in (("optimizer", optimizer), ("scheduler", scheduler)):
                if part is not None:
                    part.load_state_dict(saved[name]["state"])
            _set_random_state(saved["random"])
    except Exception as error:  # modules, optimizers and schedulers of anyone, which may raise anything
        raise ValueError(f"{path} does not fit: {error}") from error
    return saved["extra"]


def peek(path: str | Path) -> dict[str, Any]:
    """The `extra` of a checkpoint alone. Raises as `load`."""
    return _read(Path(path))["extra"]


def _read(path: Path) -> dict[str, Any]:
    """The sections of a checkpoint; tensors on the CPU."""
    metadata, tensors = _open(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file, but no ohmgrad checkpoint")
    version, content = metadata.get("version", ""), metadata.get("content", "")
    if version != str(VERSION):
        is_older = version.isdecimal() and len(version) < 9 and int(version) < VERSION
        what = "is of an older ohmgrad" if is_older else "needs a newer ohmgrad"
        raise ValueError(f"{path} {what}: its version is {version[:20]!r}, this one reads {VERSION}")
    if metadata.get("digest") != _digest(content, tensors):
        raise ValueError(f"{path} is damaged: its content does not have the digest that it states")
    try:
        saved = {name: unpack(section, tensors) for name, section in json.loads(content).items()}
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not all(isinstance(saved.get(name), dict) for name in (*SECTIONS, *saved)):
        raise ValueError(f"{path} is damaged: it needs the sections {', '.join(SECTIONS)}")
    return saved


def _open(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file."""
    if path.is_dir():
        raise ValueError(f"{path} needs to be a file, got a directory")
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        with path.open("rb") as file:
            start = file.read(9)
        is_pickle = start.startswith(PICKLES) and start[8:] != b"{"  # so a header begins, whose length may look alike
        if is_pickle:
            raise ValueError(f"{path} is a pickle, as torch.save writes it; ohmgrad opens none") from None
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None


def _digest(content: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(content.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, none in the memory of another: safetensors wants each on its own."""
    apart, taken = {}, set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in taken else tensor
        taken.add(place)
    return apart


def _kind(part: Optimizer | LRScheduler) -> str:
    inside = part.digital if isinstance(part, AnalogOptimizer) else None
    return type(part).__name__ + (f" around {type(inside).__name__}" if inside else "")


def _parameter_names(model: nn.Module, optimizer: Optimizer) -> list[list[str]]:
    """The parameters of each group, in order, by which a state finds the ones that it belongs to."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [[names.get(id(p), "?") for p in group["params"]] for group in optimizer.param_groups]


def _check_kind(path: Path, saved: dict[str, Any], name: str, part: Optimizer | LRScheduler) -> None:
    if name not in saved:
        raise ValueError(f"{path} holds no state of {'an' if name == 'optimizer' else 'a'} {name}")
    if saved[name].get("kind") != _kind(part):
        raise ValueError(f"{path} holds the state of {saved[name].get('kind')}, but the {name} is {_kind(part)}")


def _check_hardware(path: Path, saved: dict[str, Any], own: dict[str, Any]) -> None:
    """What only one of them has is left to `_check_model`: its states are missing too."""
    for name in (name for name in own if name in saved):
        for field, in_file, in_model in differences(saved[name], own[name]):
            what = " of ".join(filter(None, (field, name)))
            raise ValueError(
                f"{path} is of another model: {what} is {shown(in_file)} in the file and {shown(in_model)} in the "
                "model; load(..., other_hardware=True) takes the states alone, if they fit"
            )


def _check_model(path: Path, saved: dict[str, Any], own: dict[str, Any]) -> None:
    for names, fault in ((own.keys() - saved.keys(), "lacks"), (saved.keys() - own.keys(), "has an unexpected")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"{path} is of another model: it {fault} {min(names, key=str)}{more}")
    for name, value in own.items():
        if _form(saved[name]) != _form(value):
            raise ValueError(
                f"{path} is of another model: {name} is {_form(saved[name])}, and the model's {_form(value)}"
            )


def _form(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


@contextmanager
def _undone_on_failure(model: nn.Module, optimizer: Optimizer | None, scheduler: LRScheduler | None) -> Iterator[None]:
    """Inside, all may change; if it fails, everything is as it was."""
    state = {name: copy.deepcopy(value) for name, value in model.state_dict().items()}
    parts = [part for part in (optimizer, scheduler) if part is not None]
    states = [copy.deepcopy(part.state_dict()) for part in parts]
    random = _random_state()
    try:
        yield
    except BaseException:
        # In place, not by load_state_dict, which refuses a state that was broken already.
        for name, value in model.state_dict().items():
            if isinstance(value, Tensor) and not torch.equal(value, before := state.pop(name).to(value)):
                value.copy_(before)
        if state:  # what modules keep beside tensors
            model.load_state_dict(state, strict=False)
        for part, before in zip(parts, states, strict=True):
            part.load_state_dict(before)
        _set_random_state(random)
        raise


def _random_state() -> dict[str, Any]:
    """torch's own generators: dropout and shuffling draw from them, crossbars do not."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available():  # on another machine: of the GPUs that both have
        for number, of_gpu in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(of_gpu, number)
