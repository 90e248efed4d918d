"""The sidekick API of each sandbox, below /sb/{id}: what ComputeSDK's clients speak to once they have a sandbox."""
