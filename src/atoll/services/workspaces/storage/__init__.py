"""Storage: chunks of a lineage, sealed and packed into blobs, and the manifests of trees over them.

What collects and verifies them is here too.
"""
