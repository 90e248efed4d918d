from tests.records.migrated import migrated_postgres_url, postgres_template
from tests.records.postgres import postgres_server, postgres_url

__all__ = ["migrated_postgres_url", "postgres_server", "postgres_template", "postgres_url"]
