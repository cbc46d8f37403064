"""The one error of these scripts."""


class SetupError(RuntimeError):
    """Something that a person has to put right; the message is a sentence that says what."""
