"""Use cases, one file per noun: authorise, validate, call the plug points, record the event."""
