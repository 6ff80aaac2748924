"""Standard output and error that may be closed, or break as in ``| head -1``: the program goes on without."""

import errno
import io
import os
import sys

from fastreid.utils.errors import UserError

ESCAPED = "backslashreplace"


class Output(io.TextIOWrapper):
    """A text stream to a file descriptor that leads nowhere from the first failure to write on.

    Attributes:
        failure: why; None as long as all went well.
    """

    failure: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.failure = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # takes what is still buffered, too
        os.close(nowhere)


def secure_output() -> None:
    """Make `Output` of this process's stdout and stderr, and open what of 0, 1 and 2 is closed to nowhere.

    Otherwise the next file that is opened would be one of them, and take what is printed. What cannot be
    encoded, such as a file name that is no valid text, is escaped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            own = Output(open(number, "wb", closefd=False), "utf-8", ESCAPED)  # noqa: SIM115 (till the end)
        elif type(stream) is io.TextIOWrapper and stream is getattr(sys, f"__{name}__"):
            options = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
            encoding = stream.encoding
            own = Output(stream.detach(), encoding, ESCAPED, **options)
        else:
            continue
        setattr(sys, name, own)
        setattr(sys, f"__{name}__", own)


def check_printed() -> None:
    """Check that all that was printed has been written; a reader that has gone, as ``head``, has had enough.

    Raises:
        UserError: if it has not.
    """
    if isinstance(sys.stdout, Output):
        sys.stdout.flush()
        failure = sys.stdout.failure
        if failure and failure.errno != errno.EPIPE:
            raise UserError(f"the output cannot be printed: {failure.strerror}")
