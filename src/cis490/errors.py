"""The exceptions a person is meant to read: one line, what was wrong, where, what to do."""


class Cis490Error(Exception):
    """Base of every error whose message is written for the person who runs cis490."""


class ConfigError(Cis490Error):
    """A setting is unknown, of the wrong type or contradicts another; the message names its key."""


class StoreError(Cis490Error):
    """The store as a whole cannot be used: no index, no records, or a configured host is absent."""


class SchemaMismatch(Cis490Error):
    """An artefact was made under another schema of channels, grid, windows or statistics."""


class FormatError(Cis490Error):
    """An artefact is of an unknown kind or version, or is damaged."""


class DamagedError(FormatError, ValueError):
    """A file does not hold what its name says: it was cut short, or is not text."""


class LabError(Cis490Error):
    """The guest's image cannot be built, or an episode not be recorded, on this machine."""
