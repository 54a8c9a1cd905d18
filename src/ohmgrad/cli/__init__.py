"""Floor 7: the commands. Bad input ends in one clear line and exit code 2, never in a traceback."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ohmgrad import __version__
from ohmgrad.cli import bench, compare, device, diagnose, recommend, train, verify

# typer brings its own copy of click in newer versions; its base class of all usage errors is public only so.
ClickError: Any = typer.BadParameter.__mro__[2]

INTERRUPTED = 130  # what newer versions of typer return themselves

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(compare.compare)
app.command()(train.train)
app.command()(recommend.recommend)
app.command()(verify.verify)
app.command()(diagnose.diagnose)
app.add_typer(bench.app, name="bench")
app.add_typer(device.app, name="device")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"ohmgrad {__version__}")
        raise typer.Exit()


@app.callback()
def _ohmgrad(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Version.")
    ] = False,
) -> None:
    """Train neural networks on simulated analog in-memory hardware, and learn why training stops short."""


def main() -> None:
    """The `ohmgrad` program: exit code 0, 2 for bad input, 130 when interrupted."""
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except ClickError as error:
        code = _fail(error.format_message())
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _fail(f"{where}{error.strerror or error}")
    except ValueError as error:
        code = _fail(str(error))
    except (MemoryError, RuntimeError) as error:
        # torch has no class of its own for a CPU that ran out of memory.
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        code = _fail("out of memory: the network or the data do not fit")
    if code == INTERRUPTED:
        print("ohmgrad: interrupted", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> int:
    print("ohmgrad:", " ".join(message.split()), file=sys.stderr)
    return 2
