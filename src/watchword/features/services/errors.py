"""What may be refused about services."""

from watchword.kernel.errors import WatchwordError


class ServiceNotFound(WatchwordError):
    """No service of this name, or its grant is over. For operators."""

    code = "service_not_found"
    status = 404
    title = "No such service"


class ServiceAlreadyExists(WatchwordError):
    """The name is taken. For operators."""

    code = "service_already_exists"
    status = 409
    title = "A service of this name exists: end it first"
