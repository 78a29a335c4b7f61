"""A real Ray cluster of two nodes on this machine, one CPU each, until its standard input ends: `python two_nodes.py FOLDER`.

Prints the address. A line `kill` on standard input kills the second node without warning; answered with `killed`.
"""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "temp_dir": sys.argv[1]})
second = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "kill":
        cluster.remove_node(second, allow_graceful=False)
        print("killed", flush=True)
cluster.shutdown()
