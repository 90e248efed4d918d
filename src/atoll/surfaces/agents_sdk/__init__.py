"""The HTTP sandbox protocol of openai-agents: what its CloudflareSandboxClient speaks to any `worker_url`."""
