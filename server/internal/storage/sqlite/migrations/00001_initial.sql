-- Times are microseconds since 1970-01-01 UTC, flags 0 or 1, lists and
-- dictionaries JSON, empty values NULL. Migrations only ever add: an older
-- broker may still be at work.

-- +goose Up

-- One row: the sequence of the last change.
CREATE TABLE feed (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    head INTEGER NOT NULL
) STRICT;
INSERT INTO feed (id, head) VALUES (1, 0);

CREATE TABLE changes (
    sequence  INTEGER PRIMARY KEY,
    kind      TEXT NOT NULL,
    entity_id TEXT NOT NULL
) STRICT;

-- One row, written to prove that writing works.
CREATE TABLE probe (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    written_at INTEGER NOT NULL
) STRICT;
INSERT INTO probe (id, written_at) VALUES (1, 0);

CREATE TABLE tenants (
    id           TEXT    NOT NULL PRIMARY KEY,
    revision     INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    name         TEXT    NOT NULL UNIQUE,
    display_name TEXT,
    disabled     INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    id               TEXT    NOT NULL PRIMARY KEY,
    revision         INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    tenant_id        TEXT    NOT NULL REFERENCES tenants (id),
    login            TEXT    NOT NULL,
    password_hash    TEXT,
    password_version INTEGER NOT NULL,
    disabled         INTEGER NOT NULL,
    UNIQUE (tenant_id, login),
    UNIQUE (tenant_id, id)
) STRICT;

CREATE TABLE agents (
    id         TEXT    NOT NULL PRIMARY KEY,
    revision   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    tenant_id  TEXT    NOT NULL REFERENCES tenants (id),
    name       TEXT    NOT NULL,
    disabled   INTEGER NOT NULL,
    UNIQUE (tenant_id, name)
) STRICT;

CREATE TABLE locations (
    id          TEXT    NOT NULL PRIMARY KEY,
    revision    INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    name        TEXT    NOT NULL UNIQUE,
    account     TEXT,
    bucket      TEXT,
    region      TEXT,
    endpoint    TEXT,
    kms_key_arn TEXT
) STRICT;

CREATE TABLE grants (
    id                   TEXT    NOT NULL PRIMARY KEY,
    revision             INTEGER NOT NULL,
    created_at           INTEGER NOT NULL,
    updated_at           INTEGER NOT NULL,
    tenant_id            TEXT    NOT NULL REFERENCES tenants (id),
    user_id              TEXT,
    name                 TEXT    NOT NULL,
    location_id          TEXT    NOT NULL REFERENCES locations (id),
    prefix               TEXT,
    access               TEXT,
    actions              TEXT,
    lifetime_nanoseconds INTEGER NOT NULL,
    disabled             INTEGER NOT NULL,
    UNIQUE (tenant_id, name),
    -- A grant's user is of the grant's tenant.
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
) STRICT;
CREATE INDEX grants_user ON grants (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX grants_location ON grants (location_id);

-- Certificates outlive their agent: a revoked one stays revoked.
CREATE TABLE certificates (
    id                TEXT    NOT NULL PRIMARY KEY,
    revision          INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    serial            TEXT    NOT NULL UNIQUE,
    thumbprint        TEXT,
    subject           TEXT,
    agent_id          TEXT,
    not_before        INTEGER,
    not_after         INTEGER,
    revoked_at        INTEGER,
    revocation_reason TEXT
) STRICT;
CREATE INDEX certificates_agent ON certificates (agent_id) WHERE agent_id IS NOT NULL;
CREATE INDEX certificates_revoked ON certificates (not_after) WHERE revoked_at IS NOT NULL;

CREATE TABLE ended_sessions (
    id         TEXT    NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX ended_sessions_expiry ON ended_sessions (expires_at);

CREATE TABLE sealed_keys (
    id         TEXT    NOT NULL PRIMARY KEY,
    revision   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    purpose    TEXT    NOT NULL,
    sealed     BLOB,
    public     BLOB,
    retired_at INTEGER
) STRICT;
CREATE UNIQUE INDEX sealed_keys_in_use ON sealed_keys (purpose) WHERE retired_at IS NULL;

CREATE TABLE join_tokens (
    id         TEXT    NOT NULL PRIMARY KEY,
    hash       BLOB,
    tenant_id  TEXT    NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    agent_name TEXT    NOT NULL,
    created_by TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT;
CREATE INDEX join_tokens_tenant ON join_tokens (tenant_id);
CREATE INDEX join_tokens_expiry ON join_tokens (expires_at);

CREATE TABLE revocations (
    id            TEXT    NOT NULL PRIMARY KEY,
    revision      INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    target_kind   TEXT    NOT NULL,
    target_id     TEXT    NOT NULL,
    target_name   TEXT,
    tenant_id     TEXT,
    account       TEXT,
    session_name  TEXT,
    denied_before INTEGER,
    denied_until  INTEGER,
    state         TEXT    NOT NULL,
    problem       TEXT,
    reason        TEXT,
    operator      TEXT
) STRICT;
CREATE INDEX revocations_live ON revocations (id) WHERE state <> 'expired';

CREATE TABLE audit_records (
    writer        TEXT    NOT NULL,
    sequence      INTEGER NOT NULL,
    recorded_at   INTEGER NOT NULL,
    event         TEXT    NOT NULL,
    tenant_name   TEXT,
    user_login    TEXT,
    agent_name    TEXT,
    grant_name    TEXT,
    credential_id TEXT,
    access_key_id TEXT,
    session_name  TEXT,
    -- JSON of the fields that nobody searches by.
    rest          TEXT,
    PRIMARY KEY (writer, sequence)
) STRICT;
CREATE INDEX audit_records_order ON audit_records (recorded_at, writer, sequence);
CREATE INDEX audit_records_credential ON audit_records (credential_id) WHERE credential_id IS NOT NULL;
CREATE INDEX audit_records_access_key ON audit_records (access_key_id) WHERE access_key_id IS NOT NULL;
CREATE INDEX audit_records_session ON audit_records (session_name) WHERE session_name IS NOT NULL;

CREATE TABLE audit_heads (
    writer              TEXT    NOT NULL PRIMARY KEY,
    sequence            INTEGER NOT NULL,
    hash                TEXT,
    seal                BLOB,
    first_sequence      INTEGER NOT NULL,
    first_previous_hash TEXT
) STRICT;
