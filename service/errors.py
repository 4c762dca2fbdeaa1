"""The errors of the top floor; every message says what, which value, and what to do."""

from collections.abc import Sequence


class ServiceError(Exception):
    """Something that the person at the command line can act on; the command failed (exit code 1).

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
    """The command, its settings or its files have to be changed first."""

    exit_code = 2


class SettingsError(MisuseError):
    """A setting is unknown, missing, or cannot be."""
