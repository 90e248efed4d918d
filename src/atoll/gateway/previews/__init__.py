"""The bytes of previews: connections to ports of sandboxes, and the HTTP and WebSockets that go through them."""
