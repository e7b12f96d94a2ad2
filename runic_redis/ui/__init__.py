"""The web page: a store looked at in a browser, which can change nothing, and what Prometheus asks for.

`app` is the ASGI application, `guard` who may see it, `views` the JSON that the page in static/ is made of, `graph`
what made which fact, `live` what comes, `metrics` the numbers, and `serving` the HTTP server.
"""

from runic_redis.ui.serving import is_loopback, serve

__all__ = ["is_loopback", "serve"]
