"""The web page: it shows a store in a browser, changes nothing, and has metrics for Prometheus.

- `serving` runs the HTTP server, `app` is the ASGI application, and `guard` decides who may see the page.
- `views` answers the addresses that the page in static/ asks, and `forms` makes the JSON of the answers.
- `graph` makes the graph of facts, and `bounds` cuts values to what a page shows.
- `live` watches the namespace for news, and `metrics` counts for Prometheus.
"""

from runic_redis.ui.serving import is_loopback, serve

__all__ = ["is_loopback", "serve"]
