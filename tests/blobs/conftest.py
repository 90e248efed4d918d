from tests.blobs.servers import fake_gcs, seaweed

__all__ = ["fake_gcs", "seaweed"]
