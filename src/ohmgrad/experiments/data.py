"""Data sets as plain tensors: scikit-learn's digits, and MNIST-like idx files on disk. Nothing is downloaded.

An idx file is a magic number (two zero bytes, the element type, the number of dimensions), then each
dimension as a big-endian 32-bit count, then the elements in row-major order. Ours hold unsigned bytes.
"""

import gzip
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATASETS = ("digits", "mnist", "fashion-mnist")

# Where under the data directory the idx files of a data set may lie.
_FOLDERS = {"mnist": ("mnist",), "fashion-mnist": ("fashion_mnist", "fashion-mnist")}
_SIDE = 28  # pixels
_N_CLASSES = 10
_UNSIGNED_BYTE = 0x08


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Images and classes, split for training and test.

    x_train, x_test: (n, pixels), floating point, dimensionless, in [0, 1].
    y_train, y_test: (n,), int64, in 0 ... n_classes - 1.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    n_classes: int


def load(name: str, data_dir: str | Path | None = None, dtype: torch.dtype = torch.float32) -> Dataset:
    """Data set of that name, in its original order; digits in a fixed shuffled order.

    Args:
        name: one of `DATASETS`.
        data_dir: directory of the idx files, or the one above it; None takes the variable OHMGRAD_DATA.
            Digits needs none.
        dtype: of x_train and x_test.

    Raises:
        ValueError: the name or the dtype is wrong, no directory is given, or a file's content is wrong.
        FileNotFoundError: the directory or a file is missing.

    >>> digits = load("digits")
    >>> digits.x_train.shape, digits.x_test.shape, digits.n_classes
    (torch.Size([1437, 64]), torch.Size([360, 64]), 10)
    """
    if name not in DATASETS:
        raise ValueError(f"data needs one of {', '.join(DATASETS)}, got {name!r}")
    if not dtype.is_floating_point:
        raise ValueError(f"{name} needs a floating-point dtype, got {dtype}")
    if name == "digits":
        return _load_digits(dtype)
    folder = _find_folder(name, data_dir)
    x_train, y_train = _read_split(name, folder, "train", dtype)
    x_test, y_test = _read_split(name, folder, "t10k", dtype)
    return Dataset(name=name, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, n_classes=_N_CLASSES)


def read_idx(path: Path, n_dims: int) -> np.ndarray:
    """Unsigned bytes that an idx file holds, with the shape its header states.

    Args:
        path: the file; compressed if its name ends in .gz.
        n_dims: number of dimensions it must have: 3 for images, 1 for labels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, another kind of file, truncated, or longer than its header states.
    """
    raw = _read_bytes(path)
    magic, header = bytes((0, 0, _UNSIGNED_BYTE, n_dims)), 4 + 4 * n_dims
    if raw[:4] != magic:
        raise ValueError(
            f"{path} needs the idx magic number {magic.hex()} "
            f"(unsigned bytes, {n_dims} dimensions), got {raw[:4].hex() or 'an empty file'}"
        )
    if len(raw) < header:
        raise ValueError(f"{path} is truncated: needs an idx header of {header} bytes, got {len(raw)}")
    shape = struct.unpack(f">{n_dims}I", raw[4:header])
    needed = header + math.prod(shape)
    if len(raw) != needed:
        fault = "is truncated" if len(raw) < needed else "has trailing bytes"
        raise ValueError(f"{path} {fault}: shape {shape} needs {needed} bytes, got {len(raw)}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    """Content of a file, decompressed if its name ends in .gz."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except EOFError:
        raise ValueError(f"{path} is truncated: its gzip stream ends too early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} needs to be a whole gzip file: {error}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _find_folder(name: str, data_dir: str | Path | None) -> Path:
    """Folder that holds the training images of that data set."""
    root = data_dir or os.environ.get("OHMGRAD_DATA")
    if not root:
        raise ValueError(f"{name} needs --data-dir or OHMGRAD_DATA: no directory given")
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{name} needs a data directory, got {root}, which is not one")
    # Both data sets use the same file names: a folder named after one must not pass for the other.
    others = {folder for other in _FOLDERS if other != name for folder in _FOLDERS[other]}
    own = [] if root.resolve().name in others else [root]
    folders = [root / folder for folder in _FOLDERS[name]] + own
    for folder in folders:
        if _find_file(folder, "train-images-idx3-ubyte"):
            return folder
    places = ", ".join(map(str, folders))
    raise FileNotFoundError(f"{name} needs train-images-idx3-ubyte, plain or .gz, found none in {places}")


def _find_file(folder: Path, stem: str) -> Path | None:
    """The file of that name, compressed or plain; None if there is neither."""
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()), None)


def _read_split(name: str, folder: Path, prefix: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Images (n, 784) in [0, 1] and labels (n,) of one split, read from its two idx files."""
    paths = []
    for stem in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
        path = _find_file(folder, stem)
        if path is None:
            raise FileNotFoundError(f"{name} needs {stem}, plain or .gz, found none in {folder}")
        paths.append(path)
    images, labels = read_idx(paths[0], n_dims=3), read_idx(paths[1], n_dims=1)
    if len(images) == 0 or images.shape[1:] != (_SIDE, _SIDE):
        raise ValueError(f"{paths[0]} needs images of shape (n, {_SIDE}, {_SIDE}), n > 0, got {images.shape}")
    if len(images) != len(labels):
        raise ValueError(f"{paths[1]} needs a label for each of {len(images)} images, got {len(labels)}")
    if labels.max() >= _N_CLASSES:
        raise ValueError(f"{paths[1]} needs labels in 0 ... {_N_CLASSES - 1}, got {labels.max()}")
    x = torch.tensor(images.reshape(len(images), -1), dtype=dtype).div_(255.0)
    return x, torch.tensor(labels, dtype=torch.int64)


def _load_digits(dtype: torch.dtype) -> Dataset:
    """scikit-learn's 1797 handwritten digits of 8 x 8 pixels: 80 % for training, each class in proportion."""
    # Imported here, for it takes a second that the other data sets need not pay.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    return Dataset(
        name="digits",
        x_train=torch.tensor(x_train, dtype=dtype).div_(16.0),
        y_train=torch.tensor(y_train, dtype=torch.int64),
        x_test=torch.tensor(x_test, dtype=dtype).div_(16.0),
        y_test=torch.tensor(y_test, dtype=torch.int64),
        n_classes=_N_CLASSES,
    )
