-- Times are microseconds since 1970-01-01 UTC, lists and dictionaries JSON,
-- empty values NULL. Text is ordered by its bytes, whatever the database's own
-- collation. Migrations only ever add: an older broker may still be at work.

-- +goose Up

-- One row: the sequence of the last change.
CREATE TABLE feed (
    id   SMALLINT PRIMARY KEY CHECK (id = 1),
    head BIGINT NOT NULL
) WITH (fillfactor = 10);
INSERT INTO feed (id, head) VALUES (1, 0);

CREATE TABLE changes (
    sequence  BIGINT PRIMARY KEY,
    kind      TEXT COLLATE "C" NOT NULL,
    entity_id TEXT COLLATE "C" NOT NULL
);

-- One row, written to prove that writing works.
CREATE TABLE probe (
    id         SMALLINT PRIMARY KEY CHECK (id = 1),
    written_at BIGINT NOT NULL
) WITH (fillfactor = 10);
INSERT INTO probe (id, written_at) VALUES (1, 0);

CREATE TABLE tenants (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    revision     BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL,
    name         TEXT COLLATE "C" NOT NULL UNIQUE,
    display_name TEXT COLLATE "C",
    disabled     BOOLEAN NOT NULL
);

CREATE TABLE users (
    id               TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    revision         BIGINT NOT NULL,
    created_at       BIGINT NOT NULL,
    updated_at       BIGINT NOT NULL,
    tenant_id        TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    login            TEXT COLLATE "C" NOT NULL,
    password_hash    TEXT COLLATE "C",
    password_version BIGINT NOT NULL,
    disabled         BOOLEAN NOT NULL,
    UNIQUE (tenant_id, login),
    UNIQUE (tenant_id, id)
);

CREATE TABLE agents (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    revision   BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    tenant_id  TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    name       TEXT COLLATE "C" NOT NULL,
    disabled   BOOLEAN NOT NULL,
    UNIQUE (tenant_id, name)
);

CREATE TABLE locations (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    revision    BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    name        TEXT COLLATE "C" NOT NULL UNIQUE,
    account     TEXT COLLATE "C",
    bucket      TEXT COLLATE "C",
    region      TEXT COLLATE "C",
    endpoint    TEXT COLLATE "C",
    kms_key_arn TEXT COLLATE "C"
);

CREATE TABLE grants (
    id                   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    revision             BIGINT NOT NULL,
    created_at           BIGINT NOT NULL,
    updated_at           BIGINT NOT NULL,
    tenant_id            TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    user_id              TEXT COLLATE "C",
    name                 TEXT COLLATE "C" NOT NULL,
    location_id          TEXT COLLATE "C" NOT NULL REFERENCES locations (id),
    prefix               TEXT COLLATE "C",
    access               TEXT COLLATE "C",
    actions              TEXT COLLATE "C",
    lifetime_nanoseconds BIGINT NOT NULL,
    disabled             BOOLEAN NOT NULL,
    UNIQUE (tenant_id, name),
    -- A grant's user is of the grant's tenant.
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
);
CREATE INDEX grants_user ON grants (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX grants_location ON grants (location_id);

-- Certificates outlive their agent: a revoked one stays revoked.
CREATE TABLE certificates (
    id                TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    revision          BIGINT NOT NULL,
    created_at        BIGINT NOT NULL,
    updated_at        BIGINT NOT NULL,
    serial            TEXT COLLATE "C" NOT NULL UNIQUE,
    thumbprint        TEXT COLLATE "C",
    subject           TEXT COLLATE "C",
    agent_id          TEXT COLLATE "C",
    not_before        BIGINT,
    not_after         BIGINT,
    revoked_at        BIGINT,
    revocation_reason TEXT COLLATE "C"
);
CREATE INDEX certificates_agent ON certificates (agent_id) WHERE agent_id IS NOT NULL;
CREATE INDEX certificates_revoked ON certificates (not_after) WHERE revoked_at IS NOT NULL;

CREATE TABLE ended_sessions (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
CREATE INDEX ended_sessions_expiry ON ended_sessions (expires_at);

CREATE TABLE sealed_keys (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    revision   BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    purpose    TEXT COLLATE "C" NOT NULL,
    sealed     BYTEA,
    public     BYTEA,
    retired_at BIGINT
);
CREATE UNIQUE INDEX sealed_keys_in_use ON sealed_keys (purpose) WHERE retired_at IS NULL;

CREATE TABLE join_tokens (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    hash       BYTEA,
    tenant_id  TEXT COLLATE "C" NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    agent_name TEXT COLLATE "C" NOT NULL,
    created_by TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT
);
CREATE INDEX join_tokens_tenant ON join_tokens (tenant_id);
CREATE INDEX join_tokens_expiry ON join_tokens (expires_at);

CREATE TABLE revocations (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    revision      BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL,
    target_kind   TEXT COLLATE "C" NOT NULL,
    target_id     TEXT COLLATE "C" NOT NULL,
    target_name   TEXT COLLATE "C",
    tenant_id     TEXT COLLATE "C",
    account       TEXT COLLATE "C",
    session_name  TEXT COLLATE "C",
    denied_before BIGINT,
    denied_until  BIGINT,
    state         TEXT COLLATE "C" NOT NULL,
    problem       TEXT COLLATE "C",
    reason        TEXT COLLATE "C",
    operator      TEXT COLLATE "C"
);
CREATE INDEX revocations_live ON revocations (id) WHERE state <> 'expired';

CREATE TABLE audit_records (
    writer        TEXT COLLATE "C" NOT NULL,
    sequence      BIGINT NOT NULL,
    recorded_at   BIGINT NOT NULL,
    event         TEXT COLLATE "C" NOT NULL,
    tenant_name   TEXT COLLATE "C",
    user_login    TEXT COLLATE "C",
    agent_name    TEXT COLLATE "C",
    grant_name    TEXT COLLATE "C",
    credential_id TEXT COLLATE "C",
    access_key_id TEXT COLLATE "C",
    session_name  TEXT COLLATE "C",
    -- JSON of the fields that nobody searches by.
    rest          TEXT COLLATE "C",
    PRIMARY KEY (writer, sequence)
);
CREATE INDEX audit_records_order ON audit_records (recorded_at, writer, sequence);
CREATE INDEX audit_records_credential ON audit_records (credential_id) WHERE credential_id IS NOT NULL;
CREATE INDEX audit_records_access_key ON audit_records (access_key_id) WHERE access_key_id IS NOT NULL;
CREATE INDEX audit_records_session ON audit_records (session_name) WHERE session_name IS NOT NULL;

CREATE TABLE audit_heads (
    writer              TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    sequence            BIGINT NOT NULL,
    hash                TEXT COLLATE "C",
    seal                BYTEA,
    first_sequence      BIGINT NOT NULL,
    first_previous_hash TEXT COLLATE "C"
);
