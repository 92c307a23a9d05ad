"""Errors that a person can act on. The command line prints their message on one line and never a
traceback."""

from typing import Any


class FrosterError(Exception):
    """Something failed: the message says what was expected, what was found and what to do next.
    Exit code 1."""

    exit_code = 1


class UsageError(FrosterError):
    """The request itself is wrong (an empty label list, an unknown method). Exit code 2."""

    exit_code = 2


def one_of(option: str, value: object, *choices: str) -> None:
    """Raises UsageError unless `value` is one of the choices."""
    if value not in choices:
        raise UsageError(
            f"{option} must be {', '.join(choices[:-1])} or {choices[-1]}, not {value!r}"
        )


def install(extra: str) -> str:
    """How an optional part is installed: of the distribution (`froster` on the package index is
    another program), or here."""
    return f"pip install 'froster-video[{extra}]', in a checkout pip install -e '.[{extra}]'"


def out_of_memory(error: BaseException) -> bool:
    """Is it a MemoryError, or what PyTorch raises in its place? By name and words, so that PyTorch
    need not be loaded."""
    words = (
        "out of memory",
        "can't allocate memory",
        "not enough memory",
        "bad_alloc",
        "ALLOC_FAILED",
        "Cannot allocate memory",
    )
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


class FrosterWarning(UserWarning):
    """Something goes on otherwise than one may expect. The command line prints it on one line."""


class VideoError(FrosterError):
    """A video of which no frame can be had. Names the file and the cause."""


class BatchError(VideoError):
    """Some videos of a list could not be read; the others have been answered. Names the first."""

    def __init__(self, results: list[Any], errors: dict[int, str]) -> None:
        """`results`: in the order of the list, None where `errors`, by position, has the cause."""
        self.results, self.errors = results, errors
        first = next(iter(errors.values()))
        super().__init__(
            f"{len(errors)} of {len(results)} videos cannot be read, the answers to the others are"
            f" in `results` of this error: {first}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchError, (self.results, self.errors)


class CheckpointError(FrosterError):
    """Weights that cannot be read, or that do not fit the architecture. Names the keys."""


class DataError(FrosterError):
    """A dataset folder or manifest that cannot be used as it is."""


class WriteError(FrosterError):
    """A file that cannot be written, for example on a full disk. Names it and the cause."""
