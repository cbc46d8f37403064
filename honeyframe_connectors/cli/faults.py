"""How a command ends: its exit code, and one sentence where it could not do what it was asked."""

import functools
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import ParamSpec, TypeVar

import typer


class Code(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    """It was done, or the answer is yes."""
    NO = 1
    """The answer is no, or it was tried and failed."""
    NOT_ASKED = 2
    """It could not be asked: wrong usage, not there, not allowed, no answer from the API server."""
    TIMED_OUT = 124
    """It was not so within --timeout, as timeout(1) says it."""


EXIT_CODES = (
    "Exit codes: 0 it was done, or the answer is yes; 1 the answer is no, or it was tried and failed; "
    "2 it could not be asked: wrong usage, not there, not allowed, no answer from the API server; "
    "124 it was not so within --timeout."
)


class Fault(Exception):
    """Why a command ends without having done what it was asked: a sentence, which never holds a secret."""

    def __init__(self, message: str, code: Code = Code.NOT_ASKED) -> None:
        super().__init__(message)
        self.code = code


P = ParamSpec("P")
R = TypeVar("R")


def speaking(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose faults become a sentence on stderr and an exit code, never a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except Fault as fault:
            print(fault, file=sys.stderr)
            raise typer.Exit(fault.code) from None

    return run
