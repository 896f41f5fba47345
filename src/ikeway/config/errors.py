"""All mistakes of a configuration at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ikeway.errors import ConfigError


class ConfigErrors(ConfigError):
    """Several mistakes; `errors` has each of them, in the order of the files and lines."""

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        self.errors: tuple[ConfigError, ...] = tuple(sorted(errors, key=lambda error: (error.file, error.line)))
        count = len(self.errors)
        first = self.errors[0]
        super().__init__(f"{count} mistake{'s' if count != 1 else ''} in the configuration", file=first.file)

    def __str__(self) -> str:
        """Return one line a mistake."""
        return "\n".join(str(error) for error in self.errors)


def all_errors(error: ConfigError) -> Sequence[ConfigError]:
    """The single mistakes of a `ConfigError` of either kind."""
    return error.errors if isinstance(error, ConfigErrors) else (error,)
