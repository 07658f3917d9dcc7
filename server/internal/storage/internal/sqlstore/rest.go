package sqlstore

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

// unsearched is an audit record as to the fields that no query asks for. They
// lie in one column, as JSON: a column each would cost a commit of many records
// as much as all the others together.
type unsearched storage.AuditRecord

// rest is the cell of the fields that have none of their own.
func rest(column string, r *storage.AuditRecord) cell {
	return cell{column: column, field: (*unsearched)(r), limit: storage.MaxText}
}

// restJSON is what is stored of them, without the empty ones.
type restJSON struct {
	Reason                string `json:"reason,omitempty"`
	Actor                 string `json:"actor,omitempty"`
	CertificateSerial     string `json:"certificate_serial,omitempty"`
	CertificateThumbprint string `json:"certificate_thumbprint,omitempty"`
	Peer                  string `json:"peer,omitempty"`
	RequestID             string `json:"request_id,omitempty"`
	TenantID              string `json:"tenant_id,omitempty"`
	UserID                string `json:"user_id,omitempty"`
	AgentID               string `json:"agent_id,omitempty"`
	GrantID               string `json:"grant_id,omitempty"`
	SessionID             string `json:"session_id,omitempty"`
	Account               string `json:"account,omitempty"`
	PolicyHash            string `json:"policy_hash,omitempty"`
	PrevHash              string `json:"previous_hash,omitempty"`
	Hash                  string `json:"hash,omitempty"`
	// Expires is in microseconds since 1970-01-01 UTC.
	Expires *int64            `json:"expires_at,omitempty"`
	Detail  map[string]string `json:"detail,omitempty"`
}

// restText is a text by its key in the JSON.
type restText struct{ key, value string }

func (r *unsearched) texts() [15]restText {
	return [...]restText{
		{"reason", r.Reason}, {"actor", r.Actor},
		{"certificate_serial", r.CertificateSerial}, {"certificate_thumbprint", r.CertificateThumbprint},
		{"peer", r.Peer}, {"request_id", r.RequestID}, {"tenant_id", r.TenantID}, {"user_id", r.UserID},
		{"agent_id", r.AgentID}, {"grant_id", r.GrantID}, {"session_id", r.SessionID}, {"account", r.Account},
		{"policy_hash", r.PolicyHash}, {"previous_hash", r.PrevHash}, {"hash", r.Hash},
	}
}

// usualRest is what the JSON of most records fits in, in bytes.
const usualRest = 1024

// encodeRest gives the restJSON of the record. It is written by hand, and a
// test compares, because it is on the way of each credential.
func (c cell) encodeRest(r *unsearched) (any, error) {
	b := append(make([]byte, 0, usualRest), '{')
	begin := func(key string) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), key...), `":`...)
	}
	for _, t := range r.texts() {
		if t.value == "" {
			continue
		}
		begin(t.key)
		if len(t.value) <= c.limit && unescaped(t.value) {
			b = append(append(append(b, '"'), t.value...), '"')
			continue
		}
		if err := (cell{column: t.key, limit: c.limit}).check(t.value); err != nil {
			return nil, err
		}
		encoded, err := json.Marshal(t.value)
		if err != nil {
			return nil, err
		}
		b = append(b, encoded...)
	}
	expires, err := instant("expires_at", &r.Expires).encode()
	if err != nil {
		return nil, err
	}
	if micros, ok := expires.(int64); ok {
		begin("expires_at")
		b = strconv.AppendInt(b, micros, 10)
	}
	detail, err := dictionary("detail", &r.Detail).encode()
	if err != nil {
		return nil, err
	}
	if encoded, ok := detail.(string); ok {
		begin("detail")
		b = append(b, encoded...)
	}
	return string(append(b, '}')), nil
}

// decodeRest reads what encodeRest wrote.
func (c cell) decodeRest(stored string, r *unsearched) error {
	var j restJSON
	if stored != "" {
		if err := json.Unmarshal([]byte(stored), &j); err != nil {
			return fmt.Errorf("column %s: %w", c.column, err)
		}
	}
	r.Reason, r.Actor = j.Reason, j.Actor
	r.CertificateSerial, r.CertificateThumbprint = j.CertificateSerial, j.CertificateThumbprint
	r.Peer, r.RequestID = j.Peer, j.RequestID
	r.TenantID, r.UserID, r.AgentID, r.GrantID = j.TenantID, j.UserID, j.AgentID, j.GrantID
	r.SessionID, r.Account, r.PolicyHash = j.SessionID, j.Account, j.PolicyHash
	r.PrevHash, r.Hash, r.Detail = j.PrevHash, j.Hash, j.Detail
	r.Expires = time.Time{}
	if j.Expires != nil {
		r.Expires = time.UnixMicro(*j.Expires).UTC()
	}
	return nil
}
