"""`make soak`: random work and random faults for as long as one likes, by a seed that is told; C16 of the battery."""
