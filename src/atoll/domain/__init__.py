"""The vocabulary that every room shares: pure values, state machines and errors; standard library only."""
