"""GET /health/live and GET /health/ready, through HTTP."""

import httpx2


def test_health_says_what_is_served(client: httpx2.Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready", "served": {"digits": 2, "letters": 1}}
