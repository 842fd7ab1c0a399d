"""The error family. Every message says what came, what it would break, and what to do.

LitestageError            exit code 1: something failed
└── UserError             exit code 2: something the user gave cannot work
    ├── OptionError       an option or argument
    ├── DataError         a question set, a file, a line, a field
    ├── TaskError         a task file
    ├── ModelError        a model, an adapter, a family
    └── PlanError         a plan that does not fit what it is used with
"""


class LitestageError(Exception):
    """A failure that is not the user's mistake."""

    exit_code = 1


class UserError(LitestageError):
    """A user's mistake: shown as a sentence, without a traceback."""

    exit_code = 2


class OptionError(UserError):
    """An option or argument that cannot work."""


class DataError(UserError):
    """A question set, file, line or field that cannot be used."""


class TaskError(UserError):
    """A task description that cannot be used."""


class ModelError(UserError):
    """A model, adapter or family that cannot be used."""


class PlanError(UserError):
    """A plan that does not fit what it is used with."""
