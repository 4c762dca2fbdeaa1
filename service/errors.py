"""Errors of the service; a message names the problem, the value and the remedy."""

from collections.abc import Sequence


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
