"""What may be refused about API keys."""

from watchword.kernel.errors import WatchwordError


class ApiKeyNotFound(WatchwordError):
    """No such key, or another user's: who asks cannot tell."""

    code = "api_key_not_found"
    status = 404
    title = "No such API key"


class ApiKeyReplaced(WatchwordError):
    """A key is rotated once; after that, its successor is."""

    code = "api_key_replaced"
    status = 409
    title = "This API key was rotated already"


class ApiKeysLimited(WatchwordError):
    """The user has as many keys as one may have."""

    code = "api_keys_limited"
    status = 409
    title = "There are too many API keys: end one first"
