"""What people know about a slice, beside what it computes."""

from __future__ import annotations

from dataclasses import dataclass

from sfs.declared import is_share, short_text
from sfs.errors import InvalidFunction

SEVERITIES = ("info", "warning", "critical")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What people know about a slice: why it exists, who answers for it, and what it must keep.

    Parameters
    ----------
    description
        One sentence on who is in the slice.
    owner
        The person or team to call.
    severity
        ``info``, ``warning`` or ``critical``.
    target
        The accuracy in (0, 1] that the slice must keep, or None.
    protected
        Whether a new model may be refused because of this slice.
    family
        A name shared by related slices.

    Raises
    ------
    InvalidFunction
        If a value is of the wrong kind or out of its range.
    """

    description: str = ""
    owner: str = ""
    severity: str = "warning"
    target: float | None = None
    protected: bool = False
    family: str = ""

    def __post_init__(self) -> None:
        for field in ("description", "owner", "severity", "family"):
            if not isinstance(getattr(self, field), str):
                raise InvalidFunction(f"{field} is text, got {short_text(getattr(self, field))}")
        if self.severity not in SEVERITIES:
            raise InvalidFunction(f"severity is one of {', '.join(SEVERITIES)}, got {self.severity!r}")
        if not isinstance(self.protected, bool):
            raise InvalidFunction(f"protected is True or False, got {short_text(self.protected)}")
        if self.target is not None and not is_share(self.target):
            raise InvalidFunction(
                f"target is an accuracy above 0 and at most 1, such as 0.9, got {short_text(self.target)}"
            )


NO_METADATA = Metadata()
