"""The marketplace: workers that their authors publish, and that others find, install, rate and run."""
