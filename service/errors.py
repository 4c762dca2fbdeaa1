"""Errors of the service; a message names the problem, the value and the remedy."""

import sqlite3
import traceback
from collections.abc import Mapping, Sequence


class ServiceError(Exception):
    """Command failed for a reason that its user can act on (exit code 1).

    Parameters
    ----------
    problems
        One sentence, or several that were found together; each becomes a line.
    """

    exit_code = 1

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(self.problems))


class MisuseError(ServiceError):
    """Wrong command, settings or input files (exit code 2)."""

    exit_code = 2


class SettingsError(MisuseError):
    """Unknown, missing or invalid setting."""


class Overloaded(ServiceError):
    """The queue is full; the caller may retry later."""


class DeadlinePassed(ServiceError):
    """The request reached its deadline in the queue, and was not run."""


class Stopping(ServiceError):
    """The service is stopping, and takes no more requests."""


class WrongResultCount(ServiceError):
    """A batch returned another number of results than it has rows; none of them can be used."""


class RowsFailed(ServiceError):
    """Some rows of a batch or of a request have no result.

    Parameters
    ----------
    errors
        The error of each failed row, at least one, by its place.
    checked
        Number of rows, from the first on, among which these are all that failed.
    """

    def __init__(self, errors: Mapping[int, Exception], checked: int) -> None:
        self.errors, self.checked = errors, checked
        super().__init__(f"{len(errors)} rows have no result")


class ModelExited(ServiceError):
    """The model, or a function, called ``sys.exit`` on a row."""


class NoModel(ServiceError):
    """No version is active: train and promote one first."""


def traceback_without_values(error: BaseException | None) -> str:
    """Return the traceback of an error and its causes, with kinds only: a message may quote a record.

    Messages of the service itself, the operating system and the database stay; they quote no record.
    """
    parts: list[str] = []
    while error is not None:
        kind = type(error).__name__
        text = f"{kind}: {error}" if isinstance(error, ServiceError | OSError | sqlite3.Error) else kind
        frames = traceback.format_tb(error.__traceback__)
        parts.insert(0, "".join(["Traceback (most recent call last):\n", *frames, text]))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nwhich led to\n\n".join(parts)
