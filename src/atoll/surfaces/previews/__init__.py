"""The way in to previews: by path and by host name. What goes through is the gateway's."""
