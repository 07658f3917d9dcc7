package adminapi

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

const (
	// syncPatience is how long a call waits for the directory to catch up.
	syncPatience = 5 * time.Second
	// changePatience bounds a change, once its record is begun.
	changePatience = 20 * time.Second
	// attempts is how often an update without an etag is tried again because
	// somebody else's came in between.
	attempts = 5
)

// kind says how one sort of entity is versioned and recorded.
type kind[T any] struct {
	// noun is the entity's kind for people and for the audit trail.
	noun string
	meta func(*T) *storage.Meta
	// name is what people call the entity, such as "nightly@acme".
	name func(T) string
	// about writes the ids and names that the entity touches into a record.
	about func(T, *storage.AuditRecord)
	// values are all that an operator can see of it, but for its names: the
	// old and new values of the record, and what decides whether an update
	// changes anything. Never a secret.
	values func(T) map[string]string
	get    func(ctx context.Context, id string) (T, error)
	create func(context.Context, T) (T, error)
	update func(context.Context, T) (T, error)
	remove func(ctx context.Context, id string, revision int64) error
}

// etag names one state of an entity. It covers the id, so that an etag of a
// deleted entity does not fit another of the same name.
func (k kind[T]) etag(v T) string {
	m := k.meta(&v)
	sum := sha256.Sum256([]byte(m.ID + "/" + strconv.FormatInt(m.Revision, 10)))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// explain says what a storage error means for the entity.
func (k kind[T]) explain(v T, err error) error {
	switch {
	case errors.Is(err, storage.ErrExists):
		return reason.New(reason.AlreadyExists, "%s %q exists already; choose another name, or update it", k.noun, k.name(v)).Because(err)
	case errors.Is(err, storage.ErrNotFound):
		return reason.New(reason.NotFound, "%s %q, or what it refers to, does not exist any more", k.noun, k.name(v)).Because(err)
	case errors.Is(err, storage.ErrConflict):
		return reason.New(reason.EtagMismatch, "%s %q was changed by somebody else; read it again and repeat the change", k.noun, k.name(v)).Because(err)
	case errors.Is(err, storage.ErrInUse):
		return reason.New(reason.InUse, "%s %q is in use by grants; remove or move these first", k.noun, k.name(v)).Because(err)
	}
	return err
}

// unknown says that there is no entity of that name.
func unknown(noun, name string) *reason.Error {
	return reason.New(reason.NotFound, "there is no %s %q", noun, name)
}

// sync makes the directory's answers current. It does not wait for ever for a
// caller who set no deadline.
func (a *API) sync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, syncPatience)
	defer cancel()
	return a.Directory.Sync(ctx)
}

// record begins a record of what the caller of ctx does.
func (a *API) record(ctx context.Context, event audit.Event) storage.AuditRecord {
	caller, _ := authn.PrincipalFrom(ctx)
	return storage.AuditRecord{
		Event:                 string(event),
		Actor:                 caller.Certificate.ID,
		CertificateSerial:     caller.Certificate.Serial,
		CertificateThumbprint: caller.Certificate.Thumbprint,
		Peer:                  caller.Address,
		RequestID:             apierr.RequestID(ctx),
		Detail:                map[string]string{},
	}
}

// carryOut records what is about to be done, does it, and waits until it is in
// force on this broker.
//
// The record comes first and must be durable before anything happens: there is
// no change without a record, whatever fails. The price is a record of a
// change that then did not happen. It is followed by a second one with the
// same request id, the reason of the failure and the detail "outcome": failed,
// or unknown where the answer to the commit was lost. Where even that cannot be
// written the log has it, and the trail says more than happened, never less.
//
// Once the record is begun the caller's hanging up stops nothing.
func (a *API) carryOut(ctx context.Context, record storage.AuditRecord, write func(context.Context) error) error {
	if record.Actor == "" {
		// Only a broker that is wired wrong gets here without a caller.
		return reason.New(reason.Internal, "a change without a caller")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changePatience)
	defer cancel()
	if _, err := a.Trail.Append(ctx, record, audit.NoFence); err != nil {
		return err
	}
	if err := write(ctx); err != nil {
		a.recordFailure(ctx, record, err)
		return err
	}
	return a.sync(ctx)
}

func (a *API) recordFailure(ctx context.Context, record storage.AuditRecord, failure error) {
	outcome := "failed"
	if errors.Is(failure, storage.ErrInDoubt) {
		outcome = "unknown"
	}
	record.Reason = string(apierr.Reason(apierr.Status(ctx, failure)))
	record.Detail = map[string]string{"kind": record.Detail["kind"], "name": record.Detail["name"], "outcome": outcome}
	// The change may have used up its time; saying so gets its own.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), syncPatience)
	defer cancel()
	if _, err := a.Trail.Append(ctx, record, audit.NoFence); err != nil {
		a.Log.ErrorContext(ctx, "a change that the audit trail has did not take place, and the trail cannot be told",
			"event", record.Event, "kind", record.Detail["kind"], "name", record.Detail["name"], "outcome", outcome,
			"request_id", record.RequestID, "failure", failure, "error", err)
	}
}

// note fills in what a record tells of the entity.
func (k kind[T]) note(record *storage.AuditRecord, v T) {
	record.Detail["kind"], record.Detail["name"] = k.noun, k.name(v)
	k.about(v, record)
}

// create stores a new entity.
func create[T any](ctx context.Context, a *API, k kind[T], v T) (T, error) {
	var stored T
	id, err := uuid.NewV7()
	if err != nil {
		return stored, fmt.Errorf("make an id: %w", err)
	}
	k.meta(&v).ID = id.String()
	record := a.record(ctx, audit.AdminCreated)
	k.note(&record, v)
	describe(record.Detail, "new.", k.values(v))
	err = a.carryOut(ctx, record, func(ctx context.Context) error {
		stored, err = k.create(ctx, v)
		return k.explain(v, err)
	})
	return stored, err
}

// update changes an entity that the directory knows by edit, which is given the
// entity as stored. Without an etag it is repeated while others' changes come in between.
// An edit that changes nothing is neither stored nor recorded.
func update[T any](ctx context.Context, a *API, k kind[T], known T, etag string, edit func(T) (T, error)) (T, error) {
	for attempt := 1; ; attempt++ {
		stored, err := updateOnce(ctx, a, k, known, etag, edit)
		if etag == "" && attempt < attempts && reason.Is(err, reason.EtagMismatch) {
			continue
		}
		return stored, err
	}
}

func updateOnce[T any](ctx context.Context, a *API, k kind[T], known T, etag string, edit func(T) (T, error)) (T, error) {
	before, err := k.current(ctx, known, etag)
	if err != nil {
		return before, err
	}
	after, err := edit(before)
	if err != nil {
		return before, err
	}
	from, to := k.values(before), k.values(after)
	if maps.Equal(from, to) {
		return before, nil
	}
	record := a.record(ctx, audit.AdminUpdated)
	k.note(&record, after)
	for key, value := range from {
		if to[key] == value {
			delete(from, key)
			delete(to, key)
		}
	}
	describe(record.Detail, "old.", from)
	describe(record.Detail, "new.", to)
	var stored T
	err = a.carryOut(ctx, record, func(ctx context.Context) error {
		stored, err = k.update(ctx, after)
		return k.explain(after, err)
	})
	return stored, err
}

// remove deletes an entity that the directory knows.
func remove[T any](ctx context.Context, a *API, k kind[T], known T, etag string) error {
	before, err := k.current(ctx, known, etag)
	if err != nil {
		return err
	}
	var revision int64 // whatever is there
	if etag != "" {
		revision = k.meta(&before).Revision
	}
	record := a.record(ctx, audit.AdminDeleted)
	k.note(&record, before)
	describe(record.Detail, "old.", k.values(before))
	return a.carryOut(ctx, record, func(ctx context.Context) error {
		return k.explain(before, k.remove(ctx, k.meta(&before).ID, revision))
	})
}

// current reads what is about to be changed from storage, and compares its
// etag.
func (k kind[T]) current(ctx context.Context, known T, etag string) (T, error) {
	if err := checkEtag(etag); err != nil {
		return known, err
	}
	v, err := k.get(ctx, k.meta(&known).ID)
	if err != nil {
		return known, k.explain(known, err)
	}
	if etag != "" && etag != k.etag(v) {
		return v, k.explain(v, storage.ErrConflict)
	}
	return v, nil
}

// describe adds values to a record's detail. A record's texts are cut at some
// 500 bytes; a list of many actions goes on under "KEY.2" and so on.
func describe(detail map[string]string, prefix string, values map[string]string) {
	const room = 480
	for key, value := range values {
		at := prefix + key
		for part := 2; len(value) > room; part++ {
			cut := strings.LastIndexByte(value[:room], ' ')
			if cut <= 0 {
				break
			}
			detail[at] = value[:cut]
			value = value[cut+1:]
			at = prefix + key + "." + strconv.Itoa(part)
		}
		detail[at] = value
	}
}
