"""The ClientApp: what a device runs, and what Ray hosts in simulation. Imports no ray, pyreft or datasets.

app           the ClientApp: what each message does
on_node       what every message passes on its way to its handler: rules, the node, the lock, errors
messages      messages that carry several users at once, unpacked; replies packed in few objects
portions      a node's users by the portion, so that memory does not grow with users
node          one node: its users, their data, the vault, the base
collector     imports and weights without the garbage collector, for a process of one message
edits/        the edits of stage 1 in messages, whole or as changes
device/       a device's own config, and its own rules applied to every message
progress      progress lines, at most one every few seconds
vault         command: look into a device's vault, export or erase (`python -m clients.vault`)
chat          command: answer prompts with one's own edits (`python -m clients.chat`)
footprint     command: what a device installs, and its size (`python -m clients.footprint`)
"""
