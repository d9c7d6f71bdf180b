"""The command line: `sfumato VERB [options]`. One thin file per verb; this one finds the verb, runs it and answers for its errors.

The first words pick the verb from a table of names, so that `sfumato --help` imports neither tyro nor torch; a verb's own `--help`
imports tyro, never torch. Exit codes: 0 done, 1 a sound request that failed, 2 a wrong request, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from .. import __version__
from ..core.errors import SfumatoError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from .verb import Verb

# The words that call a verb -> (its module and class, what it does).
VERBS: Mapping[str, tuple[str, str]] = {
    "generate": ("generate:Generate", "draw pictures from prompts, or draw a saved picture again"),
    "data emoji": ("data:Emoji", "build the EmojiWorld data set from openly licensed drawings"),
    "data scenes": ("data:Scenes", "compose scenes, edits, stories, videos and more from EmojiWorld's drawings"),
    "train codec": ("train:TrainCodec", "train the autoencoder between pixels and latents"),
    "train model": ("train_model:TrainModel", "train a text-to-image model on a codec's latents"),
    "train judge": ("train:TrainJudge", "train the judge that scores models"),
    "train critic": ("train:TrainCritic", "train the critic that chooses pictures for the judge to score"),
    "train perceptual": ("train:TrainPerceptual", "train the distance between pictures that losses use"),
    "evaluate": ("evaluate:Evaluate", "let the judge score a model"),
    "inspect": ("inspect:Inspect", "look inside: a model's anatomy, a profile, heat maps of words"),
    "schedule": ("schedule:Schedule", "print a model's times and where each number came from"),
    "reproduce": ("reproduce:Reproduce", "check a published claim"),
}

# What an option that takes several values may say.
EXAMPLES = {"languages": "de", "scenes": "FOLDER", "forms": "1 1 1 1", "blocks": "0 1", "styles": "noto"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code; errors are printed on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # tyro: --help (0) or an option it refuses (2)
        return stop.code if isinstance(stop.code, int) else 2
    except BrokenPipeError:
        # Whoever read our output has closed it. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (SfumatoError, KeyboardInterrupt, Exception) as error:
        if "--debug" in words:
            import traceback

            traceback.print_exception(error)
        return _answer(error)


def _answer(error: BaseException) -> int:
    """Say what went wrong, in the user's words where it is the user's to mend; the exit code."""
    if isinstance(error, SfumatoError):
        print(f"sfumato: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        print("sfumato: stopped", file=sys.stderr)
        return 130
    print(f"sfumato: unexpected {type(error).__name__}: {error}\n  run the command again with --debug to see where", file=sys.stderr)
    return 1


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_listing(VERBS))
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"sfumato {__version__}")
        return 0
    name, rest = _verb(words)
    if name not in VERBS:
        inner = {full: entry for full, entry in VERBS.items() if full.startswith(f"{name} ")}
        print(_listing(inner))
        return 0 if rest[:1] in (["-h"], ["--help"]) else 2
    return _parse(name, rest).run()


def _verb(words: list[str]) -> tuple[str, list[str]]:
    """(the verb's full name or the first word of several verbs, the words after it). `UsageError` with the nearest names."""
    firsts = {name.split()[0] for name in VERBS}
    if words[0] not in firsts:
        if words[0].startswith("-"):
            raise UsageError(f"{words[0]} stands before the command", "the command comes first: sfumato generate --help")
        if " " in words[0]:
            raise UsageError(f"unknown command {words[0]!r}", f'to draw it: sfumato generate "{words[0]}"')
        raise UnknownNameError("command", words[0], firsts)
    if words[0] in VERBS:
        return words[0], words[1:]
    seconds = {name.split()[1] for name in VERBS if name.startswith(f"{words[0]} ")}
    if len(words) == 1 or words[1] in ("-h", "--help"):
        return words[0], words[1:]
    if words[1] not in seconds:
        raise UnknownNameError(f"command after {words[0]!r}:", words[1], seconds)
    return f"{words[0]} {words[1]}", words[2:]


def _parse(name: str, words: list[str]) -> Verb:
    from dataclasses import fields

    import tyro

    module, _, attribute = VERBS[name][0].partition(":")
    verb: type[Verb] = getattr(import_module(f".{module}", __name__), attribute)
    rules, config = import_module(".choices", __name__).rules(), (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    asked = tyro.cli(verb, prog=f"sfumato {name}", args=words, config=config, registry=rules)
    for option in fields(asked):
        if option.default is None and getattr(asked, option.name) == ():
            said = f"--{option.name.replace('_', '-')}"
            raise UsageError(f"{said} names nothing", f"name at least one: {said} {EXAMPLES.get(option.name, 'VALUE')}, or leave it out")
    return asked


def _listing(verbs: Mapping[str, tuple[str, str]]) -> str:
    width = max(map(len, verbs)) + 2
    lines = [f"  {name:{width}}{summary}" for name, (_, summary) in verbs.items()]
    only = next(iter(verbs)) if len(verbs) == 1 else "COMMAND"
    return "\n".join(
        [
            "usage: sfumato COMMAND [options]",
            "",
            *lines,
            "",
            f"  sfumato {only} --help      a command's options",
            "  sfumato --version           the version",
            "",
            'for example:  sfumato generate "a happy cat, noto style" --seed 3',
        ]
    )
