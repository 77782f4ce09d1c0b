"""Devices as processes on this machine: keys, proxies, network namespaces, a federation of them."""
