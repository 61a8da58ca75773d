"""A real Ray cluster on loopback, for tests."""

import os
import socket
from contextlib import contextmanager

import pytest


@contextmanager
def two_nodes():
    """A head without a CPU, so that jobs run on the two nodes, of one CPU each; this process is its driver."""
    if os.environ.get("DIVULGE_REQUIRE") != "all":
        pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "ray_client_server_port": free_port()}
    # Ray 2.60 tells its client server port 0 for this agent where none is named, and the server cannot start then.
    head["runtime_env_agent_port"] = free_port()
    head["_system_config"] = {"health_check_period_ms": 1000}  # a dead node is known to be dead in 5 seconds, not in 15
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        made.client_port = head["ray_client_server_port"]
        made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        ray.init(address=made.address, log_to_driver=False)
        made.wait_for_nodes()
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
