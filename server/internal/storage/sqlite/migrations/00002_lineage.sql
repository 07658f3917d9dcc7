-- +goose Up

-- Certificates descend from one another by renewal: revoking one revokes its line.
ALTER TABLE certificates ADD COLUMN lineage TEXT;
CREATE INDEX certificates_lineage ON certificates (lineage) WHERE lineage IS NOT NULL;

-- Names of tenants, and of agents as tenant/agent, that were deleted, with the time: the certificates of then must not serve
-- the next of the name.
CREATE TABLE tombstones (
    name       TEXT    NOT NULL PRIMARY KEY,
    deleted_at INTEGER NOT NULL
) STRICT;
ALTER TABLE agents ADD COLUMN certificates_after INTEGER;

CREATE INDEX audit_records_tenant ON audit_records (tenant_name, recorded_at, writer, sequence) WHERE tenant_name IS NOT NULL;
