"""The errors of the ground floor; every message says what, which value, and what to do."""


class SliceError(ValueError):
    """Anything wrong with slicing functions, their answers, or the rows they are applied to."""


class DuplicateName(SliceError):
    """Two functions carry one name."""


class UnknownName(SliceError):
    """A slice, function or column was asked for that does not exist."""


class InvalidFunction(SliceError):
    """A function, template or preprocessor is declared wrongly."""


class InvalidAnswer(SliceError):
    """A function answered something that is neither true nor false."""


class UnreadableFile(SliceError):
    """A file of rows or of functions cannot be read."""
