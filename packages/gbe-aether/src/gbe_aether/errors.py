"""What the engine raises besides `ValueError` and `TypeError`."""


class NotFoundError(KeyError, ValueError):
    """Something was asked for by an id, a tick or a window that is not there."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""
