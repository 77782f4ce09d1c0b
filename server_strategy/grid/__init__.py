"""The SuperNodes as the server sees them: who they are, users shown as nodes, many users a message, bytes counted.

nodes          wait until all are registered, ask each whom it hosts and what base it runs
wrapped/       Flower's Grid, wrapped: replies read one by one, a deadline, a second try for who died
actors         in a simulation, Ray's actors that died are replaced
hosts          of a Ray cluster: who they are, and whether all of them see the run's folder
user_grid      a Grid whose nodes are users: stock strategies sample and average users
asking         one content to all users, of whose replies is kept what is read of them
packing        several users in one message, and its reply taken apart; of more users, in several waves
edits/         the edits that cross: as strategies see them, and as they travel
message_size   a message's payload, record and wire bytes
work_time      when clients were at work, in a simulation
"""
