"""Steps that change a system: each is shown as a command, then done, and undone when a later one fails.

Signals that end a program count as a failure here, so that an interrupt leaves nothing behind either.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from pywg.config.positions import ConfigError, Mistake, Position
from pywg.errors import PywgError

_SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__
)


class Interrupted(PywgError):  # noqa: N818  named as the event it stands for
    """A signal asked the program to end."""


def placed(position: Position, key: str, action: Callable[..., object], *arguments: object) -> None:
    """Do a step; when it fails, say which value of the file asked for it. Raises ConfigError."""
    try:
        action(*arguments)
    except PywgError as error:
        raise ConfigError([Mistake(position, f"{key}: {error}")]) from None


def ignore_interrupts() -> None:
    """For a program that has done its work and is about to end: an interrupt could only hide that it did."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@dataclasses.dataclass(frozen=True, slots=True)
class Undo:
    """How to take a step back: the command to show, and the action. It may find nothing left to do."""

    shown: str
    action: Callable[[], None]


class Steps:
    """A context in which steps are run; an exception that leaves it undoes all of them, last one first.

    say: prints one line. dry: steps are shown and not done. Only the main thread of a program can be
    interrupted; there, the handlers of SIGINT, SIGTERM and SIGHUP are ours while the context lasts, unless
    they were ignored.
    """

    def __init__(self, say: Callable[[str], None], *, dry: bool = False) -> None:
        self._say = say
        self.dry = dry
        self._undos: list[Undo] = []
        self._whole = False
        self._interrupted: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._whole = True  # no second interrupt stops the way back
        try:
            if error is not None:
                self._undo_all()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def show(self, command: str) -> None:
        """Show a step that is done elsewhere; one line for each of `command`."""
        for line in command.split("\n") if command else ():
            self._say(f"[#] {line}")

    def run(self, command: str, action: Callable[[], object], undo: Undo | None = None) -> None:
        """Show `command`, do `action`, remember how to undo it; an empty command or undo is not shown.

        An action that can be undone is not interrupted in its middle: a signal takes effect after it.
        """
        self.show(command)
        if self.dry:
            return
        if undo is None:
            action()
        else:
            self._do_whole(lambda: (action(), True)[1], undo)

    def attempt(self, command: str, action: Callable[[], bool], undo: Undo) -> bool:
        """Do what may turn out to be impossible here, and show it if not; returns what `action` does."""
        if self.dry:
            return False
        done = self._do_whole(action, undo)
        if done:
            self.show(command)
        return done

    def _do_whole(self, action: Callable[[], bool], undo: Undo) -> bool:
        self._whole = True
        try:
            result = action()
            if result:
                self._undos.append(undo)
        finally:
            self._whole = False
        if self._interrupted is not None:
            raise _interrupted_by(self._interrupted)
        return result

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        self._interrupted = number
        if not self._whole:
            raise _interrupted_by(number)

    def _undo_all(self) -> None:
        while self._undos:
            undo = self._undos.pop()
            self.show(undo.shown)
            try:
                undo.action()
            except (PywgError, OSError) as error:
                self._say(f"pywg: this could not be undone: {error}")


def _interrupted_by(number: int) -> Interrupted:
    return Interrupted(f"interrupted by {signal.Signals(number).name}")
