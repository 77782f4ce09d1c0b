"""What a simulation is served by beside its SuperLink, each started while the others start.

ray_head         a Ray of the run's own, which the simulation joins
ray_hook         what Ray's own command has no option for
flower_cli       Flower's command line, loaded once for all that is asked of it
flower_serving   the process of that command line; it imports nothing of this project
"""
