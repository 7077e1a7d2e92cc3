"""What every command has in common: its options, its way of failing, its exit code."""

import inspect
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.exceptions import TyperException
from typer.models import OptionInfo

from mtvcraft_cli.cli.console import ProgressKind, console, detail, fail, say
from mtvcraft_cli.cli.settings import read_settings
from mtvcraft_cli.device.memory import peak_memory
from mtvcraft_cli.device.ranks import WITH_RANKS, rank, world_size
from mtvcraft_cli.errors import Exit, MtvcraftError, explained, stops
from mtvcraft_cli.quiet import without_hub_kernels

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

app = typer.Typer(
    name="mtvcraft",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
ONLY_BY_FLAG = {
    *("output", "force", "dry_run", "trust_file", "debug", "decode", "overlay", "compare", "view", "list_people"),
    *("start", "end", "clip", "lora", "frames_dir", "out_dir", "results", "pair"),
    *("data", "changes", "tokenizer", "vae"),
    *("bench", "pred", "gt", "name", "baseline", "run", "explain", "csv", "html"),
    *("quantised", "yes", "accept_license", "everything", "for_preset", "from_folder", "limit"),
}
"""What belongs to one call, or to one file that the user has looked at, is no setting."""
EPILOG = (
    "Options may also be set by MTVCRAFT_NAME (`MTVCRAFT_STEPS=20`) or in `mtvcraft.toml`, but for those that belong "
    "to one call: where results go, --force, --dry-run, --yes, --accept-license, --trust-file, --start, --end, --clip, "
    "--lora, --list, --data, --set, --tokenizer, --vae, what `eval` is to score, and the like."
)
CONTEXT = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
_settable: dict[str, set[str]] = {}
_groups: dict[str, typer.Typer] = {}


_option = partial(typer.Option, rich_help_panel="Common")


def _common(
    *,
    json: Annotated[bool, _option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, _option("--quiet", "-q", help="Say only what is wrong.")] = False,
    verbose: Annotated[bool, _option("--verbose", "-v", help="Say more: versions, settings, time and memory.")] = False,
    debug: Annotated[bool, _option("--debug", help="Show the trace of an error.")] = False,
    progress: Annotated[ProgressKind, _option(help="How progress is shown; `json` is one object a line.")] = "auto",
    offline: Annotated[bool, _option("--offline", help="Never use the network.")] = False,
    cache_dir: Annotated[Path | None, _option(envvar="MTVCRAFT_CACHE", help="Where finished stages are kept.")] = None,
) -> None:
    """The options of every command, applied before it runs."""
    console.json, console.quiet, console.verbose, console.progress = json, quiet, verbose, progress
    if debug:
        os.environ["MTVCRAFT_DEBUG"] = "1"
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if cache_dir is not None:
        os.environ["MTVCRAFT_CACHE"] = str(cache_dir)


@dataclass
class Running:
    """The command that is running: where its values came from."""

    by_flag: Mapping[str, Any] = field(default_factory=dict)
    """The values that were typed, by name."""
    from_files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What settings files say, by command."""


running = Running()


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """Ctrl-C, or the system asked us to end."""


def group(name: str, help: str) -> None:
    """Make room for commands of two words, such as `mtvcraft train vae`."""
    _groups[name] = typer.Typer(name=name, help=help, no_args_is_help=True, rich_markup_mode="rich")
    app.add_typer(_groups[name])


def command(function: Callable[..., None], within: str = "") -> None:
    """Register `function` under its own name, with the common options and an environment variable per setting.

    A parameter whose type is a dataclass of `Annotated` fields is a group of options that several commands share.
    Settings files have a section for each command; that of `train vae` is `[train.vae]`.
    """
    own_name = function.__name__.rstrip("_").replace("_", "-")
    name = f"{within}.{own_name}" if within else own_name
    own = list(parameters_of(function))
    common = list(parameters_of(_common))
    for parameter in (*own, *common):
        _settle(name, parameter)

    @wraps(function)
    def run(context: Any, **given: Any) -> None:
        sources = {key: context.get_parameter_source(key) for key in given}
        running.by_flag = {
            key: given[key] for key, source in sources.items() if source and source.name == "COMMANDLINE"
        }
        running.from_files = context.find_root().default_map or {}
        _common(**{parameter.name: given.pop(parameter.name) for parameter in common})
        started = time.monotonic()
        if console.verbose:
            _tell_settings(given, sources)
        try:
            function(**grouped(function, given))
        except (KeyboardInterrupt, typer.Abort) as stop:  # the second is Ctrl-C, or the end of input, at a question
            raise Interrupted from stop  # typer would end the program without a word
        finally:
            held = peak_memory()["ram"]
            memory = "" if held is None else f", with {held / 2**20:.0f} MiB of memory at most"
            detail(f"ended after {time.monotonic() - started:.1f} s{memory}")

    (_groups[within] if within else app).command(own_name, epilog=EPILOG)(_signed(run, [*own, *common, CONTEXT]))


def _tell_settings(given: Mapping[str, Any], sources: Mapping[str, Any]) -> None:
    """Say what the run depends on and nobody typed: versions, the cache, and settings that come from elsewhere."""
    from mtvcraft_cli.cache import default_folder
    from mtvcraft_cli.sidecar import versions

    detail(", ".join(f"{name} {version}" for name, version in versions().items()))
    detail(f"cache `{default_folder()}`")
    places = {"ENVIRONMENT": "a variable", "DEFAULT_MAP": "a settings file"}
    for name, value in given.items():
        if (place := places.get(getattr(sources[name], "name", ""))) is not None:
            detail(f"{name.replace('_', '-')} is `{value}`: {place} says so")


def reader(function: Callable[..., T], name: str) -> Callable[[list[str], Mapping[str, Any], Collection[str]], T]:
    """Read words as the command `name` does, and give what `function` returns for them; nothing is printed.

    The words are those behind the command's name; the mapping holds what settings files say of it; the names are those
    of switches that are off whatever a file or variable says, for which there is no word. A wrong word is a
    `MtvcraftError`.
    """
    own = typer.Typer(add_completion=False)

    def read(**given: Any) -> T:
        return function(**grouped(function, given))

    own.command(name)(_signed(wraps(function)(read), list(parameters_of(function))))
    parser = typer.main.get_command(own)

    def answered(words: list[str], settings: Mapping[str, Any], off: Collection[str]) -> T:
        try:
            with parser.make_context(f"mtvcraft {name}", list(words), default_map=dict(settings)) as context:
                context.params.update(dict.fromkeys(off, False))
                return parser.invoke(context)
        except TyperException as error:
            told = _usage(error)
            assert told is not None
            raise told from error

    return answered


def with_options_of(other: Callable[..., Any], *, but: Collection[str] = ()) -> Callable[[F], F]:
    """Give a command, in the place of its `**settings`, the parameters of another one that it has not itself.

    Args:
        other: the other command's function.
        but: names of parameters that are left out.

    Returns:
        A decorator. In the help the command's keyword-only parameters come last.
    """

    def extended(function: F) -> F:
        hints = get_type_hints(function, include_extras=True)
        own = [
            each.replace(annotation=hints[each.name])
            for each in inspect.signature(function).parameters.values()
            if each.kind is not each.VAR_KEYWORD
        ]
        taken = {*but, *(each.name for each in own)}
        last = [each for each in own if each.kind is each.KEYWORD_ONLY]
        first = [each for each in own if each not in last]
        return _signed(function, [*first, *(each for each in parameters_of(other) if each.name not in taken), *last])

    return extended


def _signed(function: F, parameters: Sequence[inspect.Parameter]) -> F:
    """Let typer see other parameters than Python does; keyword-only ones may follow any others."""
    only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    function.__signature__ = inspect.Signature(only)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in only}
    return function


def grouped(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Values as the function takes them: those of a group of options in its dataclass.

    Raises:
        MtvcraftError: exit 2; a number is none, such as `nan`, which lies within any range.
    """
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise MtvcraftError(
                f"`--{name.replace('_', '-')}` can't be `{value}`", hint="give a plain number", exit=Exit.USAGE
            )
    hints = get_type_hints(function, include_extras=True)
    for parameter, kind in hints.items():
        if _is_group(kind) and parameter != "return":
            given[parameter] = kind(**{option.name: given.pop(option.name) for option in parameters_of(kind)})
    return given


def parameters_of(function: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """What a command takes; in the place of a parameter whose type is a dataclass stand that one's fields."""
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        kind = hints[parameter.name]
        if _is_group(kind):
            yield from parameters_of(kind)
        else:
            yield parameter.replace(annotation=kind)


def _is_group(kind: object) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


def _settle(command_name: str, parameter: inspect.Parameter) -> None:
    """Give an option its environment variable, and note that settings files may set it."""
    if get_origin(parameter.annotation) is not Annotated or parameter.name in ONLY_BY_FLAG:
        return
    for info in get_args(parameter.annotation)[1:]:
        if isinstance(info, OptionInfo):
            info.envvar = info.envvar or f"MTVCRAFT_{parameter.name.upper()}"
            info.show_envvar = False  # said once, below the help
            _settable.setdefault(command_name, set()).add(parameter.name)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; nothing that a user can mend ever ends in a traceback.

    Returns:
        The exit code, see `Exit`.
    """
    stops.clear()
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else somebody wants it ignored
        signal.signal(signal.SIGINT, _stop)
    without_hub_kernels()
    words = sys.argv[1:] if arguments is None else arguments
    if world_size() > 1 and words[:1] != ["train"]:  # which shares its work in its own way
        return _as_rank(words)
    return _run(words)


def _as_rank(words: list[str]) -> int:
    """Run the program as one of the processes that torchrun started: the first speaks, others only of their end."""
    command = next((word for word in words if not word.startswith("-")), "")
    if command not in WITH_RANKS:
        if rank() == 0:
            fail(
                f"torchrun has started {world_size()} processes, and `mtvcraft {command}` works in one",
                f"start it without torchrun; with it there are {', '.join(WITH_RANKS)} and train",
            )
        return int(Exit.USAGE)
    from mtvcraft_cli.runs.ranks import run_as_rank

    try:
        return run_as_rank(partial(_run, words))
    except (Interrupted, KeyboardInterrupt):
        return int(Exit.INTERRUPTED)
    except Exception as error:
        _show_trace("--debug" in words)
        told = explained(error)
        if not isinstance(error, ConnectionError) and "peer" not in str(error):  # else it is another one that failed
            fail(f"process {rank()}: {told.message}", told.hint)
        return int(told.exit)


def _run(words: list[str]) -> int:
    try:
        asks = {"--help", "-h", "--version"} & set(words)  # answered even where a settings file is wrong
        settings = {} if asks else read_settings(_settable, ONLY_BY_FLAG)
        code = app(words, prog_name="mtvcraft", standalone_mode=False, default_map=settings)
        sys.stdout.flush()
        return int(code or 0)
    except TyperException as error:
        if (told := _usage(error)) is not None:
            fail(told.message, told.hint)
        return int(Exit.USAGE)
    except (Interrupted, KeyboardInterrupt):
        return _interrupted()
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.DONE)
    except Exception as error:
        if stops:  # which native code has turned into an error of its own
            return _interrupted()
        _show_trace("--debug" in words)
        told = explained(error)
        fail(told.message, told.hint)
        return int(told.exit)


def _stop(number: object, _frame: object) -> None:
    stops.append(number)
    raise KeyboardInterrupt


def _interrupted() -> int:
    say("interrupted: finished stages and windows are kept; the same command goes on from there")
    return int(Exit.INTERRUPTED)


def _show_trace(wanted: bool) -> None:
    if wanted or os.environ.get("MTVCRAFT_DEBUG"):
        import traceback

        traceback.print_exc()


def _usage(error: TyperException) -> MtvcraftError | None:
    """What is wrong with the words, in ours; None for a bare `mtvcraft`, which has shown its help already."""
    message = error.format_message().strip().replace("Value error, ", "")
    if not message:
        return None
    context = getattr(error, "ctx", None)
    asked = context.command_path if context else "mtvcraft"
    message, _, suggestion = message.partition(" Did you mean ")
    hint = f"did you mean {suggestion}" if suggestion else f"{_said_where(error)}see `{asked} --help`"
    return MtvcraftError(message[0].lower() + message[1:].rstrip("."), hint=hint, exit=Exit.USAGE)


def _said_where(error: TyperException) -> str:
    """Where a wrong value was said, if not on the command line."""
    parameter, context = getattr(error, "param", None), getattr(error, "ctx", None)
    source = context.get_parameter_source(parameter.name) if context and parameter else None
    places = {"ENVIRONMENT": f"the variable {getattr(parameter, 'envvar', '')}", "DEFAULT_MAP": "a settings file"}
    return f"it comes from {places[source.name]}; " if source and source.name in places else ""
