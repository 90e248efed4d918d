from tests.blobs.servers import fake_gcs, seaweed
from tests.services.workspaces.storage import storage

__all__ = ["fake_gcs", "seaweed", "storage"]
