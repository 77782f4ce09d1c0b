"""Devices as processes on this machine: keys, proxies, network namespaces, a federation of them.

federation           a federation of devices: equipped, followed, its traffic added to the report
farm                 a SuperLink and its SuperNodes, each in a process and a folder of its own
device               one device: its process, its log, its proxy and link
database             the SuperLink's database, without the pages of what was deleted
keys                 keys and certificates of a server and its devices
network_namespaces   a device in a namespace of its own, joined to the server by one link
counting_proxy       a TCP proxy that counts every byte, and can keep them
traffic              what crossed, beside what the ledger says
"""
