"""What sync does on this side, shared by both kinds of clients: look at the folder, plan, pack, write. No network."""
