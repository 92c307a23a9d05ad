"""The command line: the commands in their groups, and from errors to exit codes. Every command is a
file of this folder, imported on use; each imports what is slow (PyTorch) when it runs."""

import inspect
import os
import re
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter
from cyclopts.exceptions import CycloptsError

from froster import __version__
from froster.cli.arguments import (
    read_config,
    refuse_addresses,
    refuse_fractions,
    refuse_nothing,
    sentence,
)
from froster.cli.options import OUTPUT, option
from froster.errors import FrosterError, FrosterWarning, out_of_memory
from froster.utils import interrupt
from froster.utils.progress import console
from froster.utils.text import printable, use_any_encoding

COMMANDS = {
    "Ask": ("classify", "timeline", "watch", "index", "search", "serve"),
    "Teach": ("label", "teach", "train", "evaluate", "calibrate", "blend", "demo"),
    "Data": ("doctor", "prepare", "pack", "describe"),
    "Look and ship": ("attend", "distance", "export", "push"),
    "Research": ("models", "methods", "rehearse", "reproduce"),
}
KEPT = {
    **dict.fromkeys(("train", "prepare"), "the same command with --resume goes on"),
    **dict.fromkeys(("classify", "evaluate", "doctor"), "with --out the same command goes on"),
    **dict.fromkeys(
        ("index", "teach", "pack", "rehearse", "reproduce"), "the same command goes on"
    ),
}
"""How a stopped command goes on with what it had finished; others begin anew."""

app = App(
    name="froster",
    help="Open-vocabulary video classification: teach a CLIP new actions and keep the old ones.",
    help_format="plaintext",
    version=f"froster {__version__}",
    version_format="plaintext",
    group_commands=Group("Help", sort_key=99),
    group_parameters=Group("Options", sort_key=0),
    default_parameter=Parameter(
        negative_bool=(),
        negative_iterable=(),
        json_list=False,
        json_dict=False,
        allow_repeating=True,  # the last one counts
    ),
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)


def doc_of(command: str) -> str:
    """The doc string of a command, a line a paragraph, read from its file: to import all of them
    takes as long as the rest of `froster --help`."""
    text = Path(__file__).with_name(f"{command}.py").read_text(encoding="utf-8")
    match = re.search(rf'^def {command}\(.*?^    """(.*?)"""', text, re.DOTALL | re.MULTILINE)
    assert match is not None
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(match[1]))


for _panel, (_title, _names) in enumerate(COMMANDS.items()):
    _group = Group(_title, sort_key=_panel)
    for _place, _name in enumerate(_names):
        app.command(
            f"froster.cli.{_name}:{_name}", help=doc_of(_name), group=_group, sort_key=_place
        )
app.register_install_completion_command(help="Let the shell complete commands and options.")


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[
        str | None,
        option("YAML or TOML file of options, by their names.", metavar="FILE", group=OUTPUT),
    ] = None,
) -> None:
    given = [] if config is None else [read_config(config)]
    app.config = (*given, refuse_nothing, refuse_addresses, refuse_fractions)
    try:
        app(["./-" if token == "-" else token for token in tokens])  # "-" alone would be an option
    finally:
        app.config = ()


def main() -> None:
    """Run the command line. A user's mistake gives one line and exit code 2, a failure one line and
    1; no traceback."""
    # Idle OpenMP threads that spin on steal the cores from everybody else; threads that do not spin
    # at all wake up too late for the next operation, which costs a small network a quarter. This
    # must be set before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # It is started anew, and nothing of ours is in its care.
    warnings.filterwarnings("ignore", "resource_tracker: process died unexpectedly")
    warnings.showwarning = show_warning
    use_any_encoding()
    try:
        interrupt.install()
        with interrupt.requests_kept():
            app.meta(sys.argv[1:])
        write_out()
    except CycloptsError as error:
        fail(sentence(error), 2)
    except interrupt.Interrupted as error:
        kept = KEPT.get(next(iter(sys.argv[1:]), "")) if str(error) == interrupt.STOPPED else None
        fail(f"{error}; {kept}" if kept else str(error), error.exit_code)
    except FrosterError as error:
        fail(str(error), error.exit_code)
    except EOFError as error:
        fail(f"what was being read ended too early{f': {error}' if str(error) else ''}", 1)
    except UnicodeEncodeError as error:  # a name of a file, where the system's encoding is no UTF-8
        fail(
            f"{error.object[:200]!a} has no form in this system's encoding ({error.encoding}): set"
            " PYTHONUTF8=1",
            1,
        )
    except BrokenPipeError:
        with suppress(OSError):
            write_out()
    except OSError as error:
        with suppress(OSError):
            write_out()
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        fail("out of memory: try a smaller --batch-size, fewer --workers, or a smaller model", 1)


_show_any = warnings.showwarning


def show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Froster's own on one line, by the first of torchrun's processes; others as Python does."""
    if not issubclass(category, FrosterWarning):
        _show_any(message, category, *place, **more)
    elif os.environ.get("RANK", "0") == "0":
        console.tell(f"warning: {message}")


def write_out() -> None:
    """What was printed is written now. Raises OSError where it cannot be, and leaves nothing of it:
    Python would try again at its very end, and end with a complaint and a code of its own."""
    try:
        if sys.stdout is not None:  # it may have been closed
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def fail(message: str, code: int) -> None:
    print("froster: " + printable(re.sub(r"\s*\n\s*", " ", message.strip())), file=sys.stderr)
    sys.exit(code)
