"""Counters of how often something is done: in this process alone, or shared by all servers on one database."""
