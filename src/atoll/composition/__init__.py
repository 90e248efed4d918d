"""How the parts of one server are put together, one file a concept; `atoll.app` has the list of them."""
