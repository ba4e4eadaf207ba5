"""What may go wrong with a mail."""

from watchword.kernel.errors import Fault, InvalidInput


class AddressRefused(InvalidInput):
    """Not exactly one plain address: a list, a display name, a line break (CVE row 33)."""

    def __init__(self) -> None:
        super().__init__([Fault("email", "email_invalid", "is not one e-mail address")])


class SendFailed(Exception):
    """A mail did not leave.

    Args:
        permanent: another try cannot help, for example because there is no such mailbox.
        note: for the log. Neither the address nor anything of the mail belongs in it.
    """

    def __init__(self, *, permanent: bool, note: str = "") -> None:
        super().__init__(note or "the mail did not leave")
        self.permanent = permanent
        self.note = note
