-- +goose Up

-- Certificates descend from one another by renewal: revoking one revokes its line.
ALTER TABLE certificates ADD COLUMN lineage TEXT COLLATE "C";
CREATE INDEX certificates_lineage ON certificates (lineage) WHERE lineage IS NOT NULL;

-- Names of tenants, and of agents as tenant/agent, that were deleted, with the time: the certificates of then must not serve
-- the next of the name.
CREATE TABLE tombstones (
    name       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    deleted_at BIGINT NOT NULL
);
ALTER TABLE agents ADD COLUMN certificates_after BIGINT;

CREATE INDEX audit_records_tenant ON audit_records (tenant_name, recorded_at, writer, sequence) WHERE tenant_name IS NOT NULL;
