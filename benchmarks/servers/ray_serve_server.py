"""Ray Serve on this machine alone, with some replicas of our application.

Run by benchmarks/serving/ray_serve.py as `ray_serve_server PORT STORE REPLICAS`. With RAY_SERVE_ENABLE_HA_PROXY=1 in
the environment, HAProxy is before the replicas; otherwise Ray's own proxy is.
"""

import signal
import sys

import ray
from ray import serve

from app.processes.ray_serve import Replicas, application


def main() -> None:
    port, store, replicas = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    ray.init(
        num_cpus=replicas + 1,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100_000_000,
        _node_ip_address="127.0.0.1",
    )
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    serve.run(application(Replicas(store=store, device="cpu", min_replicas=replicas)))
    signal.pause()


if __name__ == "__main__":
    main()
