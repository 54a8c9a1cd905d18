"""Data sets: the real files' known counts, and every way in which an idx file can be wrong."""

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from ohmgrad.experiments.data import DATASETS, load, read_idx

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"

# Label counts of classes 0 ... 9, as published.
MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    """That array of bytes as an idx file."""
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


def write(folder: Path, files: dict[str, bytes], *, compressed: bool = True) -> None:
    """Those contents under those names, as .gz or plain."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def tiny(n: int = 3) -> dict[str, bytes]:
    """A whole data set: n images whose pixels count up from 0, with labels n-1 ... 0, for both splits."""
    images = np.arange(n * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(n, 28, 28)
    labels = np.arange(n, dtype=np.uint8)[::-1].copy()
    return {
        TRAIN_IMAGES: idx(images),
        TRAIN_LABELS: idx(labels),
        TEST_IMAGES: idx(images),
        TEST_LABELS: idx(labels),
    }


@pytest.fixture(autouse=True)
def no_variable(monkeypatch) -> None:
    """OHMGRAD_DATA unset: only tests that set it may see it."""
    monkeypatch.delenv("OHMGRAD_DATA", raising=False)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A directory that holds a whole tiny MNIST."""
    write(tmp_path / "mnist", tiny())
    return tmp_path


def refusal(name: str, data_dir: Path | None, kind: type[Exception] = ValueError) -> str:
    """The one line with which loading fails."""
    with pytest.raises(kind) as caught:
        load(name, data_dir)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def test_digits_are_split_once_and_for_all():
    digits = load("digits")
    assert digits.x_train.shape == (1437, 64) and digits.x_test.shape == (360, 64)
    assert digits.x_train.dtype == torch.float32 and digits.y_train.dtype == torch.int64
    assert digits.x_train.min() == 0.0 and digits.x_train.max() == 1.0
    # Stratified: each class keeps its share of the 1797 within one image.
    whole = torch.bincount(torch.cat([digits.y_train, digits.y_test]))
    assert whole.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (torch.bincount(digits.y_test) - 0.2 * whole).abs().max() < 1.0
    again = load("digits")
    assert torch.equal(digits.x_train, again.x_train) and torch.equal(digits.y_test, again.y_test)


def test_digits_keep_their_labels():
    """Nearest class mean is right for nine in ten; with labels out of step it would be one in ten."""
    digits = load("digits", dtype=torch.float64)
    means = torch.stack([digits.x_train[digits.y_train == k].mean(0) for k in range(10)])
    nearest = torch.cdist(digits.x_test, means).argmin(1)
    assert (nearest == digits.y_test).double().mean() > 0.85


@pytest.mark.parametrize(
    ("name", "train_counts", "test_counts"),
    [("mnist", MNIST_TRAIN, MNIST_TEST), ("fashion-mnist", [6000] * 10, [1000] * 10)],
)
def test_the_real_files(data_dir, name, train_counts, test_counts):
    data = load(name, data_dir)
    assert data.x_train.shape == (60_000, 784) and data.x_test.shape == (10_000, 784)
    assert torch.bincount(data.y_train).tolist() == train_counts
    assert torch.bincount(data.y_test).tolist() == test_counts
    assert data.x_train.min() == 0.0 and data.x_train.max() == 1.0


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", "mnist"),
        ("mnist", "."),
        ("fashion-mnist", "fashion_mnist"),
        ("fashion-mnist", "fashion-mnist"),
    ],
)
def test_files_are_found_in_each_place(tmp_path, name, place, compressed):
    write(tmp_path / place, tiny(), compressed=compressed)
    data = load(name, tmp_path, dtype=torch.float64)
    assert data.name == name and data.n_classes == 10
    assert data.x_train.shape == (3, 784) and data.x_train.dtype == torch.float64
    # Pixel k of image i is (784 i + k) mod 256, out of 255: order and scale are as in the file.
    assert data.x_train[1, 0] == (784 % 256) / 255.0 and data.x_train[0, 255] == 1.0
    assert data.y_train.tolist() == [2, 1, 0]


def test_the_variable_names_the_directory(folder, monkeypatch):
    monkeypatch.setenv("OHMGRAD_DATA", str(folder))
    assert load("mnist").x_train.shape == (3, 784)


def test_one_data_set_never_passes_for_another(folder):
    """MNIST's own folder, asked for Fashion-MNIST: the file names are the same, the answer must not be."""
    assert load("mnist", folder / "mnist").x_train.shape == (3, 784)
    assert "fashion-mnist needs train-images" in refusal("fashion-mnist", folder / "mnist", FileNotFoundError)


def test_unknown_name():
    assert refusal("mnits", None) == f"data needs one of {', '.join(DATASETS)}, got 'mnits'"


def test_integer_dtype():
    with pytest.raises(ValueError, match=r"digits needs a floating-point dtype, got torch\.int64"):
        load("digits", dtype=torch.int64)


def test_no_directory_given():
    assert refusal("mnist", None) == "mnist needs --data-dir or OHMGRAD_DATA: no directory given"


def test_directory_missing(tmp_path):
    assert str(tmp_path / "none") in refusal("mnist", tmp_path / "none", FileNotFoundError)


def test_directory_is_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert "needs a data directory" in refusal("mnist", tmp_path / "file", FileNotFoundError)


@pytest.mark.parametrize("missing", tiny())
def test_one_file_missing(folder, missing):
    (folder / "mnist" / f"{missing}.gz").unlink()
    assert f"mnist needs {missing}, plain or .gz" in refusal("mnist", folder, FileNotFoundError)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "needs the idx magic number 00000801 .* got an empty file"),
        (b"\x00\x00", "got 0000"),
        (b"\x89PNG\r\n", "magic number 00000801 .* got 89504e47"),
        (idx(np.zeros(3, np.uint8), kind=0x0D), "unsigned bytes, 1 dimensions.* got 00000d01"),
        (idx(np.zeros((3, 1), np.uint8)), "got 00000802"),
        (idx(np.zeros(3, np.uint8))[:6], "is truncated: needs an idx header of 8 bytes, got 6"),
        (idx(np.zeros(3, np.uint8))[:-1], r"is truncated: shape \(3,\) needs 11 bytes, got 10"),
        (idx(np.zeros(3, np.uint8)) + b"\n", r"has trailing bytes: shape \(3,\) needs 11 bytes, got 12"),
        (idx(np.zeros(2, np.uint8)), "needs a label for each of 3 images, got 2"),
        (idx(np.array([0, 10, 9], np.uint8)), r"needs labels in 0 \.\.\. 9, got 10"),
    ],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_wrong_content(tmp_path, content, rule, compressed):
    write(tmp_path, tiny() | {TRAIN_LABELS: content}, compressed=compressed)
    message = refusal("mnist", tmp_path)
    assert re.search(rf"^{re.escape(str(tmp_path / TRAIN_LABELS))}\S* .*{rule}", message), message


@pytest.mark.parametrize("shape", [(3, 28, 27), (3, 32, 32), (0, 28, 28)])
def test_wrong_image_size(tmp_path, shape):
    write(tmp_path, tiny() | {TEST_IMAGES: idx(np.zeros(shape, np.uint8))})
    assert f"needs images of shape (n, 28, 28), n > 0, got {shape}" in refusal("mnist", tmp_path)


def test_broken_compression(folder):
    path = folder / "mnist" / f"{TRAIN_IMAGES}.gz"
    whole = path.read_bytes()
    middle = len(whole) // 2
    for broken, rule in [
        (whole[:-9], "is truncated: its gzip stream ends too early"),
        (whole[:5], "is truncated: its gzip stream ends too early"),
        (gzip.decompress(whole), "needs to be a whole gzip file: Not a gzipped file"),
        (whole[:-8] + bytes(8), "needs to be a whole gzip file: CRC check failed"),
        (whole[:middle] + b"\xff" * 40 + whole[middle + 40 :], "needs to be a whole gzip file"),
        (whole + b"x", "needs to be a whole gzip file"),
    ]:
        path.write_bytes(broken)
        message = refusal("mnist", folder)
        assert str(path) in message and rule in message


def test_reading_one_file(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "x").write_bytes(idx(array))
    assert np.array_equal(read_idx(tmp_path / "x", n_dims=3), array)
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        read_idx(tmp_path / "none", n_dims=3)
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_idx(tmp_path, n_dims=3)
