"""What every test may ask for: the run's seed, a generator, the real data."""

import os
import secrets
import zlib
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

SEED_VARIABLE = "OHMGRAD_TEST_SEED"

# Its assertions then show their values, as those of test files do.
pytest.register_assert_rewrite("contracts.algorithm", "contracts.device", "contracts.layer", "exact")


class TorchGenerator:
    """torch's default generator as hypothesis wants it, so that each example starts at the same place of it."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH = TorchGenerator()  # hypothesis keeps a weak reference


def pytest_configure(config: pytest.Config) -> None:
    """Settle the run's seed: 0 unless OHMGRAD_TEST_SEED names another; `fresh` draws one."""
    asked = os.environ.get(SEED_VARIABLE, "0")
    seed = str(secrets.randbelow(2**31)) if asked == "fresh" else asked
    if not seed.isdecimal():
        raise pytest.UsageError(f"{SEED_VARIABLE} needs a non-negative integer or 'fresh', got {asked!r}")
    # Written back, so that worker processes and commands that tests start use the same one.
    os.environ[SEED_VARIABLE] = seed
    # Arrays here are small: threads cost more than they bring. Also keeps sums in one order.
    torch.set_num_threads(1)
    hypothesis.settings.register_profile("ohmgrad", derandomize=seed == "0", deadline=None)
    hypothesis.settings.load_profile("ohmgrad")
    hypothesis.register_random(TORCH)


def pytest_report_header() -> str:
    """The line that says how to repeat this run."""
    return f"{SEED_VARIABLE}={os.environ[SEED_VARIABLE]}"


@pytest.fixture(scope="session")
def seed() -> int:
    """Seed of this run, >= 0."""
    return int(os.environ[SEED_VARIABLE])


@pytest.fixture
def rng(seed: int, request: pytest.FixtureRequest) -> np.random.Generator:
    """NumPy generator of this test alone: its numbers depend on the seed and the test's name."""
    return np.random.default_rng([seed, zlib.crc32(request.node.nodeid.encode())])


@pytest.fixture(autouse=True)
def _torch_seed(seed: int, request: pytest.FixtureRequest) -> None:
    """torch's generator at a place of this test's own: what is made without a seed draws from it."""
    torch.manual_seed(zlib.crc32(f"{seed} {request.node.nodeid}".encode()))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Directory of the real data sets: OHMGRAD_DATA, else ../shared/data beside the repository."""
    named = os.environ.get("OHMGRAD_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    # A directory that was named and is missing is a mistake, which the test then shows.
    if not named and not folder.is_dir():
        pytest.skip("needs the real data: OHMGRAD_DATA is not set, and ../shared/data is missing")
    return folder
