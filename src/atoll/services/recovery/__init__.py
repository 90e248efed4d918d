"""Recovery: backups of everything into a store of blobs, back from there, and the second store that is kept in step."""
