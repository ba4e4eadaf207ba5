"""What is compared: small apps with one route, GET /hello, that answers the same body.

Each module has `prepared(variant, data=…, database=…)`: the app, and the headers to send.
"""
